"""`edgeseq::rnn` as ONNX RNN nodes, one a layer."""

from collections.abc import Sequence
from typing import Any

from onnxscript import opset20 as op

from edgeseq.converters.onnx._recurrence import lower_layers

ACTIVATIONS = {"tanh": "Tanh", "relu": "Relu"}


def lower(
    x: Any, h0: Any, lengths: Any, weights: Sequence[Any], num_layers: int, bidirectional: bool, nonlinearity: str
) -> tuple[Any, ...]:
    """Called by torch's exporter; the arguments are those of `edgeseq.operators.rnn.rnn`, as graph values."""
    activations = [ACTIVATIONS[nonlinearity]] * (2 if bidirectional else 1)

    def node(*inputs: Any, **attributes: Any) -> Any:
        return op.RNN(*inputs, activations=activations, **attributes)

    return lower_layers(node, (0,), x, (h0,), lengths, weights, num_layers, bidirectional)


LOWERING = lower
