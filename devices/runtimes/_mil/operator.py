"""What an operator of the evaluator is: a numpy function of MIL's parameter names."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Array = Any  # a numpy array of any type: numpy's stubs know little more of what these functions do
Operator = Callable[..., Any]  # arrays by MIL's parameter names -> an array, or a tuple of them


def ints(values: Iterable[Any]) -> list[int]:
    """Numpy's integers as Python's."""
    return [int(value) for value in values]


def axes_of(x: np.ndarray, axes: Iterable[Any] | None) -> tuple[int, ...]:
    """The axes as numpy takes them; None: all."""
    return tuple(range(x.ndim)) if axes is None else tuple(ints(axes))
