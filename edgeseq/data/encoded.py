"""A data set in tokens: what training and verification read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from edgeseq.data import Example
from edgeseq.tokens.wordpiece import WordPiece


@dataclass(frozen=True, kw_only=True)
class EncodedSplit:
    """Sentences as token ids, and their classes."""

    sentences: list[list[int]]
    labels: np.ndarray  # (N,) int64


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """All splits of a data set in one vocabulary. `shifted` are test sets from other domains."""

    n_classes: int
    n_vocab: int
    train: EncodedSplit
    validation: EncodedSplit
    test: EncodedSplit
    shifted: Mapping[str, EncodedSplit]

    def save(self, path: Path) -> None:
        """Write as JSON."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        data = {
            "n_classes": self.n_classes,
            "n_vocab": self.n_vocab,
            "splits": {name: _plain(split) for name, split in splits.items()},
            "shifted": {name: _plain(split) for name, split in self.shifted.items()},
        }
        path.write_text(json.dumps(data, separators=(",", ":")))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read back what `save` wrote."""
        data = json.loads(path.read_text())
        splits = {name: _split(split) for name, split in data["splits"].items()}
        shifted = {name: _split(split) for name, split in data["shifted"].items()}
        return cls(n_classes=data["n_classes"], n_vocab=data["n_vocab"], shifted=shifted, **splits)


def encode(examples: tuple[Example, ...], tokenizer: WordPiece, max_length: int) -> EncodedSplit:
    """Tokens and labels of labelled texts."""
    sentences = tokenizer.encode([e.text for e in examples], max_length=max_length)
    return EncodedSplit(sentences=sentences, labels=np.array([e.label for e in examples], dtype=np.int64))


def _plain(split: EncodedSplit) -> dict[str, list[list[int]] | list[int]]:
    return {"sentences": split.sentences, "labels": split.labels.tolist()}


def _split(data: Mapping[str, list[list[int]]]) -> EncodedSplit:
    return EncodedSplit(sentences=data["sentences"], labels=np.array(data["labels"], dtype=np.int64))
