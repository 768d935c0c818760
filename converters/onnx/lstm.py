"""`edgeseq::lstm` as ONNX LSTM nodes, one a layer; projections as part of the recurrent weights.

ONNX's LSTM has no projection. With h = w_hr m, where m is what it calls its output, the gates see w_hh h = (w_hh w_hr) m:
so the node keeps m, its recurrent weight is the product, and the layer's outputs are one matrix product after it. A given
initial h need not be a projection of anything; it enters as more input features, which are zero from the second step on.

Letters: B batch, T time, I input width, D directions (1 or 2), H hidden width, P output width of a projection.
"""

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
from onnxscript import opset20 as op

from edgeseq.converters.onnx._recurrence import as_lengths, concat, is_zero, layer_weights, lower_layers, rows, settings

FROM_IFGO_TO_IOFC = (0, 3, 1, 2)  # torch's gate order to ONNX's; its c is torch's g


def lower(
    x: Any, h0: Any, c0: Any, lengths: Any, weights: Sequence[Any], num_layers: int, bidirectional: bool
) -> tuple[Any, ...]:
    """Called by torch's exporter; the arguments are those of `edgeseq.operators.lstm.lstm`, as graph values."""
    directions = 2 if bidirectional else 1
    if len(weights) == 5 * num_layers * directions:
        return _projected(x, h0, c0, as_lengths(lengths), weights, directions)
    return lower_layers(op.LSTM, FROM_IFGO_TO_IOFC, x, (h0, c0), lengths, weights, num_layers, bidirectional)


def _projected(x: Any, h0: Any, c0: Any, lengths: Any, weights: Sequence[Any], directions: int) -> tuple[Any, ...]:
    x = op.Transpose(x, perm=[1, 0, 2])  # (B, T, I) -> (T, B, I)
    hidden, hs, cs = weights[4].shape[1], [], []
    for first in range(0, len(weights) // 5, directions):
        of_layer = [weights[5 * row : 5 * row + 5] for row in range(first, first + directions)]
        if not is_zero(h0):
            x = op.Concat(x, *(_on_first_step(x, h0, first, way, lengths) for way in range(directions)), axis=2)
            of_layer = [_with_start(direction, way, directions) for way, direction in enumerate(of_layer)]
        composed = [(w_ih, op.MatMul(w_hh, w_hr), b_ih, b_hh) for w_ih, w_hh, b_ih, b_hh, w_hr in of_layer]
        inputs = (x, *layer_weights(composed, FROM_IFGO_TO_IOFC, hidden), lengths, None, rows(c0, first, directions))
        y, h, c = op.LSTM(*inputs, **settings(hidden, directions))
        down = [op.Transpose(w_hr, perm=[1, 0]) for *_, w_hr in of_layer]  # each (H, P)
        x = op.Concat(*(op.MatMul(op.Gather(y, [way], axis=1), w) for way, w in enumerate(down)), axis=3)
        x = op.Squeeze(x, [1])  # (T, 1, B, D*P) -> (T, B, D*P)
        hs += [op.MatMul(rows(h, way, 1), w) for way, w in enumerate(down)]  # each (1, B, P)
        cs.append(c)
    return op.Transpose(x, perm=[1, 0, 2]), concat(hs), concat(cs)


def _on_first_step(x: Any, h0: Any, first: int, way: int, lengths: Any) -> Any:
    """Row `first + way` of h0 (L*D, B, P) on the step that this direction begins with, zeros elsewhere: (T, B, P)."""
    total = op.Shape(x, start=0, end=1)  # (1,)
    steps = op.Unsqueeze(op.Range(0, op.Squeeze(total, [0]), 1), [1])  # (T, 1)
    last = total if lengths is None else op.Cast(lengths, to=ir.DataType.INT64.value)  # (1,) or (B,)
    begins = op.Equal(steps, 0) if way == 0 else op.Equal(steps, op.Sub(last, 1))  # (T, 1) or (T, B)
    return op.Where(op.Unsqueeze(begins, [2]), rows(h0, first + way, 1), 0.0)


def _with_start(direction: Sequence[Any], way: int, directions: int) -> list[Any]:
    """A direction's weights, reading the input features that bring each direction's initial h."""
    w_ih, w_hh, *rest = direction
    return [op.Concat(w_ih, *(w_hh if k == way else op.Mul(w_hh, 0.0) for k in range(directions)), axis=1), w_hh, *rest]


LOWERING = lower
