"""Arithmetic, comparisons, activations and casts."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from edgeseq.converters.tflite import _emit
from edgeseq.converters.tflite._emit import binary, scalar, size_value, unary
from edgeseq.converters.tflite._graph import BOOL, FLOAT32, INT32, Graph, Size, Value, constant, options
from edgeseq.converters.tflite._site import Site
from edgeseq.errors import UnsupportedError

Operand: TypeAlias = Value | Size | float  # what stands for a tensor argument may also be a number or a size
Lowering = Callable[..., Any]


def operands(graph: Graph, x: Operand, y: Operand) -> tuple[Value, Value]:
    """Both sides as values of one dtype, by torch's promotion: bool < int < float, numbers yield to tensors."""
    dtypes = [operand.dtype for operand in (x, y) if isinstance(operand, Value)]
    if any(isinstance(operand, float) for operand in (x, y)):
        dtypes.append(FLOAT32)
    if any(isinstance(operand, int) and not isinstance(operand, bool) for operand in (x, y)):
        dtypes.append(INT32)
    dtype = next(kind for kind in (FLOAT32, INT32, BOOL) if kind in dtypes)
    return _operand(graph, x, dtype), _operand(graph, y, dtype)


def _operand(graph: Graph, x: Operand, dtype: np.dtype[Any]) -> Value:
    if isinstance(x, Value):
        return constant(x.data, dtype, name=x.name) if x.data is not None else _emit.cast(graph, x, dtype)
    if isinstance(x, bool | int | float):
        return constant(x, dtype)
    return _emit.cast(graph, size_value(graph, x), dtype)


def pointwise(code: str) -> Lowering:
    """A lowering of a unary operator of TFLite's own."""
    return lambda site, x: unary(site.graph, code, _emit.as_float(site.graph, x))


def keeping(code: str) -> Lowering:
    """A lowering of a unary operator that integers have too."""
    return lambda site, x: unary(site.graph, code, x)


def arithmetic(code: str) -> Lowering:
    """A lowering of a broadcasting operator, comparisons included."""
    return lambda site, x, y: binary(site.graph, code, *operands(site.graph, x, y))


def add(site: Site, x: Operand, y: Operand, alpha: float) -> Value:
    """X + alpha·y."""
    return _scaled("ADD", site, x, y, alpha)


def subtract(site: Site, x: Operand, y: Operand, alpha: float) -> Value:
    """X - alpha·y."""
    return _scaled("SUB", site, x, y, alpha)


def reverse_subtract(site: Site, x: Operand, y: Operand, alpha: float) -> Value:
    """Y - alpha·x."""
    return _scaled("SUB", site, y, x, alpha)


def _scaled(code: str, site: Site, x: Operand, y: Operand, alpha: float) -> Value:
    left, right = operands(site.graph, x, y)
    if alpha != 1:
        right = binary(site.graph, "MUL", right, scalar(alpha, right))
    if left.dtype == BOOL:  # bool + bool is a disjunction in torch
        return binary(site.graph, "LOGICAL_OR", left, right)
    return binary(site.graph, code, left, right)


def multiply(site: Site, x: Operand, y: Operand) -> Value:
    """The product; of booleans, their conjunction."""
    left, right = operands(site.graph, x, y)
    return binary(site.graph, "LOGICAL_AND" if left.dtype == BOOL else "MUL", left, right)


def divide(site: Site, x: Operand, y: Operand, rounding_mode: str | None = None) -> Value:
    """True division, or rounded down or towards zero."""
    left, right = operands(site.graph, x, y)
    if rounding_mode == "floor":
        return binary(site.graph, "FLOOR_DIV", left, right)
    if rounding_mode == "trunc" and left.dtype == INT32:
        return binary(site.graph, "DIV", left, right)
    left, right = _emit.as_float(site.graph, left), _emit.as_float(site.graph, right)
    if right.data is not None:
        return binary(site.graph, "MUL", left, constant(1 / right.data.astype(np.float64)))
    quotient = binary(site.graph, "DIV", left, right)
    if rounding_mode == "trunc":
        sign = unary(site.graph, "SIGN", quotient)
        return binary(site.graph, "MUL", sign, unary(site.graph, "FLOOR", unary(site.graph, "ABS", quotient)))
    return quotient


