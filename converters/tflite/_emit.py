"""The operators that many lowerings need, with their result shapes: arithmetic, moves, sizes at run time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import sympy
from torch.utils._sympy import functions as torch_sympy

from edgeseq.converters.tflite._graph import (
    FLOAT32,
    INT32,
    Graph,
    Operator,
    Options,
    Shape,
    Size,
    Value,
    constant,
    options,
)
from edgeseq.errors import UnsupportedError

_BINARY_OPTIONS = {
    "ADD": "AddOptions",
    "SUB": "SubOptions",
    "MUL": "MulOptions",
    "DIV": "DivOptions",
    "POW": "PowOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "SQUARED_DIFFERENCE": "SquaredDifferenceOptions",
    "FLOOR_DIV": "FloorDivOptions",
    "FLOOR_MOD": "FloorModOptions",
    "LESS": "LessOptions",
    "LESS_EQUAL": "LessEqualOptions",
    "GREATER": "GreaterOptions",
    "GREATER_EQUAL": "GreaterEqualOptions",
    "EQUAL": "EqualOptions",
    "NOT_EQUAL": "NotEqualOptions",
    "LOGICAL_AND": "LogicalAndOptions",
    "LOGICAL_OR": "LogicalOrOptions",
}
COMPARISONS = frozenset({"LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL", "EQUAL", "NOT_EQUAL"})


def binary(graph: Graph, code: str, x: Value, y: Value) -> Value:
    """A broadcasting operator of two values of one dtype."""
    dtype = np.dtype(np.bool_) if code in COMPARISONS else x.dtype
    return graph.op(code, [x, y], broadcast(x.shape, y.shape), dtype, options(_BINARY_OPTIONS[code]))


def unary(graph: Graph, code: str, x: Value, settings: Options | None = None) -> Value:
    """An operator that keeps shape and dtype."""
    return graph.op(code, [x], x.shape, options=settings)


def scalar(number: float | int | bool, like: Value) -> Value:
    """A number in a value's dtype."""
    return constant(number, like.dtype)


def broadcast(x: Shape, y: Shape) -> Shape:
    """The shape of two shapes broadcast together."""
    rank = max(len(x), len(y))
    pairs = zip((1,) * (rank - len(x)) + x, (1,) * (rank - len(y)) + y, strict=True)
    return tuple(b if a == 1 else a for a, b in pairs)


def cast(graph: Graph, x: Value, dtype: np.dtype[Any]) -> Value:
    """The value in another dtype; the value itself if it has it already."""
    return x if x.dtype == dtype else graph.op("CAST", [x], x.shape, dtype, options("CastOptions"))


def reshape(graph: Graph, x: Value, shape: Shape) -> Value:
    """The value in another shape. A reshape of a reshape becomes one."""
    if x.shape == shape:
        return x
    if x.producer is not None and x.producer.code == "RESHAPE":
        source = x.producer.inputs[0]
        assert source is not None
        return reshape(graph, source, shape)
    if x.data is not None:
        return constant(x.data.reshape([int(size) for size in shape]), name=x.name)
    added = len(shape) - x.rank
    if x.producer is not None and x.producer.code == "TRANSPOSE" and added > 0 and shape == (1,) * added + x.shape:
        return _transpose_with_more_axes(graph, x.producer, added)
    if sum(not isinstance(size, int) for size in shape) > 1:
        return graph.op("RESHAPE", [x, shape_vector(graph, shape)], shape)
    known = [size if isinstance(size, int) else -1 for size in shape]
    return graph.op("RESHAPE", [x, constant(known, INT32)], shape, options=options("ReshapeOptions", newShape=known))


def _transpose_with_more_axes(graph: Graph, operator: Operator, added: int) -> Value:
    """A transposition of a value that got new first axes before it, where the reshape may join another."""
    source, order = operator.inputs
    assert source is not None and order is not None and order.data is not None
    axes = [*range(added), *(added + axis for axis in order.data.tolist())]
    return transpose(graph, reshape(graph, source, (1,) * added + source.shape), axes)


def transpose(graph: Graph, x: Value, order: Sequence[int]) -> Value:
    """The axes in another order; a reshape where only axes of size 1 change places, and where it undoes another one."""
    shape = tuple(x.shape[axis] for axis in order)
    if _keeps_order(x, order):
        return reshape(graph, x, shape)
    if x.data is not None:
        return constant(x.data.transpose(order), name=x.name)
    if x.producer is not None and x.producer.code == "TRANSPOSE":
        source, before = x.producer.inputs
        assert source is not None and before is not None and before.data is not None
        if _keeps_order(source, [int(before.data[axis]) for axis in order]):
            return reshape(graph, source, shape)
    return graph.op("TRANSPOSE", [x, constant(list(order), INT32)], shape, options=options("TransposeOptions"))


def _keeps_order(x: Value, order: Sequence[int]) -> bool:
    """Whether a transposition moves axes of size 1 only."""
    moved = [axis for axis in order if x.shape[axis] != 1]
    return moved == sorted(moved)


