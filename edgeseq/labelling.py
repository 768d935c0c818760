"""The teacher as it labels a transfer set: on a GPU by PyTorch, on a CPU as its own quantized conversion.

A student sees hundreds of thousands of the teacher's answers, and a CPU spends longer on them than on anything but the
teacher's training. The conversions that this project makes of users' models serve it as well.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgeseq import converters, quantize
from edgeseq.capture import capture
from edgeseq.devices import runtimes
from edgeseq.models.classifier import Classifier
from edgeseq.quantize import Scheme
from edgeseq.recipe import TEACHER_FORMAT
from edgeseq.signature import Dim
from edgeseq.stages import cores
from edgeseq.train import default_device

MAX_BATCH = 64
EXAMPLE_SHAPE = (2, 3)

Teacher = Callable[[Tensor], tuple[np.ndarray, np.ndarray]]  # tokens (B, T) -> logits (B, C), states (B, T, K)


class ProjectedStates(nn.Module):
    """A classifier that also gives its states of every token along K directions: students match these."""

    mean: Tensor  # (S,)
    directions: Tensor  # (S, K)

    def __init__(self, model: Classifier, mean: Tensor, directions: Tensor):
        super().__init__()
        self.model = model
        self.register_buffer("mean", mean)
        self.register_buffer("directions", directions)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, T) -> logits (B, C), states (B, T, K)."""
        logits, states = self.model.classify(tokens)
        return logits, (states - self.mean) @ self.directions


@torch.no_grad()
def along_principal_directions(model: Classifier, tokens: Tensor, n_directions: int) -> ProjectedStates:
    """The model with its states along the directions of their largest variance over a sample of tokens (B, T).

    Scaled so that a projected state has a spread of 1: a weight of its loss means the same whatever the teacher's scale.
    """
    states = model.eval().states(tokens)[tokens != model.spec.pad_token]  # (N, S)
    mean = states.mean(0)
    _, _, axes = torch.linalg.svd(states - mean, full_matrices=False)
    directions = axes[:n_directions].T
    return ProjectedStates(model, mean, directions / ((states - mean) @ directions).std()).eval()


def labels_of(model: ProjectedStates, scheme: Scheme, *, max_length: int) -> Teacher:
    """The fastest faithful form of the model on this machine; `scheme` is what it is quantized to on a CPU.

    `fp32` leaves it in PyTorch. Batches are at most `MAX_BATCH`, sentences `max_length`.
    """
    device = default_device()
    if device.type == "cpu" and scheme.name != "fp32":
        return _quantized(model, scheme, max_length)
    model = model.to(device)

    @torch.inference_mode()
    def run(tokens: Tensor) -> tuple[np.ndarray, np.ndarray]:
        logits, states = model(tokens.to(device))
        return logits.float().cpu().numpy(), states.float().cpu().numpy()

    return run


def _quantized(model: ProjectedStates, scheme: Scheme, max_length: int) -> Teacher:
    batch, time = (
        Dim(name="batch", min=1, max=MAX_BATCH),
        Dim(name="time", min=1, max=max(max_length, EXAMPLE_SHAPE[1])),
    )
    captured = capture(
        model,
        {"tokens": torch.zeros(EXAMPLE_SHAPE, dtype=torch.int64)},
        {"tokens": {0: batch, 1: time}},
        output_names=("logits", "states"),
    )
    with tempfile.TemporaryDirectory() as folder:
        floating = converters.convert(captured, TEACHER_FORMAT, Path(folder) / "fp32", model="teacher")
        artifact = quantize.quantize(floating, scheme, Path(folder) / scheme.name)
        session = runtimes.for_format(TEACHER_FORMAT).load(artifact.path, artifact.signatures, threads=cores())

    def run(tokens: Tensor) -> tuple[np.ndarray, np.ndarray]:
        outputs = session.run({"tokens": tokens.int().numpy()})
        return outputs["logits"], outputs["states"]

    return run
