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
    """Every sentence once, in random batches; sentences of one length meet, so that nearly no batch needs padding."""
    order = rng.permutation(len(sentences))
    order = order[np.argsort([len(sentences[i]) for i in order], kind="stable")]
    for i in rng.permutation(math.ceil(len(order) / batch_size)):
        index = order[i * batch_size : (i + 1) * batch_size]
        yield Batch(index=index, tokens=padded([sentences[j] for j in index]))


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
