"""MIL operators that choose elements by their values, or change chosen elements of an array."""

from typing import Any

import numpy as np

from edgeseq.devices.runtimes._mil.operator import Array, Operator, ints
from edgeseq.devices.runtimes._mil.shape import slices

MODES: dict[str, Any] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "max": np.maximum, "min": np.minimum,
}  # fmt: skip


def scatter(
    data: Array, indices: Array, updates: Array, axis: Any = 0, mode: Any = "add", validate_indices: Any = False
) -> Array:
    """The data with slices along an axis changed; an index that comes twice is applied twice."""
    del validate_indices
    moved = np.moveaxis(data, int(axis), 0).copy()
    # The indices may have any rank in place of the axis.
    ahead = np.moveaxis(updates, range(int(axis), int(axis) + indices.ndim), range(indices.ndim))
    _apply(moved, (indices,), ahead, mode)
    return np.moveaxis(moved, 0, int(axis))


def scatter_along_axis(
    data: Array, indices: Array, updates: Array, axis: Any = 0, mode: Any = "add", validate_indices: Any = False
) -> Array:
    """The opposite of `gather_along_axis`."""
    del validate_indices
    places = list(np.indices(indices.shape))
    places[int(axis)] = indices
    result = data.copy()
    _apply(result, tuple(places), updates, mode)
    return result


def scatter_nd(data: Array, indices: Array, updates: Array, mode: Any = "add", validate_indices: Any = False) -> Array:
    """Indices (…, K) address the first K axes."""
    del validate_indices
    result = data.copy()
    _apply(result, tuple(np.moveaxis(indices, -1, 0)), updates, mode)
    return result


def _apply(target: Array, places: tuple[Array, ...], updates: Array, mode: Any) -> None:
    if str(mode) == "update":
        target[places] = updates
    else:
        ufunc = MODES[str(mode)]
        ufunc.at(target, places, updates)


def slice_update(
    x: Array,
    update: Array,
    begin: Array,
    end: Array,
    stride: Array | None = None,
    begin_mask: Array | None = None,
    end_mask: Array | None = None,
    squeeze_mask: Array | None = None,
) -> Array:
    """The array with what `slice_by_index` would take replaced."""
    result = x.copy()
    result[slices(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)] = update
    return result


def argsort(x: Array, axis: Any = -1, ascending: Any = False) -> Array:
    """Equal values stay in their order."""
    return _order(x, int(axis), ascending).astype(np.int32)


def topk(
    x: Array,
    k: Any = 1,
    axis: Any = -1,
    ascending: Any = False,
    sort: Any = True,
    return_indices: Any = True,
    output_indices_dtype: Any = None,
) -> Any:
    """The k largest (smallest) values in order, and where they are."""
    del sort, output_indices_dtype  # unsorted results may be in any order, this one too
    count = x.shape[int(axis)] if int(k) == -1 else int(k)
    places = np.take(_order(x, int(axis), ascending), range(count), int(axis))
    values = np.take_along_axis(x, places, int(axis))
    return (values, places.astype(np.int32)) if return_indices else values


def _order(x: Array, axis: int, ascending: Any) -> Array:
    keys = x if ascending else -(x.astype(np.float64) if x.dtype.kind == "f" else x.astype(np.int64))
    return np.argsort(keys, axis=axis, kind="stable")


def sliding_windows(x: Array, axis: Any, size: Any, stride: Any = 1) -> Array:
    """Windows along an axis -> (…, windows, size, …)."""
    along = int(axis) % x.ndim
    views = np.lib.stride_tricks.sliding_window_view(x, int(size), along)
    return np.moveaxis(np.take(views, range(0, views.shape[along], int(stride)), along), -1, along + 1)


def _non_zero(x: Array) -> Array:
    return np.argwhere(x).astype(np.int32)


def _reshape_like(x: Array, ref_tensors: Any, begins: Any, ends: Any, end_masks: Any) -> Array:
    sizes: list[int] = []
    for tensor, begin, end, is_open in zip(ref_tensors, begins, ends, end_masks, strict=True):
        sizes += ints(tensor.shape[int(begin) : None if is_open else int(end)])
    return x.reshape(sizes)


OPERATORS: dict[str, Operator] = {
    "scatter": scatter,
    "scatter_along_axis": scatter_along_axis,
    "scatter_nd": scatter_nd,
    "slice_update": slice_update,
    "argsort": argsort,
    "topk": topk,
    "sliding_windows": sliding_windows,
    "non_zero": _non_zero,
    "reshape_like": _reshape_like,
}
