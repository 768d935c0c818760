"""What `edgeseq convert` takes: one file per kind of thing that a model can come as."""

import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from edgeseq import lookup
from edgeseq.errors import RequestError

if TYPE_CHECKING:
    from edgeseq.capture import CapturedModel
    from edgeseq.reference import Case

__all__ = ["Loaded", "Source", "file_name", "find", "get", "names"]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model as every later stage wants it."""

    captured: "CapturedModel"
    cases: "tuple[Case, ...]"  # what the model computes on inputs that the capture never saw, and what is fed while measuring
    about: Mapping[str, str]  # `input`: what is fed, in words


class Source(ABC):
    """One kind of source. Stateless; importing its file imports nothing heavy, since every kind is asked."""

    takes: ClassVar[str]  # in words, such as "a .pt2 file"
    has_forward: ClassVar[bool] = False  # whether a model with several signatures may be captured as one `forward`

    @abstractmethod
    def is_mine(self, path: Path) -> bool:
        """Whether what lies there is of this kind, by its name and the names of the files in it."""

    def models(self, path: Path) -> tuple[str, ...]:
        """Names of the models in it, after checking all that can be checked without loading one.

        Raises:
            RequestError: It cannot be converted, and why.
        """
        return (file_name(path.resolve().stem),)

    @abstractmethod
    def load(self, path: Path, model: str, *, forward_only: bool = False) -> Loaded:
        """One of the models, captured with all its signatures.

        Args:
            path: What `is_mine` said yes to.
            model: One of the names that `models` gave.
            forward_only: As one `forward` without caches, where `has_forward`.

        Raises:
            RequestError: It cannot be read.
            UnsupportedError: It cannot be captured.
        """


def names() -> tuple[str, ...]:
    """Every kind of source."""
    return lookup.names(sys.modules[__name__], "SOURCE")


def get(name: str) -> Source:
    """The source of that name."""
    return cast(Source, lookup.get(sys.modules[__name__], name, "SOURCE"))


def find(path: Path) -> str:
    """The name of the source that takes what lies at a path.

    Raises:
        RequestError: There is nothing, or nothing that any of them takes.
    """
    for name in names():
        if path.exists() and get(name).is_mine(path):
            return name
    known = "; ".join(get(name).takes for name in names())
    why = "is nothing that `convert` takes" if path.exists() else "does not exist"
    raise RequestError(f"'{path}' {why}; it takes {known}")


def file_name(text: str) -> str:
    """A name for files and folders made of any text."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip(".") or "model"
