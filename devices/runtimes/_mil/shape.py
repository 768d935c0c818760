"""MIL operators that move values about, or make them, and compute none: their results need no rounding."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeseq.devices.runtimes._mil.operator import Array, Operator, ints


def reshape(x: Array, shape: Array) -> Array:
    """A size of 0 is the input's own at that axis; one of -1 is what is left."""
    sizes = [x.shape[axis] if size == 0 and len(shape) == x.ndim else int(size) for axis, size in enumerate(shape)]
    return x.reshape(sizes)


def slice_by_index(x: Array, begin: Array, end: Array, **options: Array | None) -> Array:
    """The part of an array that `slices` says."""
    return x[slices(x, begin, end, **options)]


def slices(
    x: Array,
    begin: Array,
    end: Array,
    stride: Array | None = None,
    begin_mask: Array | None = None,
    end_mask: Array | None = None,
    squeeze_mask: Array | None = None,
) -> tuple[int | slice, ...]:
    """A masked begin or end is the axis's own; a squeezed axis gives its element at `begin`."""
    none = np.zeros(x.ndim, bool)
    strides = np.ones(x.ndim, int) if stride is None else stride
    no_begin, no_end, squeeze = (none if mask is None else mask for mask in (begin_mask, end_mask, squeeze_mask))
    index: list[int | slice] = []
    for axis in range(x.ndim):
        if squeeze[axis]:
            index.append(0 if no_begin[axis] else int(begin[axis]))
        else:
            first = None if no_begin[axis] else int(begin[axis])
            last = None if no_end[axis] else int(end[axis])
            index.append(slice(first, last, int(strides[axis])))
    return tuple(index)


def slice_by_size(x: Array, begin: Array, size: Array) -> Array:
    """A size of -1 reaches to the end."""
    starts = [int(first) % max(x.shape[axis], 1) if first < 0 else int(first) for axis, first in enumerate(begin)]
    return x[tuple(slice(b, None if s == -1 else b + int(s)) for b, s in zip(starts, size, strict=True))]


def gather(x: Array, indices: Array, axis: Any = 0, batch_dims: Any = 0, validate_indices: Any = False) -> Array:
    """x[:axis] + indices[batch_dims:] + x[axis + 1:], as tf.gather; numpy refuses an index outside."""
    del validate_indices
    if int(batch_dims) == 0:
        return np.take(x, indices, axis=int(axis))
    inner = [gather(row, index, int(axis) - 1, int(batch_dims) - 1) for row, index in zip(x, indices, strict=True)]
    return np.stack(inner)


def gather_along_axis(x: Array, indices: Array, axis: Any = 0, validate_indices: Any = False) -> Array:
    """As numpy.take_along_axis."""
    del validate_indices
    return np.take_along_axis(x, indices, axis=int(axis))


def gather_nd(x: Array, indices: Array, batch_dims: Any = 0, validate_indices: Any = False) -> Array:
    """Indices (…, K) address the first K axes after the batch's."""
    del validate_indices
    if int(batch_dims):
        rows = zip(x, indices, strict=True)
        return np.stack([gather_nd(row, index, int(batch_dims) - 1) for row, index in rows])
    return x[tuple(np.moveaxis(indices, -1, 0))]


def reverse_sequence(x: Array, lengths: Array, seq_axis: Any, batch_axis: Any = 0) -> Array:
    """Each row's first `length` steps in reverse order; the rest stays."""
    steps = np.arange(x.shape[int(seq_axis)])
    lengths = np.asarray(lengths)[:, None]
    order = np.where(steps < lengths, lengths - 1 - steps, steps)  # (B, T)
    rows = np.moveaxis(x, (int(batch_axis), int(seq_axis)), (0, 1))  # (B, T, …)
    reversed_rows = rows[np.arange(len(rows))[:, None], order]
    return np.moveaxis(reversed_rows, (0, 1), (int(batch_axis), int(seq_axis)))


def split(x: Array, axis: Any, num_splits: Any = None, split_sizes: Array | None = None) -> tuple[Array, ...]:
    """Equal parts, or parts of the given sizes."""
    parts: Any = int(num_splits) if split_sizes is None else np.cumsum(split_sizes)[:-1]
    return tuple(np.split(x, parts, axis=int(axis)))


def concat(values: Sequence[Array], axis: Any, interleave: Any = False) -> Array:
    """Interleaving is for images and not done here."""
    if interleave:
        raise NotImplementedError("concat with interleave")
    return np.concatenate([np.atleast_1d(value) for value in values], axis=int(axis))


