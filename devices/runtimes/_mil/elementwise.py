"""MIL operators that work element by element, and reductions with their normalisations."""

from typing import Any

import numpy as np
import torch

from edgeseq.devices.runtimes._mil.operator import Array, Operator, axes_of

CASTS = {"fp16": np.float32, "fp32": np.float32, "bool": np.bool_} | dict.fromkeys(
    ("int32", "int16", "uint16", "int8", "uint8"), np.int32
)


def erf(x: Array) -> Array:
    """Numpy has none; torch's is vectorized."""
    return torch.special.erf(torch.from_numpy(np.ascontiguousarray(x))).numpy()


def sigmoid(x: Array) -> Array:
    """The form that cannot overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def gelu(x: Array, mode: Any = "EXACT") -> Array:
    """Hendrycks and Gimpel 2016; the approximations are theirs."""
    if str(mode) == "TANH_APPROXIMATION":
        return 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x**3)))
    if str(mode) == "SIGMOID_APPROXIMATION":
        return x * sigmoid(1.702 * x)
    return 0.5 * x * (1 + erf(x * np.float32(0.7071067811865476)))


def softmax(x: Array, axis: Any = -1) -> Array:
    """A slice of -inf alone gives NaN, as it does in torch."""
    shifted = np.exp(x - x.max(axis=int(axis), keepdims=True))
    return shifted / shifted.sum(axis=int(axis), keepdims=True)


def layer_norm(
    x: Array, axes: Any = None, gamma: Array | None = None, beta: Array | None = None, epsilon: Any = 1e-5
) -> Array:
    """Ba et al. 2016."""
    over = axes_of(x, axes)
    centred = x - x.mean(axis=over, keepdims=True)
    result = centred / np.sqrt((centred * centred).mean(axis=over, keepdims=True) + np.float32(epsilon))
    result = result if gamma is None else result * gamma
    return result if beta is None else result + beta


def log_sum_exp(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    """Stable for large values."""
    peak = x.max(axis=axis, keepdims=True)
    total = np.log(np.exp(x - peak).sum(axis=axis, keepdims=True)) + peak
    return total if keepdims else total.squeeze(axis)


def _cast(x: Array, dtype: Any) -> Array:
    return x.astype(CASTS[str(dtype)])


def _select(cond: Array, a: Array, b: Array) -> Array:
    return np.where(cond, a, b)


def _clip(x: Array, alpha: Any, beta: Any) -> Array:
    return np.clip(x, alpha, beta)


def _cumsum(x: Array, axis: Any = 0, exclusive: Any = False, reverse: Any = False) -> Array:
    ordered = np.flip(x, int(axis)) if reverse else x
    total = ordered.cumsum(int(axis), dtype=x.dtype)
    total = total - ordered if exclusive else total
    return np.flip(total, int(axis)) if reverse else total


def prelu(x: Array, alpha: Array) -> Array:
    """He et al. 2015, one slope a channel (B, C, *space)."""
    return np.where(x >= 0, x, x * alpha.reshape(-1, *[1] * (x.ndim - 2)))


def softplus_parametric(x: Array, alpha: Array, beta: Array) -> Array:
    """Alpha · log(1 + exp(beta · x)), each a vector over the channels (B, C, *space)."""
    of_channels = (-1, *[1] * (x.ndim - 2))
    return alpha.reshape(of_channels) * np.logaddexp(x * beta.reshape(of_channels), np.float32(0))


def quantize(input: Array, scale: Array, output_dtype: Any, zero_point: Array | None = None, axis: Any = None) -> Array:
    """Round(x / scale) + zero point, within the type."""
    factor, offset = _of_axis(input, scale, axis), _of_axis(input, zero_point, axis)
    limits = np.iinfo(np.dtype(str(output_dtype)))
    rounded = np.rint(input / factor) + (0 if offset is None else offset)
    return np.clip(rounded, limits.min, limits.max).astype(limits.dtype)


def dequantize(input: Array, scale: Array, zero_point: Array | None = None, axis: Any = None) -> Array:
    """Scale · (x - zero point)."""
    factor, offset = _of_axis(input, scale, axis), _of_axis(input, zero_point, axis)
    return factor * (input.astype(np.float32) - (0 if offset is None else offset))


def _of_axis(x: Array, values: Array | None, axis: Any) -> Array | None:
    """A vector along an axis, or one number for all."""
    if values is None:
        return None
    held = np.asarray(values, np.float32)
    return held.reshape([-1 if i == int(axis) % x.ndim else 1 for i in range(x.ndim)]) if held.ndim else held


def _unary(function: Any) -> Operator:
    return lambda x: function(x)


def _binary(function: Any) -> Operator:
    return lambda x, y: function(x, y)


def _reduction(function: Any) -> Operator:
    return lambda x, axes=None, keep_dims=False: function(x, axis=axes_of(x, axes), keepdims=bool(keep_dims))


def _arg(function: Any) -> Operator:
    def operator(x: Array, axis: Any = -1, keep_dims: Any = False, output_dtype: Any = None) -> Array:
        del output_dtype
        return function(x, axis=int(axis), keepdims=bool(keep_dims)).astype(np.int32)

    return operator


def _with_alpha(function: Any) -> Operator:
    return lambda x, alpha=1.0: function(x, np.float32(alpha))


def _with_alpha_and_beta(function: Any) -> Operator:
    return lambda x, alpha, beta: function(x, np.float32(alpha), np.float32(beta))


def _with_epsilon(function: Any, default: float) -> Operator:
    return lambda x, epsilon=default: function(x + np.float32(epsilon))


BINARY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "real_div": np.true_divide, "floor_div": np.floor_divide,
    "mod": np.mod, "pow": np.power, "maximum": np.maximum, "minimum": np.minimum, "equal": np.equal,
    "not_equal": np.not_equal, "less": np.less, "less_equal": np.less_equal, "greater": np.greater,
    "greater_equal": np.greater_equal, "logical_and": np.logical_and, "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}  # fmt: skip
UNARY = {
    "abs": np.abs, "ceil": np.ceil, "floor": np.floor, "round": np.round, "sign": np.sign, "exp": np.exp,
    "exp2": np.exp2, "sqrt": np.sqrt, "square": np.square, "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "tanh": np.tanh, "erf": erf, "sigmoid": sigmoid, "logical_not": np.logical_not, "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6), "silu": lambda x: x * sigmoid(x), "softplus": lambda x: np.logaddexp(x, 0),
    "acos": np.arccos, "asin": np.arcsin, "atan": np.arctan, "atanh": np.arctanh, "cosh": np.cosh, "sinh": np.sinh,
    "softsign": lambda x: x / (1 + np.abs(x)),
}  # fmt: skip
REDUCTIONS = {
    "reduce_sum": np.sum, "reduce_mean": np.mean, "reduce_max": np.max, "reduce_min": np.min, "reduce_prod": np.prod,
    "reduce_log_sum_exp": log_sum_exp,
    "reduce_log_sum": lambda x, **over: np.log(x.sum(**over)),
    "reduce_l1_norm": lambda x, **over: np.abs(x).sum(**over),
    "reduce_l2_norm": lambda x, **over: np.sqrt(np.square(x).sum(**over)),
    "reduce_sum_square": lambda x, **over: np.square(x).sum(**over),
}  # fmt: skip

OPERATORS: dict[str, Operator] = {
    **{name: _binary(function) for name, function in BINARY.items()},
    **{name: _unary(function) for name, function in UNARY.items()},
    **{name: _reduction(function) for name, function in REDUCTIONS.items()},
    "log": _with_epsilon(np.log, 1e-45),
    "rsqrt": _with_epsilon(lambda x: 1 / np.sqrt(x), 1e-12),
    "inverse": _with_epsilon(lambda x: 1 / x, 1e-4),
    "leaky_relu": _with_alpha(lambda x, alpha: np.where(x >= 0, x, alpha * x)),
    "elu": _with_alpha(lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))),
    "threshold": _with_alpha(lambda x, alpha: np.maximum(x, alpha)),
    "thresholded_relu": _with_alpha(lambda x, alpha: np.where(x >= alpha, x, np.float32(0))),
    "clamped_relu": _with_alpha_and_beta(lambda x, alpha, beta: np.minimum(np.where(x >= 0, x, alpha * x), beta)),
    "linear_activation": _with_alpha_and_beta(lambda x, alpha, beta: alpha * x + beta),
    "scaled_tanh": _with_alpha_and_beta(lambda x, alpha, beta: alpha * np.tanh(beta * x)),
    "sigmoid_hard": _with_alpha_and_beta(lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1)),
    "prelu": prelu,
    "softplus_parametric": softplus_parametric,
    "quantize": quantize,
    "dequantize": dequantize,
    "reduce_argmax": _arg(np.argmax),
    "reduce_argmin": _arg(np.argmin),
    "cast": _cast,
    "select": _select,
    "clip": _clip,
    "cumsum": _cumsum,
    "gelu": gelu,
    "softmax": softmax,
    "layer_norm": layer_norm,
}
