"""Operators that stay one node from the PyTorch model to the phone, with batch and time symbolic.

One file a layer, ending with its `LAYER`.
"""

import sys
from typing import TYPE_CHECKING, cast

from edgeseq import lookup

if TYPE_CHECKING:
    from edgeseq.operators.layers import RecurrentLayer

__all__ = ["get", "names"]


def names() -> tuple[str, ...]:
    """Every recurrent layer; `edgeseq::NAME` is its operator."""
    return lookup.names(sys.modules[__name__], "LAYER")


def get(name: str) -> "RecurrentLayer":
    """The layer of that name."""
    return cast("RecurrentLayer", lookup.get(sys.modules[__name__], name, "LAYER"))