def pad(x: Array, pad: Array, mode: Any = "constant", constant_val: Any = 0.0) -> Array:
    """Padding of the last axes, as pairs."""
    pairs = np.asarray(pad).reshape(-1, 2).astype(int).tolist()
    widths = [[0, 0]] * (x.ndim - len(pairs)) + pairs
    if str(mode) == "constant":
        return np.pad(x, widths, constant_values=x.dtype.type(constant_val))
    return np.pad(x, widths, mode={"reflect": "reflect", "replicate": "edge"}[str(mode)])  # type: ignore[call-overload]  # numpy's modes


def band_part(x: Array, lower: Any = -1, upper: Any = -1) -> Array:
    """Zero outside a band around the diagonal; -1: no bound."""
    rows, columns = np.indices(x.shape[-2:])
    below = np.bool_(True) if lower < 0 else rows - columns <= lower
    above = np.bool_(True) if upper < 0 else columns - rows <= upper
    return np.where(below & above, x, x.dtype.type(0))


def one_hot(indices: Array, one_hot_vector_size: Any, axis: Any = -1, on_value: Any = 1, off_value: Any = 0) -> Array:
    """A new axis that holds `on_value` at the index."""
    hot = np.arange(int(one_hot_vector_size)) == indices[..., None]
    return np.moveaxis(np.where(hot, on_value, off_value), -1, int(axis))


def _fill(shape: Array, value: Any = 0.0) -> Array:
    return np.full(ints(shape), value)


def _fill_like(ref_tensor: Array, value: Any = 0.0) -> Array:
    return np.full(ref_tensor.shape, value)


def _range(start: Any, end: Any, step: Any) -> Array:
    return np.arange(start, end, step, dtype=np.result_type(start))


def _squeeze(x: Array, axes: Array | None = None) -> Array:
    return x.squeeze(None if axes is None else tuple(ints(axes)))


def _shape(x: Array) -> Array:
    return np.array(x.shape, np.int32)


def _expand_dims(x: Array, axes: Array) -> Array:
    return np.expand_dims(x, tuple(ints(axes)))


def _transpose(x: Array, perm: Array) -> Array:
    return x.transpose(ints(perm))


def _tile(x: Array, reps: Array) -> Array:
    return np.tile(x, ints(reps))


def _stack(values: Sequence[Array], axis: Any) -> Array:
    return np.stack(list(values), axis=int(axis))


def _reverse(x: Array, axes: Array | None = None) -> Array:
    return np.flip(x, None if axes is None else tuple(ints(axes)))


def _flatten2d(x: Array, axis: Any = 1) -> Array:
    return x.reshape(int(np.prod(x.shape[: int(axis)])), -1)


def _depth_to_space(x: Array, block_size: Any) -> Array:
    batch, channels, height, width = x.shape
    r = int(block_size)
    parts = x.reshape(batch, r, r, channels // r**2, height, width).transpose(0, 3, 4, 1, 5, 2)
    return parts.reshape(batch, channels // r**2, height * r, width * r)


def _space_to_depth(x: Array, block_size: Any) -> Array:
    batch, channels, height, width = x.shape
    r = int(block_size)
    parts = x.reshape(batch, channels, height // r, r, width // r, r).transpose(0, 3, 5, 1, 2, 4)
    return parts.reshape(batch, channels * r**2, height // r, width // r)


def _crop(x: Array, crop_height: Array, crop_width: Array) -> Array:
    (top, bottom), (left, right) = ints(crop_height), ints(crop_width)
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def _identity(x: Array) -> Array:
    return x


OPERATORS: dict[str, Operator] = {
    "identity": _identity,
    "reshape": reshape,
    "transpose": _transpose,
    "expand_dims": _expand_dims,
    "squeeze": _squeeze,
    "concat": concat,
    "stack": _stack,
    "split": split,
    "tile": _tile,
    "reverse": _reverse,
    "reverse_sequence": reverse_sequence,
    "slice_by_index": slice_by_index,
    "slice_by_size": slice_by_size,
    "gather": gather,
    "gather_along_axis": gather_along_axis,
    "gather_nd": gather_nd,
    "pad": pad,
    "one_hot": one_hot,
    "band_part": band_part,
    "flatten2d": _flatten2d,
    "depth_to_space": _depth_to_space,
    "space_to_depth": _space_to_depth,
    "crop": _crop,
    "shape": _shape,
    "range_1d": _range,
    "fill": _fill,
    "fill_like": _fill_like,
}
