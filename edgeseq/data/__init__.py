"""Sources of data and weights, one per file; each ends with the constant DATA or WEIGHTS."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, cast

from edgeseq import lookup

__all__ = ["Data", "Example", "Splits", "Weights", "data", "weights"]


@dataclass(frozen=True)
class Example:
    """A text and the index of its class."""

    text: str
    label: int


@dataclass(frozen=True, kw_only=True)
class Splits:
    """A labelled data set, split once and for all. `shifted`: further test sets from other domains."""

    classes: tuple[str, ...]
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    shifted: Mapping[str, tuple[Example, ...]]

    def limited(self, limit: int | None) -> "Splits":
        """The first `limit` examples of each split; None: all."""
        return replace(
            self,
            train=self.train[:limit],
            validation=self.validation[:limit],
            test=self.test[:limit],
            shifted={name: examples[:limit] for name, examples in self.shifted.items()},
        )


class Data(ABC):
    """A labelled data set."""

    source: ClassVar[str]  # where it comes from and under which licence, for the report

    @abstractmethod
    def load(self) -> Splits:
        """Fetch what is not cached, check it, and read it."""


class Weights(ABC):
    """Pretrained weights and the vocabulary they were trained with."""

    source: ClassVar[str]

    @abstractmethod
    def fetch(self) -> "PretrainedFiles":
        """Fetch what is not cached, check it, and say where it lies."""


@dataclass(frozen=True, kw_only=True)
class PretrainedFiles:
    """Where pretrained weights lie."""

    weights: Path  # safetensors
    vocabulary: Path  # one token a line


def data(name: str) -> Data:
    """The data set of that name."""
    return cast(Data, lookup.get(sys.modules[__name__], name, "DATA", extra="hf"))


def weights(name: str) -> Weights:
    """The pretrained weights of that name."""
    return cast(Weights, lookup.get(sys.modules[__name__], name, "WEIGHTS", extra="hf"))
