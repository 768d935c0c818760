"""`edgeseq::cached_attention`: one new row by products and sums, several by matrix products.

A BATCH_MATMUL packs its right operand anew at each call, which is as much work as the whole product where the left one
has a single row: at 256 rows, 6 heads of 64 and 6 layers 0.57 ms, and a MUL with a SUM 0.39 ms (LiteRT 2.3.0, one thread).

Letters: B batch, H heads, T new rows, S rows of the cache, K head width.
"""

from edgeseq.converters.tflite import _emit
from edgeseq.converters.tflite._emit import binary, concatenate, reshape, scalar, slice_axis, unary
from edgeseq.converters.tflite._graph import Graph, Value
from edgeseq.converters.tflite._site import Site
from edgeseq.converters.tflite.activations import settings_of_softmax
from edgeseq.converters.tflite.matmul import batch_matmul
from edgeseq.converters.tflite.reduce import reduce_axes


def cached_attention(
    site: Site, query: Value, key: Value, value: Value, keys: Value, values: Value, mask: Value
) -> Value:
    """Query, key and value (B, H, T, K), keys and values (B, H, S, K), mask (B, 1, T, T + S) -> (B, H, T, K)."""
    graph, (_, _, count, width) = site.graph, query.shape
    assert isinstance(width, int)
    query = binary(graph, "MUL", query, scalar(width**-0.5, query))
    return (_one_row if count == 1 else _several_rows)(graph, query, key, value, keys, values, mask)


def _one_row(graph: Graph, query: Value, key: Value, value: Value, keys: Value, values: Value, mask: Value) -> Value:
    """The new row's score comes first, since SLICE reaches to the end of a dynamic axis but not up to it."""
    batch, heads, rows, _ = keys.shape
    new = reduce_axes(graph, "SUM", binary(graph, "MUL", key, query), [3], keep=True)  # (B, H, 1, 1)
    past = reduce_axes(graph, "SUM", binary(graph, "MUL", keys, query), [3], keep=True)  # (B, H, S, 1)
    scores = concatenate(graph, [new, reshape(graph, past, (batch, heads, 1, rows))], 3)  # (B, H, 1, 1 + S)
    weights = unary(graph, "SOFTMAX", binary(graph, "ADD", scores, mask), settings_of_softmax())
    of_new = slice_axis(graph, weights, 3, 0, 1)  # (B, H, 1, 1)
    of_past = reshape(graph, slice_axis(graph, weights, 3, 1, rows), (batch, heads, rows, 1))
    seen = reduce_axes(graph, "SUM", binary(graph, "MUL", values, of_past), [2], keep=True)  # (B, H, 1, K)
    return binary(graph, "ADD", seen, binary(graph, "MUL", value, of_new))


def _several_rows(
    graph: Graph, query: Value, key: Value, value: Value, keys: Value, values: Value, mask: Value
) -> Value:
    """New rows and cache joined, which the matrix products would copy in any case."""
    every_key = concatenate(graph, [key, keys], 2)  # (B, H, T + S, K)
    swapped = _emit.transpose(graph, every_key, (0, 1, 3, 2))
    scores = binary(graph, "ADD", batch_matmul(graph, query, swapped), mask)  # (B, H, T, T + S)
    weights = unary(graph, "SOFTMAX", scores, settings_of_softmax())
    return batch_matmul(graph, weights, concatenate(graph, [value, values], 2))


LOWERING = cached_attention
