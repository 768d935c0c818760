"""Scaled dot-product attention, Vaswani et al. 2017, eq. 1, one head after the other where the heads lie side by side.

A model projects to rows of all heads and moves the heads to the front. Read as columns of those rows, they need no
transposition, and the scores of one head, which the next one overwrites, stay in the processor's caches: with 12 heads of
32 the attention of a layer takes 0.92 of the time at 128 rows and 0.72 at 384 (LiteRT 2.3.0, one thread), and a twelfth of
the memory.

Letters: B batch, H heads, G heads of keys and values, T queries, S keys, K head width.
"""

import numpy as np

from edgeseq.converters.tflite import _emit, _filled
from edgeseq.converters.tflite._emit import binary, concatenate, reshape, scalar, slice_axis, transpose, unary
from edgeseq.converters.tflite._graph import BOOL, FINITE_INFINITY, FLOAT32, Graph, Size, Value, constant, options
from edgeseq.converters.tflite._site import Site
from edgeseq.converters.tflite.activations import settings_of_softmax
from edgeseq.converters.tflite.matmul import batch_matmul

_MOST_JOINED = 4


def attention(
    site: Site,
    query: Value,
    key: Value,
    value: Value,
    mask: Value | None,
    dropout: float,
    is_causal: bool,
    scale: float | None,
    is_grouped: bool,
) -> Value:
    """(B, H, T, K) by (B, G, S, K) and (B, G, S, K) -> (B, H, T, K)."""
    del dropout
    graph, width = site.graph, query.shape[-1]
    assert isinstance(width, int)
    factor = scale if scale is not None else width**-0.5
    if is_causal:
        mask = _causal(graph, query.shape[-2], key.shape[-2])
    mask = None if mask is None else additive(graph, mask)
    rows, shared = [_joined(graph, x) for x in (query, key, value)], _of_all_heads(graph, mask)
    if all(rows) and (shared is not None or mask is None):
        return _head_by_head(site, [x for x in rows if x is not None], shared, factor, key.shape[-3])
    if is_grouped and key.shape[-3] != query.shape[-3]:
        key, value = (_repeat_heads(graph, x, query) for x in (key, value))
    return _attend(graph, binary(graph, "MUL", query, scalar(factor, query)), key, value, mask)


def _attend(graph: Graph, query: Value, key: Value, value: Value, mask: Value | None) -> Value:
    """What scaled queries (..., T, K) take from values (..., S, K)."""
    order = [*range(key.rank - 2), key.rank - 1, key.rank - 2]
    swapped = graph.op("TRANSPOSE", [key, constant(order)], tuple(key.shape[i] for i in order))
    scores = batch_matmul(graph, query, swapped)
    if mask is not None:
        scores = binary(graph, "ADD", scores, mask)
    return batch_matmul(graph, unary(graph, "SOFTMAX", scores, settings_of_softmax()), value)


def _head_by_head(site: Site, rows: list[Value], mask: Value | None, factor: float, groups: Size) -> Value:
    """Queries (1, T, H * K), keys and values (1, S, G * K), mask (..., T, S) of all heads -> (1, H, T, K)."""
    graph, (_, heads, count, width) = site.graph, site.shape
    assert isinstance(heads, int) and isinstance(groups, int)
    query, key, value = rows
    queries = _columns(graph, binary(graph, "MUL", query, scalar(factor, query)), heads)
    keys, values = _columns(graph, key, groups), _columns(graph, value, groups)
    sharing = heads // groups
    results = [
        _attend(graph, own, keys[head // sharing], values[head // sharing], mask) for head, own in enumerate(queries)
    ]
    return transpose(graph, reshape(graph, _side_by_side(graph, results), (1, count, heads, width)), (0, 2, 1, 3))


def _side_by_side(graph: Graph, parts: list[Value]) -> Value:
    """Columns joined, a few at a time: XNNPACK leaves a CONCATENATION of more than five to the interpreter."""
    while len(parts) > 1:
        parts = [concatenate(graph, parts[i : i + _MOST_JOINED], 2) for i in range(0, len(parts), _MOST_JOINED)]
    return parts[0]


def _joined(graph: Graph, x: Value) -> Value | None:
    """The rows (1, T, H * K) of which x (1, H, T, K) is another view, if it is one."""
    moved = x.producer
    if moved is None or moved.code != "TRANSPOSE" or x.rank != 4 or x.shape[0] != 1:
        return None
    source, order = moved.inputs
    assert source is not None and order is not None and order.data is not None
    split = source.producer
    if order.data.tolist() != [0, 2, 1, 3] or split is None or split.code != "RESHAPE":
        return None
    rows, shape = split.inputs[0], (x.shape[2], x.shape[1] * x.shape[3])
    assert rows is not None
    # nn.MultiheadAttention has the batch of 1 in the middle.
    return reshape(graph, rows, (1, *shape)) if tuple(size for size in rows.shape if size != 1) == shape else None


def _columns(graph: Graph, rows: Value, heads: int) -> list[Value]:
    """Every head's columns."""
    assert isinstance(rows.shape[2], int)
    width = rows.shape[2] // heads
    return [slice_axis(graph, rows, 2, head * width, width) for head in range(heads)]


def _of_all_heads(graph: Graph, mask: Value | None) -> Value | None:
    """A mask without its axes of batch and heads, if it is the same for all of them."""
    if mask is None or mask.rank <= 2:
        return mask
    first, rest = mask.shape[:-2], mask.shape[-2:]
    # A reshape to two sizes that are known only at run time would keep XNNPACK from what follows.
    is_plain = all(size == 1 for size in first) and any(isinstance(size, int) for size in rest)
    return reshape(graph, mask, (1, *rest)) if is_plain else None


def _causal(graph: Graph, rows: Size, columns: Size) -> Value:
    """Whether key s comes no later than query t (T, S)."""
    later, earlier = _filled.steps(graph, rows), _filled.steps(graph, columns)
    return binary(graph, "GREATER_EQUAL", reshape(graph, later, (rows, 1)), earlier)


def additive(graph: Graph, mask: Value) -> Value:
    """A mask of booleans (True: attend) as numbers to add to scores; a row without any True stays finite."""
    if mask.dtype != BOOL:
        return mask
    zero, away = constant(0.0), constant(-FINITE_INFINITY)
    return graph.op("SELECT_V2", [mask, zero, away], mask.shape, FLOAT32, options("SelectV2Options"))


def _repeat_heads(graph: Graph, x: Value, query: Value) -> Value:
    """Each head of keys or values (B, G, S, K) as often as query heads share it -> (B, H, S, K)."""
    groups, heads = x.shape[-3], query.shape[-3]
    assert isinstance(groups, int) and isinstance(heads, int)
    return _emit.gather(graph, x, constant(np.arange(heads) // (heads // groups)), x.rank - 3)
