"""`edgeseq::gru` as ONNX GRU nodes, one a layer."""

from collections.abc import Sequence
from typing import Any

from onnxscript import opset20 as op

from edgeseq.converters.onnx._recurrence import lower_layers

FROM_RZN_TO_ZRH = (1, 0, 2)  # torch's gate order to ONNX's; its h is torch's n


def lower(
    x: Any, h0: Any, lengths: Any, weights: Sequence[Any], num_layers: int, bidirectional: bool
) -> tuple[Any, ...]:
    """Called by torch's exporter; the arguments are those of `edgeseq.operators.gru.gru`, as graph values."""
    return lower_layers(_node, FROM_RZN_TO_ZRH, x, (h0,), lengths, weights, num_layers, bidirectional)


def _node(*inputs: Any, **attributes: Any) -> Any:
    return op.GRU(*inputs, linear_before_reset=1, **attributes)  # torch resets the product, not what is multiplied


LOWERING = lower
