"""Build the transfer set: training sentences and augmented ones, with the teacher's logits and hidden states."""

import numpy as np

from edgeseq.data.encoded import Encoded
from edgeseq.distill import NO_LABEL, TransferSet, augmented
from edgeseq.labelling import along_principal_directions, labels_of
from edgeseq.models import saved
from edgeseq.quantize import Scheme
from edgeseq.recipe import Distillation, options_from
from edgeseq.tasks.classification import in_order_of_length, padded
from edgeseq.tokens.wordpiece import MASK, WordPiece
from edgeseq.worker import Job

BATCH = 16  # a tenth faster on a CPU than 64: what lies between two layers stays in the cache
DIRECTIONS = 64  # K, principal ones of the teacher's states: the students match these, and the file stays small
SAMPLE = 256  # sentences that the directions are found from


def work(job: Job) -> None:
    """Settings: `seed`, `distillation`. Reads `data` and `teacher`; leaves `transfer.npz` in the students' tokens."""
    settings = options_from(Distillation, job.settings["distillation"], where="distillation")
    corpus = Encoded.load(job.needs["data"] / "student.json")
    small = WordPiece.load(job.needs["data"] / "student.vocab.txt")
    large = WordPiece.load(job.needs["data"] / "teacher.vocab.txt")
    rng = np.random.default_rng(job.settings["seed"])
    sentences = corpus.train.sentences + augmented(
        corpus.train.sentences, settings, mask_token=small.ids[MASK], rng=rng
    )
    in_large = np.array(small.rows_in(large))
    logits, states = label(job, [in_large[s].tolist() for s in sentences], Scheme.parse(settings.teacher_scheme))
    labels = np.full(len(sentences), NO_LABEL)
    labels[: len(corpus.train.labels)] = corpus.train.labels
    TransferSet(sentences=sentences, labels=labels, logits=logits, states=states).save(job.out / "transfer.npz")


def label(job: Job, sentences: list[list[int]], scheme: Scheme) -> tuple[np.ndarray, np.ndarray]:
    """The teacher's logits (N, C) of sentences in its own tokens, and its states (sum of lengths, K) along its directions."""
    model = saved.load(job.needs["teacher"])
    with_states = along_principal_directions(model, padded(sentences[:SAMPLE]), DIRECTIONS)
    teacher = labels_of(with_states, scheme, max_length=max(map(len, sentences)))
    ends = np.cumsum([len(s) for s in sentences])
    logits = np.empty((len(sentences), model.spec.n_classes), np.float32)
    states = np.empty((ends[-1], with_states.directions.shape[1]), np.float16)
    done = 0
    for batch in in_order_of_length(sentences, BATCH):
        logits[batch.index], of_tokens = teacher(batch.tokens)
        for row, sentence in enumerate(batch.index):
            end = ends[sentence]
            states[end - len(sentences[sentence]) : end] = of_tokens[row, : len(sentences[sentence])]
        done += len(batch.index)
        job.progress(done, len(sentences), "sentences labelled by the teacher")
    return logits, states
