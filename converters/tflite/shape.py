"""Views, joins and tensors made of sizes."""

from collections.abc import Sequence
from typing import Any

from edgeseq.converters.tflite import _emit, _filled
from edgeseq.converters.tflite._emit import broadcast_to, reshape, scalar, size_value
from edgeseq.converters.tflite._graph import BOOL, INT32, Size, Value, constant, options
from edgeseq.converters.tflite._site import Site
from edgeseq.converters.tflite.elementwise import Operand
from edgeseq.converters.tflite.indexing import pick, positions


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
    return x if site.is_broadcast_later else broadcast_to(site.graph, x, site.shape)


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


def pad(site: Site, x: Value, widths: Sequence[int], value: float) -> Value:
    """Constant borders; `widths` goes from the last axis backwards, before and after."""
    pairs = [(0, 0)] * x.rank
    for i in range(len(widths) // 2):
        pairs[x.rank - 1 - i] = (widths[2 * i], widths[2 * i + 1])
    for axis, (before, after) in enumerate(pairs):
        if min(before, after) < 0:
            size = x.shape[axis] + min(before, 0) + min(after, 0)
            x = pick(site.graph, x, axis, _filled.steps(site.graph, size, max(-before, 0)))
    borders = constant([(max(before, 0), max(after, 0)) for before, after in pairs], INT32)
    if value == 0 and x.dtype != BOOL:
        return site.graph.op("PAD", [x, borders], site.shape, options=options("PadOptions"))
    return site.graph.op("PADV2", [x, borders, scalar(value, x)], site.shape, options=options("PadV2Options"))


def arange(site: Site, start: Operand, end: Operand, step: Operand, *_: object) -> Value:
    """Equally spaced numbers."""
    del end
    assert isinstance(step, int) and not isinstance(start, Value | float), (
        "torch.export keeps bounds of arange as sizes"
    )
    return _emit.cast(site.graph, positions(site.graph, start, site.shape[0], step), site.dtype)


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
    return number if site.is_broadcast_later else _filled.fill(site.graph, site.shape, number)


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
