"""MIL's `constexpr_*`: weights that are stored compressed, expanded once when the program is loaded."""

from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Operation

from edgeseq.devices.runtimes._mil.operator import Array, Operator


def affine_dequantize(quantized_data: Array, zero_point: Array, scale: Array, axis: Any) -> Array:
    """Scale · (data - zero point), per slice of `axis` where scale and zero point are vectors."""
    sizes = [-1 if i == int(axis) % quantized_data.ndim else 1 for i in range(quantized_data.ndim)]
    offset, factor = (np.asarray(value, np.float32).reshape(sizes) for value in (zero_point, scale))
    return factor * (quantized_data.astype(np.float32) - offset)


def blockwise_shift_scale(data: Array, scale: Array, offset: Array | None = None) -> Array:
    """Scale · (data - offset); each element of scale and offset serves a block of equal size along every axis."""

    def spread(values: Array) -> Array:
        for axis, (size, blocks) in enumerate(zip(data.shape, values.shape, strict=True)):
            values = np.repeat(values, size // blocks, axis)
        return values.astype(np.float32)

    shifted = data.astype(np.float32)
    return spread(scale) * (shifted if offset is None else shifted - spread(offset))


def expand(operation: Operation) -> tuple[Array, ...]:
    """The outputs of a `constexpr_*` operation; the rare kinds are expanded by coremltools."""
    ours: dict[str, Operator] = {
        "constexpr_affine_dequantize": affine_dequantize,
        "constexpr_blockwise_shift_scale": blockwise_shift_scale,
    }
    function = ours.get(operation.op_type)
    if function is not None:
        return (function(**{name: value.val for name, value in operation.inputs.items() if value is not None}),)
    result = operation.materialized_val_inference()
    return result if isinstance(result, tuple) else (result,)
