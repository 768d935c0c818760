"""MIL's convolutions and pools, over one to three spatial axes. Letters: B batch, I and O channels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from edgeseq.devices.runtimes._mil.operator import Array, Operator, ints


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
    rank = x.ndim - 2
    steps, spread = _of_axes(strides, rank), _of_axes(dilations, rank)
    reach = [(size - 1) * gap + 1 for size, gap in zip(weight.shape[2:], spread, strict=True)]
    widths = padding(x.shape[2:], reach, steps, pad_type, pad)
    convolve = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[rank]
    result = convolve(
        torch.from_numpy(np.pad(x, [(0, 0), (0, 0), *widths])),
        torch.from_numpy(weight),
        None if bias is None else torch.from_numpy(bias),
        stride=steps,
        dilation=spread,
        groups=int(groups),
    )
    return result.numpy()


def transposed_convolution(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    pad: Array | None = None,
    output_shape: Array | None = None,
    pad_type: Any = "valid",
    strides: Array | None = None,
    dilations: Array | None = None,
    groups: Any = 1,
) -> Array:
    """From x (B, I, *space), weight (I, O / groups, *kernel) -> (B, O, *space), what padding would have added cut off."""
    rank = x.ndim - 2
    steps, spread = _of_axes(strides, rank), _of_axes(dilations, rank)
    convolve = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}[rank]
    full = convolve(
        torch.from_numpy(x),
        torch.from_numpy(weight),
        stride=steps,
        dilation=spread,
        groups=int(groups),
    ).numpy()
    if str(pad_type) in ("same", "same_lower"):
        totals = (have - size * step for have, size, step in zip(full.shape[2:], x.shape[2:], steps, strict=True))
        cuts = [_halves(max(total, 0), is_lower=str(pad_type) == "same_lower") for total in totals]
    else:
        cuts = padding(x.shape[2:], weight.shape[2:], steps, pad_type, pad)
    sizes = [have - before - after for have, (before, after) in zip(full.shape[2:], cuts, strict=True)]
    if output_shape is not None:  # a stride leaves it open
        sizes = ints(output_shape)[-rank:]
    room = [(0, max(0, b + size - have)) for have, (b, _), size in zip(full.shape[2:], cuts, sizes, strict=True)]
    spans = (slice(before, before + size) for (before, _), size in zip(cuts, sizes, strict=True))
    result = np.pad(full, [(0, 0), (0, 0), *room])[(slice(None), slice(None), *spans)]
    return result if bias is None else result + bias.reshape(-1, *[1] * rank)


def windows(
    x: Array, kernel_sizes: Array, strides: Array | None, pad_type: Any, pad: Array | None, ceil_mode: Any, fill: float
) -> Array:
    """From x (B, I, *space) -> (B, I, *space of the result, *kernel): what each pool sees."""
    kernel = ints(kernel_sizes)
    steps = _of_axes(strides, len(kernel))
    widths = padding(x.shape[2:], kernel, steps, pad_type, pad)
    if ceil_mode:
        widths = [
            (before, after + (-(size + before + after - k)) % step)
            for size, (before, after), k, step in zip(x.shape[2:], widths, kernel, steps, strict=True)
        ]
    padded = np.pad(x, [(0, 0), (0, 0), *widths], constant_values=fill)
    axes = tuple(range(2, x.ndim))
    views = np.lib.stride_tricks.sliding_window_view(padded, kernel, axes)
    return views[(slice(None), slice(None), *(slice(None, None, step) for step in steps))]


def max_pool(
    x: Array, kernel_sizes: Array, strides: Any = None, pad_type: Any = "valid", pad: Any = None, ceil_mode: Any = False
) -> Array:
    """The largest of each window; padding counts for nothing."""
    seen = windows(x, kernel_sizes, strides, pad_type, pad, ceil_mode, -np.inf)
    return seen.max(axis=tuple(range(x.ndim, seen.ndim)))


def l2_pool(
    x: Array, kernel_sizes: Array, strides: Any = None, pad_type: Any = "valid", pad: Any = None, ceil_mode: Any = False
) -> Array:
    """The root of the sum of squares of each window."""
    seen = windows(x, kernel_sizes, strides, pad_type, pad, ceil_mode, 0.0)
    return np.sqrt(np.square(seen).sum(axis=tuple(range(x.ndim, seen.ndim))))


def avg_pool(
    x: Array,
    kernel_sizes: Array,
    strides: Any = None,
    pad_type: Any = "valid",
    pad: Any = None,
    exclude_padding_from_average: Any = False,
    ceil_mode: Any = False,
) -> Array:
    """The mean of each window; padding counts as zeros, or for nothing. What rounding up adds never counts."""
    over = tuple(range(x.ndim, 2 * x.ndim - 2))
    total = windows(x, kernel_sizes, strides, pad_type, pad, ceil_mode, 0.0).sum(axis=over)
    widths = padding(x.shape[2:], ints(kernel_sizes), _of_axes(strides, x.ndim - 2), pad_type, pad)
    ones = np.ones((1, 1, *x.shape[2:]), x.dtype)
    if exclude_padding_from_average:
        return total / windows(ones, kernel_sizes, strides, pad_type, pad, ceil_mode, 0.0).sum(axis=over)
    counted = np.pad(ones, [(0, 0), (0, 0), *widths], constant_values=1)
    return total / windows(counted, kernel_sizes, strides, "valid", None, ceil_mode, 0.0).sum(axis=over)


def padding(
    space: Sequence[int], kernel: Sequence[int], strides: Sequence[int], pad_type: Any, pad: Array | None
) -> list[tuple[int, int]]:
    """How much goes before and after each spatial axis; `same` gives ceil(size / stride) results."""
    if str(pad_type) in ("same", "same_lower"):
        totals = (
            max(0, (-(-size // step) - 1) * step + reach - size)
            for size, reach, step in zip(space, kernel, strides, strict=True)
        )
        return [_halves(total, is_lower=str(pad_type) == "same_lower") for total in totals]
    given = [0] * (2 * len(space)) if pad is None or str(pad_type) == "valid" else ints(pad)
    return list(zip(given[::2], given[1::2], strict=True))


def _halves(total: int, *, is_lower: bool) -> tuple[int, int]:
    """An odd one goes after, or before."""
    return (total - total // 2, total // 2) if is_lower else (total // 2, total - total // 2)


def _of_axes(values: Array | None, rank: int) -> list[int]:
    return [1] * rank if values is None else ints(values)


OPERATORS: dict[str, Operator] = {
    "conv": convolution,
    "conv_transpose": transposed_convolution,
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "l2_pool": l2_pool,
}
