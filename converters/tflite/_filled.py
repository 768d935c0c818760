"""Tensors that no input fills: the integers of a range, and one number throughout, of sizes that may be dynamic."""

import numpy as np
import sympy

from edgeseq.converters.tflite._emit import binary, cast, reshape, shape_vector, size_value, slice_axis, unary
from edgeseq.converters.tflite._graph import BOOL, INT32, Graph, Shape, Size, Value, constant, options


def steps(graph: Graph, count: Size, start: int = 0, step: int = 1) -> Value:
    """The integers start, start + step, … of a dynamic count."""
    if isinstance(count, int):
        return constant(np.arange(start, start + count * step, step, dtype=np.int32))
    if count in graph.symbols:
        positions = _positions(graph, count)
        if step != 1:
            positions = binary(graph, "MUL", positions, constant(step, INT32))
        return positions if start == 0 else binary(graph, "ADD", positions, constant(start, INT32))
    limit = size_value(graph, start + count * step)
    inputs = [constant(start, INT32), limit, constant(step, INT32)]
    return graph.op("RANGE", inputs, (count,), INT32, options("RangeOptions"))


def _positions(graph: Graph, count: sympy.Expr) -> Value:
    """0, 1, … of an input's dynamic dimension, as running totals of ones.

    The shape of a RANGE is known only when it has run, and every later operator is then prepared anew at each call.
    """
    source, axis = graph.symbols[count]
    for other in range(source.rank):
        if other != axis:
            source = slice_axis(graph, source, other, 0, 1)
    line = reshape(graph, source, (count,))
    if line.dtype == BOOL:  # TFLite has no ZEROS_LIKE of booleans
        line = cast(graph, line, INT32)
    zeros = unary(graph, "ZEROS_LIKE", line, options("ZerosLikeOptions"))
    ones = binary(graph, "ADD", cast(graph, zeros, INT32), constant(1, INT32))
    settings = options("CumsumOptions", exclusive=True)
    return graph.op("CUMSUM", [ones, constant(0, INT32)], (count,), options=settings)


def fill(graph: Graph, shape: Shape, value: Value) -> Value:
    """A tensor of one number."""
    if value.data is not None and all(isinstance(size, int) for size in shape):
        return constant(np.full([int(size) for size in shape], value.data))
    return fill_at_run_time(graph, shape, value)


def fill_at_run_time(graph: Graph, shape: Shape, value: Value) -> Value:
    """A tensor of one number that takes no room in the file."""
    return graph.op("FILL", [shape_vector(graph, shape), value], shape, value.dtype, options("FillOptions"))