def slice_axis(graph: Graph, x: Value, axis: int, start: int, size: Size) -> Value:
    """`size` elements of an axis from a non-negative start on; a dynamic size reaches to the axis' end."""
    if (start, size) == (0, x.shape[axis]):
        return x
    if x.data is not None and isinstance(size, int):
        return constant(x.data.take(range(start, start + size), axis), name=x.name)
    begin = [start if i == axis else 0 for i in range(x.rank)]
    shape = tuple(size if i == axis else known for i, known in enumerate(x.shape))
    counts = [known for known in shape if isinstance(known, int)]
    if len(counts) == x.rank:
        settings = options("SliceOptions")
        return graph.op("SLICE", [x, constant(begin, INT32), constant(counts, INT32)], shape, options=settings)
    # XNNPACK leaves a SLICE with an unknown size to the interpreter, which ends a partition, but takes this one.
    end = [start + size if i == axis and isinstance(size, int) else 0 for i in range(x.rank)]
    to_the_end = sum(1 << i for i in range(x.rank) if end[i] == 0)
    bounds = [constant(numbers, INT32) for numbers in (begin, end, [1] * x.rank)]
    return graph.op("STRIDED_SLICE", [x, *bounds], shape, options=options("StridedSliceOptions", endMask=to_the_end))


def split(graph: Graph, x: Value, axis: int, count: int) -> list[Value]:
    """Equal parts along an axis."""
    size = x.shape[axis]
    assert isinstance(size, int)
    shape = tuple(size // count if i == axis else known for i, known in enumerate(x.shape))
    if count == 1:
        return [x]
    return graph.ops(
        "SPLIT", [constant(axis, INT32), x], [shape] * count, x.dtype, options("SplitOptions", numSplits=count)
    )


def concatenate(graph: Graph, values: Sequence[Value], axis: int) -> Value:
    """Values one after the other along an axis."""
    if len(values) == 1:
        return values[0]
    total = sum((value.shape[axis] for value in values), start=0)
    shape = tuple(total if i == axis else size for i, size in enumerate(values[0].shape))
    return graph.op("CONCATENATION", values, shape, options=options("ConcatenationOptions", axis=axis))


def gather(graph: Graph, x: Value, indices: Value, axis: int = 0) -> Value:
    """Entries of an axis, by index."""
    shape = x.shape[:axis] + indices.shape + x.shape[axis + 1 :]
    return graph.op("GATHER", [x, indices], shape, options=options("GatherOptions", axis=axis))


def embedding_lookup(graph: Graph, table: Value, indices: Value) -> Value:
    """Rows of a table (V, D) for indices of any shape -> (..., D)."""
    count: Size = 1
    for size in indices.shape:
        count = count * size
    rows = graph.op(
        "EMBEDDING_LOOKUP", [reshape(graph, indices, (count,)), table], (count, table.shape[1]), table.dtype
    )
    return reshape(graph, rows, (*indices.shape, table.shape[1]))


def size_value(graph: Graph, size: Size) -> Value:
    """A size as an int32 scalar, computed from the shapes of the inputs."""
    if isinstance(size, int | sympy.Integer):
        return constant(int(size), INT32)
    if size in graph.symbols:
        source, axis = graph.symbols[size]
        vector = graph.op("SHAPE", [source], (source.rank,), INT32, options("ShapeOptions", outType=2))
        bounds = [constant([n], INT32) for n in (axis, axis + 1, 1)]
        return graph.op("STRIDED_SLICE", [vector, *bounds], (), INT32, options("StridedSliceOptions", shrinkAxisMask=1))
    code = next((code for kind, code in _SIZE_OPERATORS.items() if isinstance(size, kind)), None)
    if code is None:
        raise UnsupportedError(
            f"converter 'tflite' cannot compute the size '{size}' at run time; it can: + - * // % min max"
        )
    first, *others = (size_value(graph, part) for part in size.args)
    for other in others:
        first = binary(graph, code, first, other)
    return first


_SIZE_OPERATORS: dict[type, str] = {
    sympy.Add: "ADD",
    sympy.Mul: "MUL",
    torch_sympy.FloorDiv: "FLOOR_DIV",
    torch_sympy.Mod: "FLOOR_MOD",
    torch_sympy.PythonMod: "FLOOR_MOD",
    sympy.Max: "MAXIMUM",
    sympy.Min: "MINIMUM",
    torch_sympy.Max: "MAXIMUM",
    torch_sympy.Min: "MINIMUM",
}


def shape_vector(graph: Graph, shape: Shape) -> Value:
    """A shape as an int32 vector, constant if it can be."""
    if all(isinstance(size, int) for size in shape):
        return constant(list(shape), INT32)
    parts = [size_value(graph, size) for size in shape]
    return graph.op("PACK", parts, (len(parts),), INT32, options("PackOptions", valuesCount=len(parts), axis=0))


def as_float(graph: Graph, x: Value) -> Value:
    """The value in float32."""
    return cast(graph, x, FLOAT32)


def broadcast_to(graph: Graph, x: Value, shape: Shape) -> Value:
    """The value with axes of size 1 repeated."""
    if x.shape == shape:
        return x
    return graph.op("BROADCAST_TO", [x, shape_vector(graph, shape)], shape, options=options("BroadcastToOptions"))
