"""Generating text from a decoder's `prefill` and `step`: greedy search, and beam search over the likeliest continuations.

A decoder with an encoder reads its source first, by `encode`; its prompt is the token that it begins with.

Letters: B batch, T tokens of the prompt, N beams, V vocabulary.
"""

import numpy as np

from edgeseq.errors import RequestError
from edgeseq.signature import Tensors
from edgeseq.stream import Stream


def read(stream: Stream, source: Tensors) -> None:
    """Encode what is to be translated, summarised or transcribed; what is generated from then on follows from it.

    Args:
        stream: Of an artifact with the signature `encode`, at the beginning.
        source: The inputs of `encode`.
    """
    stream.hold({**source, **stream.run(source, "encode")})


def greedy(stream: Stream, prompt: np.ndarray, count: int) -> np.ndarray:
    """The likeliest next token, `count` times: prompt (B, T) int32 -> (B, count) int32. Goes on from the stream's state.

    Raises:
        RequestError: No token is asked for.
    """
    _check(count)
    logits = stream.run({"tokens": prompt}, "prefill")["logits"]  # (B, V)
    tokens = [logits.argmax(-1).astype(np.int32)]
    while len(tokens) < count:
        logits = stream.run({"tokens": tokens[-1][:, None]}, "step")["logits"]
        tokens.append(logits.argmax(-1).astype(np.int32))
    return np.stack(tokens, axis=1)


def choices(stream: Stream, prompt: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The likeliest token after a prompt (B, T) and after each of the given tokens (B, N) but the last: (B, N) int32."""
    logits = stream.run({"tokens": prompt}, "prefill")["logits"]  # (B, V)
    found = [logits.argmax(-1).astype(np.int32)]
    for given in tokens.T[:-1]:  # (B,)
        logits = stream.run({"tokens": given[:, None]}, "step")["logits"]
        found.append(logits.argmax(-1).astype(np.int32))
    return np.stack(found, axis=1)


def beam_search(
    stream: Stream, prompt: np.ndarray, count: int, *, n_beams: int, end: int | None = None
) -> tuple[np.ndarray, float]:
    """The likeliest of the continuations that N beams find: prompt (1, T) int32 -> (count,) int32, its log-probability.

    Every beam is one row of the stream's batch. A beam that has come to the token `end` repeats it at no cost.

    Raises:
        RequestError: No token or no beam is asked for.
    """
    _check(count)
    if n_beams < 1:
        raise RequestError(f"{n_beams} beams find nothing; 1 at least is needed")
    logits = stream.run({"tokens": prompt}, "prefill")["logits"]  # (1, V)
    scores = np.zeros(1)  # of each beam
    beams = np.zeros((1, 0), np.int32)  # what each has said
    while True:
        costs = _log_softmax(logits)  # (N, V)
        if end is not None and beams.shape[1]:
            costs[beams[:, -1] == end] = np.where(np.arange(costs.shape[1]) == end, 0.0, -np.inf)
        totals = (scores[:, None] + costs).ravel()
        best = np.argsort(-totals, kind="stable")[:n_beams]
        parents, tokens = np.divmod(best, costs.shape[1])
        scores = totals[best]
        beams = np.concatenate([beams[parents], tokens[:, None].astype(np.int32)], axis=1)
        if beams.shape[1] == count:
            return beams[0], float(scores[0])
        stream.choose(parents.tolist())
        logits = stream.run({"tokens": beams[:, -1:]}, "step")["logits"]  # (N, V)


def token_agreement(actual: np.ndarray, expected: np.ndarray) -> float:
    """The fraction of tokens that are the same at the same place; after a first difference few are."""
    return float((actual == expected).mean())


def _check(count: int) -> None:
    if count < 1:
        raise RequestError(f"{count} tokens cannot be generated; a prompt is followed by 1 at least")


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
