"""`edgeseq::cached_attention` in plain ONNX: two products with the new rows, two with the cache, one softmax.

Letters: B batch, H heads, T new rows, S rows of the cache, K head width.
"""

from typing import Any

from onnxscript import opset20 as op

END = 2**31 - 1


def lower_cached_attention(query: Any, key: Any, value: Any, keys: Any, values: Any, mask: Any) -> Any:
    """Called by torch's exporter; the arguments are those of `edgeseq.operators.cached_attention.cached_attention`."""
    query = op.Mul(query, op.Constant(value_float=float(query.shape[3]) ** -0.5))
    scores = op.Concat(op.MatMul(query, _swapped(key)), op.MatMul(query, _swapped(keys)), axis=-1)  # (B, H, T, T + S)
    weights = op.Softmax(op.Add(scores, mask), axis=-1)
    count = op.Shape(key, start=2, end=3)  # (1,)
    of_new = op.Slice(weights, [0], count, [3])  # (B, H, T, T)
    of_past = op.Slice(weights, count, [END], [3])  # (B, H, T, S)
    return op.Add(op.MatMul(of_past, values), op.MatMul(of_new, value))  # (B, H, T, K)


def _swapped(keys: Any) -> Any:
    """(B, H, S, K) -> (B, H, K, S); onnxruntime takes it into the product."""
    return op.Transpose(keys, perm=[0, 1, 3, 2])


LOWERING = lower_cached_attention
