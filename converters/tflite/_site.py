"""What a lowering knows of the place it lowers, beside the operator's arguments."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeseq.converters.tflite._graph import Graph, Shape


@dataclass(frozen=True, kw_only=True)
class Site:
    """One node of the program. A lowering gets it first, then the arguments of the operator's schema in order."""

    graph: Graph
    shapes: tuple[Shape, ...]
    dtypes: tuple[np.dtype[Any], ...]
    is_broadcast_later: (
        bool  # all users broadcast, so that the result may keep axes of size 1 instead of the full shape
    )
    is_used: tuple[bool, ...]  # which results have users

    @property
    def shape(self) -> Shape:
        """The first result's shape."""
        return self.shapes[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The first result's dtype."""
        return self.dtypes[0]
