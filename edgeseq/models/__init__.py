"""Architectures, one per file; each ends with the constant MODEL."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

from edgeseq import lookup
from edgeseq.recipe import options_from

if TYPE_CHECKING:
    from edgeseq.models.classifier import Classifier

__all__ = ["Architecture", "build", "get", "names"]


class Architecture(ABC):
    """One architecture: its spec, a frozen dataclass, and how to build it. Stateless."""

    spec: ClassVar[type]

    @abstractmethod
    def build(self, spec: Any) -> "Classifier":
        """A model with fresh weights, drawn from torch's current seed."""


def names() -> tuple[str, ...]:
    """Every architecture."""
    return lookup.names(sys.modules[__name__], "MODEL")


def get(name: str) -> Architecture:
    """The architecture of that name."""
    return cast(Architecture, lookup.get(sys.modules[__name__], name, "MODEL"))


def build(name: str, options: Mapping[str, Any]) -> "Classifier":
    """A model from an architecture's name and the values of its spec."""
    architecture = get(name)
    return architecture.build(options_from(architecture.spec, options, where=f"model '{name}'"))
