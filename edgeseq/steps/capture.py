"""Capture a trained student, and write down what it computes on cases that the capture never saw."""

import json
from collections.abc import Sequence

import numpy as np
import torch

from edgeseq.capture import capture
from edgeseq.data.encoded import Encoded
from edgeseq.models import saved
from edgeseq.models.classifier import Classifier
from edgeseq.reference import Case, Kind, Reference
from edgeseq.signature import Dim
from edgeseq.tasks.classification import in_order_of_length, padded
from edgeseq.worker import Job

MAX_BATCH = 64
EXAMPLE_SHAPE = (2, 24)  # a batch or a length of 1 would be taken for a constant
UNSEEN_SHAPES = ((1, 1), (1, 3), (1, 17), (3, 40), (5, 11))  # and the longest
TASK_BATCH = 32


def work(job: Job) -> None:
    """Settings: `max_length`, `bench_length`, `student`. Reads `data` and the student's folder; leaves `reference.npz`."""
    student = job.settings["student"]
    model = saved.load(job.needs[f"students/{student}"])
    corpus = Encoded.load(job.needs["data"] / "student.json")
    batch = Dim(name="batch", min=1, max=MAX_BATCH)
    time = Dim(name="time", min=1, max=job.settings["max_length"])
    example = torch.randint(1, corpus.n_vocab, EXAMPLE_SHAPE, generator=torch.Generator().manual_seed(0))
    capture(model, {"tokens": example}, {"tokens": {0: batch, 1: time}}).save(job.out)
    unseen = [*(shape for shape in UNSEEN_SHAPES if shape[1] < time.max), (1, time.max)]
    cases = [
        *(parity_case(model, corpus, shape) for shape in unseen),
        *task_cases(model, corpus),
        bench_case(model, corpus, job.settings["bench_length"]),
    ]
    Reference(model=student, cases=tuple(cases)).save(job.out / "reference.npz")
    words = f"a test sentence of {job.settings['bench_length']} tokens, batch 1"
    test_set = f"{len(corpus.test.labels):,} test sentences that no training saw"
    (job.out / "about.json").write_text(json.dumps({"input": words, "test_set": test_set}))


def parity_case(model: Classifier, corpus: Encoded, shape: tuple[int, int]) -> Case:
    """Random tokens (B, T), all rows different; every row but the first ends in padding."""
    rng = np.random.default_rng(shape)
    tokens = rng.integers(1, corpus.n_vocab, shape)
    for row in range(1, shape[0]):
        tokens[row, rng.integers(1, shape[1]) :] = 0
    return _case(model, f"{shape[0]}x{shape[1]}", "parity", torch.from_numpy(tokens), None)


def task_cases(model: Classifier, corpus: Encoded) -> list[Case]:
    """The whole test set, in batches of similar length."""
    batches = in_order_of_length(corpus.test.sentences, TASK_BATCH)
    return [_case(model, f"test {i}", "task", b.tokens, corpus.test.labels[b.index]) for i, b in enumerate(batches)]


def bench_case(model: Classifier, corpus: Encoded, length: int) -> Case:
    """Real test sentences joined to exactly `length` tokens, batch 1."""
    return _case(model, f"1x{length}", "bench", padded([sentence_of(corpus.test.sentences, length)]), None)


def sentence_of(sentences: Sequence[Sequence[int]], length: int) -> list[int]:
    """[CLS], the first words of the sentences, [SEP]: `length` tokens."""
    words = [token for sentence in sentences for token in sentence[1:-1]]
    return [sentences[0][0], *words[: length - 2], sentences[0][-1]]


@torch.no_grad()
def _case(model: Classifier, name: str, kind: Kind, tokens: torch.Tensor, labels: np.ndarray | None) -> Case:
    logits = model(tokens).numpy()
    return Case(
        name=name, kind=kind, inputs={"tokens": tokens.int().numpy()}, outputs={"logits": logits}, labels=labels
    )
