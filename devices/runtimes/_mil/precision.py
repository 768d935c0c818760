"""The types that an evaluation rounds to: the program's own, or one float type for all of it.

Core ML computes what it puts on the Neural Engine in float16, whatever the program was converted with. Rounding every
operator's result shows what that costs; hardware may also round inside an operator, or keep sums wider.
"""

from typing import Any, Literal, get_args

import numpy as np

Precision = Literal["declared", "float16", "float32"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
FLOATS = (np.float16, np.float32)


def as_evaluated(dtype: np.dtype[Any], precision: Precision) -> np.dtype[Any]:
    """The type that a value of that declared type has in the evaluation."""
    return dtype if precision == "declared" or dtype not in FLOATS else np.dtype(precision)


def as_stored(dtype: np.dtype[Any], size: int, precision: Precision) -> np.dtype[Any]:
    """The same of a constant: weights are stored in float16 there, but a single number, such as an epsilon, stays exact."""
    return dtype if size <= 1 else as_evaluated(dtype, precision)
