"""Parts of tensors: by position, by range, by index tensors, from tables."""

from collections.abc import Sequence

import numpy as np

from edgeseq.converters.tflite import _emit, _filled
from edgeseq.converters.tflite._emit import binary, broadcast_to, reshape, size_value, slice_axis
from edgeseq.converters.tflite._graph import BOOL, INT32, Graph, Shape, Size, Value, constant, options
from edgeseq.converters.tflite._site import Site
from edgeseq.converters.tflite.matmul import projection_part
from edgeseq.errors import UnsupportedError


def select(site: Site, x: Value, axis: int, index: int) -> Value:
    """One entry of an axis, which disappears."""
    axis %= x.rank
    size = x.shape[axis]
    part = projection_part(site.graph, x, index) if axis == 0 and isinstance(index, int) else None
    if part is not None:
        return reshape(site.graph, part, site.shape)
    if isinstance(index, int) and (index >= 0 or isinstance(size, int)):
        start = index if index >= 0 else index + int(size)
        return reshape(site.graph, slice_axis(site.graph, x, axis, start, 1), site.shape)
    position = size_value(site.graph, index if not isinstance(index, int) else size + index)
    return _emit.gather(site.graph, x, position, axis)


def slice_(site: Site, x: Value, axis: int, start: Size | None, end: Size | None, step: int) -> Value:
    """Part of an axis, by Python's rules."""
    del end  # the result's size says it
    axis %= x.rank
    before, after = x.shape[axis], site.shape[axis]
    start = 0 if start is None else start
    if isinstance(start, int) and start < 0:
        start = max(before + start, 0) if isinstance(before, int) else before + start
    if before == after:
        return x
    if isinstance(start, int) and step == 1 and (isinstance(after, int) or after == before - start):
        return slice_axis(site.graph, x, axis, start, after)
    return pick(site.graph, x, axis, positions(site.graph, start, after, step))


def positions(graph: Graph, start: Size, count: Size, step: int) -> Value:
    """start, start + step, … as int32, from the sizes of the inputs."""
    if isinstance(start, int):
        return _filled.steps(graph, count, start, step)
    return binary(graph, "ADD", _filled.steps(graph, count, 0, step), size_value(graph, start))


def pick(graph: Graph, x: Value, axis: int, positions: Value) -> Value:
    """Entries of an axis; from a table of constants by EMBEDDING_LOOKUP, which has an integer form."""
    is_table = x.data is not None and x.rank >= 2 and axis == x.rank - 2 and all(size == 1 for size in x.shape[:axis])
    if not is_table or x.dtype != np.float32:
        return _emit.gather(graph, x, positions, axis)
    rows = _emit.embedding_lookup(graph, reshape(graph, x, x.shape[-2:]), positions)
    return reshape(graph, rows, (*x.shape[:axis], *rows.shape))


def split_with_sizes(site: Site, x: Value, sizes: Sequence[Size], axis: int) -> list[Value]:
    """Consecutive parts of an axis."""
    axis %= x.rank
    if all(isinstance(size, int) and size == sizes[0] for size in sizes) and isinstance(x.shape[axis], int):
        return _emit.split(site.graph, x, axis, len(sizes))
    parts, start = [], 0
    for size in sizes:
        if not isinstance(start, int):
            raise UnsupportedError(
                "converter 'tflite' cannot split after a part of dynamic size; slice from the end instead"
            )
        parts.append(slice_axis(site.graph, x, axis, start, size))
        start = start + size
    return parts


def split(site: Site, x: Value, size: Size, axis: int) -> list[Value]:
    """Parts of one size; the last may be smaller."""
    del size
    return split_with_sizes(site, x, [shape[axis] for shape in site.shapes], axis)


def flip(site: Site, x: Value, axes: Sequence[int]) -> Value:
    """Axes in reverse."""
    for axis in axes:
        x = site.graph.op(
            "REVERSE_V2", [x, constant([axis % x.rank], INT32)], x.shape, options=options("ReverseV2Options")
        )
    return x


def embedding(site: Site, table: Value, indices: Value, *_: object) -> Value:
    """Rows of a table."""
    return _emit.embedding_lookup(site.graph, table, indices)


def index_select(site: Site, x: Value, axis: int, indices: Value) -> Value:
    """Entries of an axis."""
    return _emit.gather(site.graph, x, indices, axis % x.rank)


def index(site: Site, x: Value, indices: Sequence[Value | None]) -> Value:
    """Indexing by integer tensors: one anywhere, or several from the first axis on."""
    axes = [axis for axis, value in enumerate(indices) if value is not None]
    given = [_non_negative(site.graph, value, x.shape[axis]) for axis, value in enumerate(indices) if value is not None]
    if any(value.dtype == BOOL for value in given):
        raise UnsupportedError(
            "converter 'tflite' cannot index by a boolean mask: the result's size depends on the data"
        )
    if len(axes) == 1:
        return _emit.gather(site.graph, x, given[0], axes[0])
    if axes != list(range(len(axes))):
        raise UnsupportedError("converter 'tflite' indexes by several tensors only from the first axis on")
    shape: Shape = ()
    for value in given:
        shape = _emit.broadcast(shape, value.shape)
    full = [
        broadcast_to(site.graph, reshape(site.graph, v, (1,) * (len(shape) - v.rank) + v.shape), shape) for v in given
    ]
    return _gather_nd(site.graph, x, full)


def gather(site: Site, x: Value, axis: int, indices: Value, sparse_grad: bool) -> Value:
    """X at positions that have a value for every element of the result."""
    del sparse_grad
    axis %= x.rank
    positions = []
    for i in range(x.rank):
        own = reshape(
            site.graph,
            _filled.steps(site.graph, site.shape[i]),
            tuple(site.shape[i] if j == i else 1 for j in range(x.rank)),
        )
        positions.append(indices if i == axis else broadcast_to(site.graph, own, site.shape))
    return _gather_nd(site.graph, x, positions)


def _gather_nd(graph: Graph, x: Value, positions: Sequence[Value]) -> Value:
    shape, count = positions[0].shape, len(positions)
    packed = graph.op(
        "PACK", positions, (*shape, count), INT32, options("PackOptions", valuesCount=count, axis=len(shape))
    )
    return graph.op("GATHER_ND", [x, packed], (*shape, *x.shape[count:]), x.dtype, options("GatherNdOptions"))


def _non_negative(graph: Graph, indices: Value, size: Size) -> Value:
    """Torch counts negative indices from the end."""
    if indices.data is not None and isinstance(size, int):
        return constant(np.where(indices.data < 0, indices.data + size, indices.data))
    if indices.producer is not None and indices.producer.code == "RANGE":
        return indices
    if indices.dtype == BOOL:
        return indices
    return binary(graph, "FLOOR_MOD", indices, size_value(graph, size))
