"""Fine-tune the full-size teacher on the labelled data."""

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from edgeseq import data, models
from edgeseq.data.encoded import Encoded
from edgeseq.models import saved
from edgeseq.models.bert import Bert, load_checkpoint
from edgeseq.recipe import TeacherRecipe, options_from
from edgeseq.result import TrainingResult
from edgeseq.tasks.classification import Batch, batches_in, in_random_order
from edgeseq.train import default_device, fit, set_deterministic
from edgeseq.worker import Job


def work(job: Job) -> None:
    """Settings: `seed`, `teacher` (a `TeacherRecipe`). Reads `data`; leaves a saved model and `result.json`."""
    recipe = options_from(TeacherRecipe, job.settings["teacher"], where="teacher")
    corpus = Encoded.load(job.needs["data"] / "teacher.json")
    set_deterministic(job.settings["seed"])
    rng = np.random.default_rng(job.settings["seed"])
    model = pretrained(recipe, corpus).to(default_device())
    sentences, labels = corpus.train.sentences, torch.from_numpy(corpus.train.labels)

    def loss(batch: Batch) -> torch.Tensor:
        logits = model(batch.tokens.to(model.head.weight.device))
        return F.cross_entropy(logits, labels[batch.index].to(logits.device))

    fit(
        model,
        lambda: in_random_order(sentences, recipe.training.batch_size, rng),
        loss,
        recipe.training,
        n_batches=batches_in(sentences, recipe.training.batch_size),
        progress=job.progress,
    )
    saved.save(model, recipe.model, job.out)
    TrainingResult.of(model, corpus).save(job.out)


def pretrained(recipe: TeacherRecipe, corpus: Encoded) -> Bert:
    """The teacher with its pretrained weights and a fresh head; embeddings and the lowest blocks frozen.

    Frozen embeddings: their gradients and optimizer state would cost as much time as the whole encoder's.
    """
    model = models.build(recipe.model, {"n_vocab": corpus.n_vocab, "n_classes": corpus.n_classes, **recipe.options})
    assert isinstance(model, Bert)
    load_checkpoint(model, load_file(data.weights(recipe.weights).fetch().weights))
    embeddings = (model.embedding, model.position, model.segment, model.embedding_norm)
    for module in (*embeddings, *model.blocks[: recipe.frozen_blocks]):
        module.requires_grad_(False)
    return model
