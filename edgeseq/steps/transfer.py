"""Build the transfer set: the training sentences and augmented ones, with the teacher's logits and sentence vectors."""

import numpy as np
import torch

from edgeseq.data.encoded import Encoded
from edgeseq.distill import NO_LABEL, TransferSet, augmented
from edgeseq.models import saved
from edgeseq.recipe import Distillation, options_from
from edgeseq.tasks.classification import in_order_of_length
from edgeseq.tokens.wordpiece import MASK, WordPiece
from edgeseq.train import default_device
from edgeseq.worker import Job

BATCH = 64


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
    logits, hidden = label(job, [in_large[s].tolist() for s in sentences])
    hidden = (hidden - hidden.mean(0)) / hidden.std()  # so that a weight means the same whatever the teacher's scale
    labels = np.full(len(sentences), NO_LABEL)
    labels[: len(corpus.train.labels)] = corpus.train.labels
    TransferSet(sentences=sentences, labels=labels, logits=logits, hidden=hidden).save(job.out / "transfer.npz")


@torch.no_grad()
def label(job: Job, sentences: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """The teacher's logits (N, C) and sentence vectors (N, D) of sentences in its own tokens."""
    teacher = saved.load(job.needs["teacher"]).to(default_device())
    logits = np.empty((len(sentences), teacher.spec.n_classes), np.float32)
    hidden = np.empty((len(sentences), teacher.spec.d_model), np.float32)
    done = 0
    for batch in in_order_of_length(sentences, BATCH):
        outputs = teacher.classify(batch.tokens.to(teacher.head.weight.device))
        logits[batch.index], hidden[batch.index] = (x.float().cpu().numpy() for x in outputs)
        done += len(batch.index)
        job.progress(done, len(sentences), "sentences labelled by the teacher")
    return logits, hidden
