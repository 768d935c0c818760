"""MIL operators that multiply matrices: in float32, whatever type the program declares."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from edgeseq.devices.runtimes._mil.blas import product
from edgeseq.devices.runtimes._mil.elementwise import softmax
from edgeseq.devices.runtimes._mil.operator import Array, Operator, ints


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


def convolution(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    strides: Array | None = None,
    pad_type: Any = "valid",
    pad: Array | None = None,
    dilations: Array | None = None,
    groups: Any = 1,
) -> Array:
    """From x (B, I, *space), weight (O, I / groups, *kernel) -> (B, O, *space)."""
    if str(pad_type) not in ("valid", "custom"):
        raise NotImplementedError(f"conv with pad_type {pad_type}")
    rank = x.ndim - 2
    before_after = [0] * (2 * rank) if pad is None or str(pad_type) == "valid" else ints(pad)
    widths = [(0, 0), (0, 0), *((before_after[2 * axis], before_after[2 * axis + 1]) for axis in range(rank))]
    convolve = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[rank]
    result = convolve(
        torch.from_numpy(np.pad(x, widths)),
        torch.from_numpy(weight),
        None if bias is None else torch.from_numpy(bias),
        stride=[1] * rank if strides is None else ints(strides),
        dilation=[1] * rank if dilations is None else ints(dilations),
        groups=int(groups),
    )
    return result.numpy()


def _einsum(values: Sequence[Array], equation: Any) -> Array:
    return np.einsum(str(equation), *values)


OPERATORS: dict[str, Operator] = {
    "linear": linear,
    "matmul": matmul,
    "scaled_dot_product_attention": attention,
    "einsum": _einsum,
    "conv": convolution,
}
