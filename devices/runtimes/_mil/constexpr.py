"""MIL's `constexpr_*`: weights that are stored compressed, expanded once when the program is loaded.

Some sparse forms have two results: where values are, and the values there.
"""

import math
from typing import Any

import numpy as np

from edgeseq.devices.runtimes._mil.operator import Array, Operator, ints


def affine_dequantize(quantized_data: Array, zero_point: Array, scale: Array, axis: Any) -> Array:
    """Scale · (data - zero point), per slice of `axis` where scale and zero point are vectors."""
    sizes = [-1 if i == int(axis) % quantized_data.ndim else 1 for i in range(quantized_data.ndim)]
    offset, factor = (np.asarray(value, np.float32).reshape(sizes) for value in (zero_point, scale))
    return factor * (quantized_data.astype(np.float32) - offset)


def blockwise_shift_scale(data: Array, scale: Array, offset: Array | None = None) -> Array:
    """Scale · (data - offset); each element of scale and offset serves a block of equal size along every axis."""
    shifted = data.astype(np.float32)
    shifted = shifted if offset is None else shifted - _spread(offset, data.shape).astype(np.float32)
    return _spread(scale, data.shape).astype(np.float32) * shifted


def lut_to_dense(indices: Array, lut: Array, shape: Array | None = None, vector_axis: Any = None) -> Array:
    """Each index replaced by what the lookup table has for it.

    With `shape` (iOS 16) the indices are packed bits, and the table is one vector. Without it the table is
    (blocks along each axis, N, V): each block has N entries of V values, which follow each other along `vector_axis`.
    """
    if shape is not None:
        sizes = ints(shape)
        return lut[unpacked(indices, math.prod(sizes), (len(lut) - 1).bit_length())].reshape(sizes)
    blocks = np.indices(indices.shape).reshape(indices.ndim, -1)  # (K, elements): the coordinates of each index
    repeats = [size // count for size, count in zip(indices.shape, lut.shape[:-2], strict=True)]
    places = tuple(at // repeat for at, repeat in zip(blocks, repeats, strict=True))
    vectors = lut[(*places, indices.reshape(-1).astype(np.int64))].reshape(*indices.shape, lut.shape[-1])
    return _joined(vectors, vector_axis)


def sparse_to_dense(nonzero_data: Array, mask: Array, shape: Array | None = None) -> Array:
    """Zeros but where the mask says; with `shape` (iOS 16) the mask is packed bits."""
    if shape is not None:
        sizes = ints(shape)
        mask = unpacked(mask, math.prod(sizes), 1).reshape(sizes)
    return _placed(nonzero_data, mask)


def lut_to_sparse(
    indices_mask: Array, indices_nonzero_data: Array, lut: Array, vector_axis: Any = None
) -> tuple[Array, Array]:
    """The lookup of those indices that there are -> the mask of the values, and the values in order."""
    dense = lut_to_dense(_placed(indices_nonzero_data, indices_mask), lut, vector_axis=vector_axis)
    mask = _joined(np.repeat(indices_mask[..., None], lut.shape[-1], -1), vector_axis)
    return mask, dense[mask.astype(bool)]


def sparse_blockwise_shift_scale(
    data_mask: Array, nonzero_data: Array, scale: Array, offset: Array | None = None
) -> tuple[Array, Array]:
    """As `blockwise_shift_scale`, of those values that there are -> their mask, and the values in order."""
    dense = blockwise_shift_scale(_placed(nonzero_data, data_mask), scale, offset)
    return data_mask, dense[data_mask.astype(bool)]


def unpacked(data: Array, count: int, bits: int) -> Array:
    """The first `count` numbers of that many bits each, the lowest bit first."""
    each = np.unpackbits(data.astype(np.uint8), count=count * bits, bitorder="little").reshape(count, bits)
    return each.astype(np.int64) @ (1 << np.arange(bits))


def _cast(source_val: Array, output_dtype: Any) -> Array:
    return source_val.astype({"fp16": np.float16, "fp32": np.float32}[str(output_dtype)])


def _placed(values: Array, mask: Array) -> Array:
    result = np.zeros(mask.shape, values.dtype)
    result[mask.astype(bool)] = values
    return result


def _spread(values: Array, shape: tuple[int, ...]) -> Array:
    """Each element repeated over the block that it serves."""
    for axis, (size, blocks) in enumerate(zip(shape, values.shape, strict=True)):
        values = np.repeat(values, size // blocks, axis)
    return values


def _joined(vectors: Array, axis: Any) -> Array:
    """From (…, V) the V values one after another along an axis; V = 1 needs none."""
    if vectors.shape[-1] == 1:
        return vectors[..., 0]
    along = int(axis) % (vectors.ndim - 1)
    shape = list(vectors.shape[:-1])
    shape[along] *= vectors.shape[-1]
    return np.moveaxis(vectors, -1, along + 1).reshape(shape)


OPERATORS: dict[str, Operator] = {
    "constexpr_affine_dequantize": affine_dequantize,
    "constexpr_blockwise_shift_scale": blockwise_shift_scale,
    "constexpr_cast": _cast,
    "constexpr_lut_to_dense": lut_to_dense,
    "constexpr_lut_to_sparse": lut_to_sparse,
    "constexpr_sparse_blockwise_shift_scale": sparse_blockwise_shift_scale,
    "constexpr_sparse_to_dense": sparse_to_dense,
}
