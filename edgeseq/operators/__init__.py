"""Operators that stay one node from the PyTorch model to the phone, with batch and time symbolic.

One file an operator; that of a recurrent layer ends with its `LAYER`.
"""

import importlib
import pkgutil
import sys
from typing import TYPE_CHECKING, cast

from edgeseq import lookup

if TYPE_CHECKING:
    from edgeseq.operators.layers import RecurrentLayer

__all__ = ["get", "load_all", "names"]


def names() -> tuple[str, ...]:
    """Every recurrent layer; `edgeseq::NAME` is its operator."""
    return lookup.names(sys.modules[__name__], "LAYER")


def get(name: str) -> "RecurrentLayer":
    """The layer of that name."""
    return cast("RecurrentLayer", lookup.get(sys.modules[__name__], name, "LAYER"))


def load_all() -> None:
    """Make every `edgeseq::` operator known to torch, which a program that holds one asks for when it is read."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
