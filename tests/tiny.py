"""The smallest model that has what sequence models are made of, and its files."""

import shutil
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeseq import converters
from edgeseq.artifact import Artifact
from edgeseq.capture import CapturedModel, capture
from edgeseq.signature import Dim

VOCABULARY, WIDTH = 60, 16


class Tiny(nn.Module):
    """tokens (B, T) -> logits (B, T, 3)."""

    def __init__(self, vocabulary: int = VOCABULARY, width: int = WIDTH) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.up = nn.Linear(width, 32)
        self.head = nn.Linear(32, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        y, _ = self.lstm(self.embedding(tokens))  # (B, T) -> (B, T, D)
        logits: Tensor = self.head(self.up(y).tanh())  # (B, T, 3)
        return logits


def model(vocabulary: int = VOCABULARY, width: int = WIDTH) -> Tiny:
    """Always the same weights."""
    torch.manual_seed(0)
    return Tiny(vocabulary, width).eval()


def captured(module: nn.Module) -> CapturedModel:
    """A model of tokens (B, T), at any batch and length."""
    shapes = {"tokens": {0: Dim(name="batch", min=1, max=8), 1: Dim(name="time", min=1, max=64)}}
    return capture(module, {"tokens": torch.ones(2, 5, dtype=torch.int64)}, shapes)


def to_onnx(folder: Path) -> Artifact:
    """The float32 file."""
    return converters.convert(captured(model()), "onnx", folder, model="tiny")


def in_every_format(folder: Path) -> dict[str, Artifact]:
    """The float32 file of each format."""
    program = captured(model())
    return {format: converters.convert(program, format, folder / format, model="tiny") for format in converters.names()}


def without_record(artifact: Artifact, folder: Path) -> Path:
    """A copy of the model file somewhere without its record."""
    target = folder / artifact.path.name
    if artifact.path.is_dir():
        shutil.copytree(artifact.path, target, dirs_exist_ok=True)
    else:
        shutil.copy(artifact.path, target)
    return target
