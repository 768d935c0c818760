"""Sums, means, extremes, normalization: whatever takes an axis away or looks along it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgeseq.converters.tflite import _emit
from edgeseq.converters.tflite._emit import binary, reshape, scalar, unary
from edgeseq.converters.tflite._graph import FLOAT32, INT32, Graph, Size, Value, constant, options
from edgeseq.converters.tflite._site import Site
from edgeseq.converters.tflite.elementwise import truth


def reduction(code: str) -> Callable[..., Value]:
    """A lowering of a reduction over some axes, or over all where none are named."""

    def lowering(
        site: Site, x: Value, axes: Sequence[int] | int | None = None, keep: bool = False, *_: object
    ) -> Value:
        return reduce_axes(site.graph, code, _emit.cast(site.graph, x, site.dtype), axes, keep=keep)

    return lowering


def reduce_axes(graph: Graph, code: str, x: Value, axes: Sequence[int] | int | None, *, keep: bool) -> Value:
    """X without (or with size 1 at) the reduced axes."""
    listed = [axes] if isinstance(axes, int) else list(axes or range(x.rank))
    gone = sorted(axis % x.rank for axis in listed)
    shape = tuple(1 if i in gone else size for i, size in enumerate(x.shape) if keep or i not in gone)
    return graph.op(code, [x, constant(gone, INT32)], shape, options=options("ReducerOptions", keepDims=keep))


def any_true(site: Site, x: Value, axes: Sequence[int] | int | None = None, keep: bool = False) -> Value:
    """Whether any element is true."""
    return reduce_axes(site.graph, "REDUCE_ANY", truth(site.graph, x), axes, keep=keep)


def all_true(site: Site, x: Value, axes: Sequence[int] | int | None = None, keep: bool = False) -> Value:
    """Whether all elements are true."""
    return reduce_axes(site.graph, "REDUCE_ALL", truth(site.graph, x), axes, keep=keep)


def variance(site: Site, x: Value, axes: Sequence[int] | None, correction: float | None, keep: bool) -> Value:
    """Variance with Bessel's correction, or another."""
    graph = site.graph
    count: Size = 1
    for axis in axes or range(x.rank):
        count = count * x.shape[axis]
    centred = binary(graph, "SUB", x, reduce_axes(graph, "MEAN", x, axes, keep=True))
    total = reduce_axes(graph, "SUM", binary(graph, "MUL", centred, centred), axes, keep=keep)
    degrees = count - int(1 if correction is None else correction)
    return binary(graph, "DIV", total, _emit.as_float(graph, _emit.size_value(graph, degrees)))


def arg_extreme(code: str) -> Callable[..., Value]:
    """A lowering of argmax or argmin."""
    table = "ArgMaxOptions" if code == "ARG_MAX" else "ArgMinOptions"

    def lowering(site: Site, x: Value, axis: int | None, keep: bool) -> Value:
        del keep
        if axis is None:
            count: Size = 1
            for size in x.shape:
                count = count * size
            x, axis = reshape(site.graph, x, (count,)), 0
        axis %= x.rank
        shape = x.shape[:axis] + x.shape[axis + 1 :]
        found = site.graph.op(code, [x, constant(axis, INT32)], shape, INT32, options(table, outputType=2))
        return reshape(site.graph, found, site.shape)

    return lowering


def extreme(reduce_code: str, arg_code: str) -> Callable[..., list[Value]]:
    """A lowering of max or min over one axis: values and positions."""

    def lowering(site: Site, x: Value, axis: int, keep: bool) -> list[Value]:
        values = reduce_axes(site.graph, reduce_code, x, axis, keep=keep)
        positions = arg_extreme(arg_code)(site, x, axis, keep) if site.is_used[1] else values
        return [values, positions]

    return lowering


def cumulative_sum(site: Site, x: Value, axis: int, dtype: object) -> Value:
    """Running totals along an axis."""
    del dtype
    x = _emit.cast(site.graph, x, site.dtype)
    return site.graph.op("CUMSUM", [x, constant(axis % x.rank, INT32)], x.shape, options=options("CumsumOptions"))


def layer_norm(
    site: Site, x: Value, shape: Sequence[int], weight: Value | None, bias: Value | None, epsilon: float, *_: object
) -> Value:
    """Ba et al. 2016, over the last axes."""
    graph = site.graph
    axes = list(range(x.rank - len(shape), x.rank))
    mean = reduce_axes(graph, "MEAN", x, axes, keep=True)
    centred = binary(graph, "SUB", x, mean)
    spread = reduce_axes(graph, "MEAN", binary(graph, "MUL", centred, centred), axes, keep=True)
    scale = unary(graph, "RSQRT", binary(graph, "ADD", spread, scalar(epsilon, x)))
    y = binary(graph, "MUL", centred, scale)
    y = y if weight is None else binary(graph, "MUL", y, weight)
    return y if bias is None else binary(graph, "ADD", y, bias)


def batch_norm(
    site: Site, x: Value, weight: Any, bias: Any, mean: Value, spread: Value, momentum: float, epsilon: float
) -> list[Value]:
    """Ioffe and Szegedy 2015 with stored statistics: one product and one sum per channel (the second axis)."""
    del momentum
    assert mean.data is not None and spread.data is not None
    factor = (1.0 if weight is None else weight.data) / np.sqrt(spread.data + epsilon)
    offset = (0.0 if bias is None else bias.data) - mean.data * factor
    shape = (-1, *(1,) * (x.rank - 2))
    scaled = binary(site.graph, "MUL", x, constant(factor.reshape(shape), FLOAT32))
    return [binary(site.graph, "ADD", scaled, constant(offset.reshape(shape), FLOAT32))]
