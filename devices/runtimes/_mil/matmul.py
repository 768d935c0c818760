"""MIL operators that multiply matrices: in float32, whatever type the program declares."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeseq.devices.runtimes._mil.blas import product
from edgeseq.devices.runtimes._mil.elementwise import softmax
from edgeseq.devices.runtimes._mil.operator import Array, Operator


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """From x (…, I), weight (O, I), bias (O,) -> (…, O)."""
    rows = product(x.reshape(-1, x.shape[-1]), weight.T)  # one matrix product, not one per row of the batch
    result = rows.reshape(*x.shape[:-1], weight.shape[0])
    return result if bias is None else result + bias


def matmul(x: Array, y: Array, transpose_x: Any = False, transpose_y: Any = False) -> Array:
    """As numpy's, with either operand's last two axes swapped first."""
    return product(x.swapaxes(-1, -2) if transpose_x else x, y.swapaxes(-1, -2) if transpose_y else y)


def attention(query: Array, key: Array, value: Array, attn_mask: Array | None = None) -> Array:
    """softmax(q kᵀ / √K + mask) v; query (…, T, K), key (…, S, K), value (…, S, K) -> (…, T, K)."""
    scores = product(query, key.swapaxes(-1, -2)) / np.sqrt(np.float32(query.shape[-1]))
    if attn_mask is not None:
        scores = np.where(attn_mask, scores, -np.inf) if attn_mask.dtype == np.bool_ else scores + attn_mask
    return product(softmax(scores), value)


def _einsum(values: Sequence[Array], equation: Any) -> Array:
    return np.einsum(str(equation), *values)


OPERATORS: dict[str, Operator] = {
    "linear": linear,
    "matmul": matmul,
    "scaled_dot_product_attention": attention,
    "einsum": _einsum,
}
