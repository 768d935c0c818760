"""Views, slices, joins and tensors made of sizes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeseq.converters.tflite import _emit
from edgeseq.converters.tflite._emit import binary, reshape, scalar, size_value, slice_axis
from edgeseq.converters.tflite._graph import BOOL, INT32, Graph, Shape, Size, Value, constant, options
from edgeseq.converters.tflite._site import Site
from edgeseq.converters.tflite.elementwise import Operand
from edgeseq.converters.tflite.matmul import projection_part
from edgeseq.errors import UnsupportedError


def view(site: Site, x: Value, *_: object) -> Value:
    """Any operator that only regroups elements in order: view, squeeze, unsqueeze."""
    return reshape(site.graph, x, site.shape)


def permute(site: Site, x: Value, order: Sequence[int]) -> Value:
    """Axes in another order."""
    return _emit.transpose(site.graph, x, [axis % x.rank for axis in order])


def swap_axes(site: Site, x: Value, first: int, second: int) -> Value:
    """Two axes exchanged."""
    order = list(range(x.rank))
    order[first], order[second] = order[second], order[first]
    return _emit.transpose(site.graph, x, order)


def swap_last_axes(site: Site, x: Value) -> Value:
    """The transpose of matrices."""
    return swap_axes(site, x, x.rank - 2, x.rank - 1)


def expand(site: Site, x: Value, *_: object) -> Value:
    """Axes of size 1 repeated; left to the users where they broadcast anyway."""
    x = reshape(site.graph, x, (1,) * (len(site.shape) - x.rank) + x.shape)
    return x if site.is_broadcast_later else _broadcast_to(site.graph, x, site.shape)


def _broadcast_to(graph: Graph, x: Value, shape: Shape) -> Value:
    if x.shape == shape:
        return x
    return graph.op("BROADCAST_TO", [x, _emit.shape_vector(graph, shape)], shape, options=options("BroadcastToOptions"))


def repeat(site: Site, x: Value, repeats: Sequence[Size]) -> Value:
    """Whole axes repeated."""
    x = reshape(site.graph, x, (1,) * (len(repeats) - x.rank) + x.shape)
    return site.graph.op(
        "TILE", [x, _emit.shape_vector(site.graph, tuple(repeats))], site.shape, options=options("TileOptions")
    )


def concatenate(site: Site, values: Sequence[Value], axis: int) -> Value:
    """Values one after the other."""
    values = [_emit.cast(site.graph, value, site.dtype) for value in values if value.shape != (0,)]
    return _emit.concatenate(site.graph, values, axis % len(site.shape))


def select(site: Site, x: Value, axis: int, index: int) -> Value:
    """One entry of an axis, which disappears."""
    axis %= x.rank
    size = x.shape[axis]
    part = projection_part(site.graph, x, index) if axis == 0 and isinstance(index, int) else None
    if part is not None:
        return reshape(site.graph, part, site.shape)
    if isinstance(index, int) and (index >= 0 or isinstance(size, int)):
        start = index if index >= 0 else index + int(size)  # type: ignore[arg-type]  # a negative index has a fixed size here
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
    return _pick(site.graph, x, axis, _positions(site.graph, start, after, step))


def _positions(graph: Graph, start: Size, count: Size, step: int) -> Value:
    if isinstance(start, int):
        return _emit.steps(graph, count, start, step)
    return binary(graph, "ADD", _emit.steps(graph, count, 0, step), size_value(graph, start))


def _pick(graph: Graph, x: Value, axis: int, positions: Value) -> Value:
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
        start = start + size  # type: ignore[assignment]  # dynamic after a dynamic part, which ends the loop above
    return parts


def split(site: Site, x: Value, size: Size, axis: int) -> list[Value]:
    """Parts of one size; the last may be smaller."""
    del size
    return split_with_sizes(site, x, [shape[axis] for shape in site.shapes], axis)


def unbind(site: Site, x: Value, axis: int) -> list[Value]:
    """Every entry of an axis."""
    axis %= x.rank
    settings = options("UnpackOptions", num=len(site.shapes), axis=axis)
    return site.graph.ops("UNPACK", [x], site.shapes, x.dtype, settings)


def stack(site: Site, values: Sequence[Value], axis: int) -> Value:
    """Values along a new axis."""
    values = [_emit.cast(site.graph, value, site.dtype) for value in values]
    settings = options("PackOptions", valuesCount=len(values), axis=axis % len(site.shape))
    return site.graph.op("PACK", values, site.shape, options=settings)


def flip(site: Site, x: Value, axes: Sequence[int]) -> Value:
    """Axes in reverse."""
    for axis in axes:
        x = site.graph.op(
            "REVERSE_V2", [x, constant([axis % x.rank], INT32)], x.shape, options=options("ReverseV2Options")
        )
    return x


def pad(site: Site, x: Value, widths: Sequence[int], value: float) -> Value:
    """Constant borders; `widths` goes from the last axis backwards, before and after."""
    pairs = [(0, 0)] * x.rank
    for i in range(len(widths) // 2):
        pairs[x.rank - 1 - i] = (widths[2 * i], widths[2 * i + 1])
    for axis, (before, after) in enumerate(pairs):
        if min(before, after) < 0:
            size = x.shape[axis] + min(before, 0) + min(after, 0)
            x = _pick(site.graph, x, axis, _emit.steps(site.graph, size, max(-before, 0)))
    borders = constant([(max(before, 0), max(after, 0)) for before, after in pairs], INT32)
    if value == 0 and x.dtype != BOOL:
        return site.graph.op("PAD", [x, borders], site.shape, options=options("PadOptions"))
    return site.graph.op("PADV2", [x, borders, scalar(value, x)], site.shape, options=options("PadV2Options"))


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
        _broadcast_to(site.graph, reshape(site.graph, v, (1,) * (len(shape) - v.rank) + v.shape), shape) for v in given
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
            _emit.steps(site.graph, site.shape[i]),
            tuple(site.shape[i] if j == i else 1 for j in range(x.rank)),
        )
        positions.append(indices if i == axis else _broadcast_to(site.graph, own, site.shape))
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


def arange(site: Site, start: Operand, end: Operand, step: Operand, *_: object) -> Value:
    """Equally spaced numbers."""
    del end
    assert isinstance(step, int) and not isinstance(start, Value | float), (
        "torch.export keeps bounds of arange as sizes"
    )
    return _emit.cast(site.graph, _positions(site.graph, start, site.shape[0], step), site.dtype)


def arange_to(site: Site, end: Operand, *_: object) -> Value:
    """0, 1, … before the end."""
    return arange(site, 0, end, 1)


def arange_between(site: Site, start: Operand, end: Operand, *_: object) -> Value:
    """start, start + 1, … before the end."""
    return arange(site, start, end, 1)


def new_full(site: Site, like: Value, shape: Any, value: float | bool, *_: object) -> Value:
    """One number everywhere."""
    del like
    return full(site, shape, value)


def full(site: Site, shape: Any, value: float | bool, *_: object) -> Value:
    """One number everywhere; a scalar where the users broadcast."""
    del shape
    number = constant(value, site.dtype)
    return number if site.is_broadcast_later else _emit.fill(site.graph, site.shape, number)


def zeros(site: Site, *_: object) -> Value:
    """Zeros."""
    return full(site, None, 0)


def ones(site: Site, *_: object) -> Value:
    """Ones."""
    return full(site, None, 1)


def scalar_tensor(site: Site, value: Operand, *_: object) -> Value:
    """A number or a size as a tensor."""
    if isinstance(value, int | float):
        return constant(value, site.dtype)
    assert not isinstance(value, Value)
    return _emit.cast(site.graph, size_value(site.graph, value), site.dtype)