def logical(code: str) -> Lowering:
    """A lowering of a connective: operands become booleans first."""

    def lowering(site: Site, x: Value, y: Value) -> Value:
        return binary(site.graph, code, truth(site.graph, x), truth(site.graph, y))

    return lowering


def bitwise(code: str) -> Lowering:
    """A lowering of a bitwise operator, for booleans only."""

    def lowering(site: Site, x: Operand, y: Operand) -> Value:
        left, right = operands(site.graph, x, y)
        if left.dtype != BOOL:
            raise UnsupportedError(f"converter 'tflite' lowers bitwise operators of booleans only, not of {left.dtype}")
        return binary(site.graph, code, left, right)

    return lowering


def truth(graph: Graph, x: Value) -> Value:
    """Whether elements are not zero."""
    return x if x.dtype == BOOL else binary(graph, "NOT_EQUAL", x, scalar(0, x))


def logical_not(site: Site, x: Value) -> Value:
    """Negation of truth."""
    return unary(site.graph, "LOGICAL_NOT", truth(site.graph, x))


def where(site: Site, condition: Value, x: Operand, y: Operand) -> Value:
    """X where the condition holds, else y."""
    left, right = operands(site.graph, x, y)
    return site.graph.op("SELECT_V2", [condition, left, right], site.shape, left.dtype, options("SelectV2Options"))


def masked_fill(site: Site, x: Value, mask: Value, number: Operand) -> Value:
    """The number where the mask holds, else x."""
    return where(site, mask, number, x)


def convert(site: Site, x: Value, *_: object) -> Value:
    """A cast, or nothing."""
    if site.dtype == BOOL:
        return truth(site.graph, x)
    return _emit.cast(site.graph, x, site.dtype)


def identity(site: Site, x: Value, *_: object) -> Value:
    """What copies in torch and needs no copy here."""
    del site
    return x


def clamp(site: Site, x: Value, low: Operand | None, high: Operand | None) -> Value:
    """Between bounds, either of which may be missing."""
    for code, bound in (("MAXIMUM", low), ("MINIMUM", high)):
        if bound is not None and not (isinstance(bound, float) and np.isinf(bound)):
            left, right = operands(site.graph, x, bound)
            x = binary(site.graph, code, left, right)
    return x


def clamp_min(site: Site, x: Value, low: Operand) -> Value:
    """At least `low`."""
    return clamp(site, x, low, None)


def clamp_max(site: Site, x: Value, high: Operand) -> Value:
    """At most `high`."""
    return clamp(site, x, None, high)


def power(site: Site, x: Operand, exponent: Operand) -> Value:
    """A power; small constant exponents become products and roots."""
    left, right = operands(site.graph, x, exponent)
    match exponent:
        case 1 | 1.0:
            return left
        case 2 | 2.0:
            return binary(site.graph, "MUL", left, left)
        case 3 | 3.0:
            return binary(site.graph, "MUL", binary(site.graph, "MUL", left, left), left)
        case 0.5:
            return unary(site.graph, "SQRT", left)
        case -0.5:
            return unary(site.graph, "RSQRT", left)
        case -1 | -1.0:
            return binary(site.graph, "DIV", scalar(1, left), left)
    return binary(site.graph, "POW", left, right)


def remainder(site: Site, x: Operand, y: Operand) -> Value:
    """Python's %, with the divisor's sign."""
    return binary(site.graph, "FLOOR_MOD", *operands(site.graph, x, y))


def floor_divide(site: Site, x: Operand, y: Operand) -> Value:
    """Python's //."""
    return divide(site, x, y, "floor")
