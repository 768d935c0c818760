"""Train a student: distilled from the teacher, or as a control from scratch on hard labels."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from edgeseq import models
from edgeseq.data.encoded import Encoded
from edgeseq.distill import NO_LABEL, DistillationLoss, TransferSet, with_word_dropout
from edgeseq.embeddings import starting_table
from edgeseq.models import saved
from edgeseq.models.classifier import Classifier
from edgeseq.recipe import Distillation, StudentRecipe, Training, options_from
from edgeseq.result import TrainingResult
from edgeseq.tasks.classification import Batch, batches_in, in_random_order
from edgeseq.tokens.wordpiece import MASK, WordPiece
from edgeseq.train import default_device, fit, set_deterministic
from edgeseq.worker import Job


def distil(job: Job) -> None:
    """Settings: `seed`, `student`, `distillation`. Reads `data`, `teacher`, `transfer`; leaves a saved model."""
    recipe = options_from(StudentRecipe, job.settings["student"], where="student")
    settings = options_from(Distillation, job.settings["distillation"], where="distillation")
    corpus, model = begin(job, recipe)
    transfer = TransferSet.load(job.needs["transfer"] / "transfer.npz")
    if settings.teacher_embeddings:
        start_from_teacher(model, job, transfer, with_states=settings.expected_states)
    mask_token = WordPiece.load(job.needs["data"] / "student.vocab.txt").ids[MASK]
    loss = TransferLoss(model, transfer, settings, mask_token=mask_token)
    train(job, nn.ModuleList([model, loss.parts]), transfer.sentences, loss, recipe.training)
    leave(job, model, recipe, corpus)


def control(job: Job) -> None:
    """Settings: `seed`, `student`. Reads `data`; the same student, knowing nothing of a teacher."""
    recipe = options_from(StudentRecipe, job.settings["student"], where="student")
    assert recipe.control_training is not None
    corpus, model = begin(job, recipe)
    labels = torch.from_numpy(corpus.train.labels).to(default_device())

    def loss(batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch.tokens.to(labels.device)), labels[batch.index])

    train(job, model, corpus.train.sentences, loss, recipe.control_training)
    leave(job, model, recipe, corpus)


def begin(job: Job, recipe: StudentRecipe) -> tuple[Encoded, Classifier]:
    """The data, and the student with fresh weights."""
    corpus = Encoded.load(job.needs["data"] / "student.json")
    set_deterministic(job.settings["seed"])
    sizes = {"n_vocab": corpus.n_vocab, "n_classes": corpus.n_classes}
    return corpus, models.build(recipe.model, {**sizes, **recipe.options}).to(default_device())


def start_from_teacher(model: Classifier, job: Job, transfer: TransferSet, *, with_states: bool) -> None:
    """Fill the student's embedding table with what the teacher knows of the tokens of its vocabulary."""
    small = WordPiece.load(job.needs["data"] / "student.vocab.txt")
    large = WordPiece.load(job.needs["data"] / "teacher.vocab.txt")
    table = load_file(job.needs["teacher"] / saved.WEIGHTS)["embedding.weight"][small.rows_in(large)]
    is_real = transfer.labels != NO_LABEL  # augmented sentences say little of how words are used
    lengths = [len(s) for s in transfer.sentences]
    tokens = torch.from_numpy(np.concatenate([s for s, real in zip(transfer.sentences, is_real, strict=True) if real]))
    states = torch.from_numpy(transfer.states[np.repeat(is_real, lengths)]).float() if with_states else None
    with torch.no_grad():
        model.embedding.weight.copy_(starting_table(table, tokens, states, model.embedding.embedding_dim))


class TransferLoss:
    """The distillation loss of a batch of the transfer set."""

    def __init__(self, model: Classifier, transfer: TransferSet, settings: Distillation, *, mask_token: int):
        device = default_device()
        self.model = model
        self.word_dropout = settings.word_dropout
        self.mask_token = mask_token
        self.labels = torch.from_numpy(transfer.labels).to(device)
        self.logits = torch.from_numpy(transfer.logits).to(device)
        self.states = torch.from_numpy(transfer.states).to(device)
        self.ends = torch.from_numpy(np.cumsum([len(s) for s in transfer.sentences])).to(device)
        sizes = {"d_student": model.d_states, "d_teacher": transfer.states.shape[1]}
        self.parts = DistillationLoss(settings, **sizes).to(device)

    def __call__(self, batch: Batch) -> Tensor:
        index, tokens = torch.from_numpy(batch.index), batch.tokens.to(self.labels.device)
        pad_token = self.model.spec.pad_token
        valid = tokens != pad_token  # (B, T)
        seen = with_word_dropout(tokens, self.word_dropout, mask_token=self.mask_token, pad_token=pad_token)
        logits, states = self.model.classify(seen)
        first = self.ends[index] - valid.sum(1)
        rows = (first[:, None] + torch.arange(tokens.shape[1], device=first.device))[valid]  # (N,)
        return self.parts(logits, states[valid], self.labels[index], self.logits[index], self.states[rows].float())


def train(
    job: Job, model: nn.Module, sentences: list[list[int]], loss: Callable[[Batch], Tensor], training: Training
) -> None:
    """Fit with progress reported to the job."""
    rng = np.random.default_rng(job.settings["seed"])

    def batches() -> Iterator[Batch]:
        return in_random_order(sentences, training.batch_size, rng)

    fit(model, batches, loss, training, n_batches=batches_in(sentences, training.batch_size), progress=job.progress)


def leave(job: Job, model: Classifier, recipe: StudentRecipe, corpus: Encoded) -> None:
    """Save the model and its result."""
    saved.save(model, recipe.model, job.out)
    TrainingResult.of(model, corpus).save(job.out)
