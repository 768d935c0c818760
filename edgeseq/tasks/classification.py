"""Text classification: one class a sentence, scored by accuracy."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Sentences of similar length. `index` (B,) says which of the data set they are."""

    index: np.ndarray
    tokens: Tensor  # (B, T) int64, padded with 0


def in_random_order(sentences: Sequence[Sequence[int]], batch_size: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Every sentence once, in `batches_in` random batches of one length each.

    A batch without padding needs no packed sequences: an LSTM trains several times as fast. Only lengths that are rare share
    batches with their neighbours, so that no batch is tiny.
    """
    order = rng.permutation(len(sentences))
    order = order[np.argsort([len(sentences[i]) for i in order], kind="stable")]
    runs = _runs([len(sentences[i]) for i in order], batch_size)
    batches = [
        index for run in runs for index in np.array_split(order[run], math.ceil((run.stop - run.start) / batch_size))
    ]
    for i in rng.permutation(len(batches)):
        yield Batch(index=batches[i], tokens=padded([sentences[j] for j in batches[i]]))


def batches_in(sentences: Sequence[Sequence[int]], batch_size: int) -> int:
    """How many batches `in_random_order` makes of them."""
    runs = _runs(sorted(map(len, sentences)), batch_size)
    return sum(math.ceil((run.stop - run.start) / batch_size) for run in runs)


def _runs(lengths: Sequence[int], batch_size: int) -> list[slice]:
    """Ascending lengths -> runs of one length, or of several where one alone would not fill half a batch."""
    ends = [i for i in range(1, len(lengths)) if lengths[i] != lengths[i - 1]]
    starts = [0]
    for end in ends:
        if min(end - starts[-1], len(lengths) - end) >= batch_size // 2:
            starts.append(end)
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], len(lengths)], strict=True)]


def in_order_of_length(sentences: Sequence[Sequence[int]], batch_size: int) -> Iterator[Batch]:
    """Every sentence once, shortest first: the least padding."""
    order = np.argsort([len(s) for s in sentences], kind="stable")
    for start in range(0, len(order), batch_size):
        index = order[start : start + batch_size]
        yield Batch(index=index, tokens=padded([sentences[j] for j in index]))


def padded(sentences: Sequence[Sequence[int]]) -> Tensor:
    """Sentences of any lengths -> (B, T) int64, filled up with 0."""
    tokens = np.zeros((len(sentences), max(map(len, sentences))), dtype=np.int64)
    for row, sentence in zip(tokens, sentences, strict=True):
        row[: len(sentence)] = sentence
    return torch.from_numpy(tokens)


@torch.no_grad()
def predict(model: nn.Module, sentences: Sequence[Sequence[int]], *, batch_size: int = 64) -> np.ndarray:
    """Logits (N, C) of every sentence, float32. The model is left in eval mode."""
    model.eval()
    device = next(model.parameters()).device
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for batch in in_order_of_length(sentences, batch_size):
        found.append((batch.index, model(batch.tokens.to(device)).float().cpu().numpy()))
    logits = np.empty((len(sentences), found[0][1].shape[1]), dtype=np.float32)
    for index, values in found:
        logits[index] = values
    return logits


def accuracy(logits: np.ndarray, labels: Sequence[int] | np.ndarray) -> float:
    """Fraction of sentences whose highest logit (N, C) is that of their label (N,)."""
    return float((logits.argmax(1) == np.asarray(labels)).mean())
