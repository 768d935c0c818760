"""`edgeseq::gru` as ONNX GRU nodes, one a layer."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from onnxscript import opset20 as op

from edgeseq.converters.onnx._recurrence import lower_layers

FROM_RZN_TO_ZRH = (1, 0, 2)  # torch's gate order to ONNX's; its h is torch's n


def lower(
    x: Any,
    h0: Any,
    lengths: Any,
    weights: Sequence[Any],
    num_layers: int,
    bidirectional: bool,
    reset_after: bool = True,
) -> tuple[Any, ...]:
    """Called by torch's exporter; the arguments are those of `edgeseq.operators.gru.gru`, as graph values."""
    node = partial(op.GRU, linear_before_reset=int(reset_after))
    return lower_layers(node, FROM_RZN_TO_ZRH, x, (h0,), lengths, weights, num_layers, bidirectional)


LOWERING = lower
