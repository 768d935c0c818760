"""`edgeseq::lstm` as ONNX LSTM nodes, one a layer.

The gates are reordered by operators on constants, which the converter folds afterwards: onnxruntime quantizes an LSTM only
if its weights are constants in the file.
"""

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript import opset20 as op

FROM_IFGO_TO_IOFC = (0, 3, 1, 2)  # torch's gate order to ONNX's; its c is torch's g
INITIAL_STATES = (5, 6)  # inputs initial_h and initial_c of an ONNX LSTM
KEEPS_ZERO = ("Cast", "CastLike", "Expand", "Slice", "Identity")


def lower_lstm(
    x: Any, h0: Any, c0: Any, lengths: Any, weights: Sequence[Any], num_layers: int, bidirectional: bool
) -> tuple[Any, Any, Any]:
    """Called by torch's exporter; the arguments are those of `edgeseq.operators.lstm.lstm`, as graph values."""
    directions = 2 if bidirectional else 1
    hidden = weights[1].shape[1]
    if lengths is not None:
        lengths = op.Cast(lengths, to=ir.DataType.INT32.value)
    x = op.Transpose(x, perm=[1, 0, 2])  # (B, T, I) -> (T, B, I)
    hs, cs = [], []
    for layer in range(num_layers):
        first = layer * directions
        of_layer = [weights[4 * k : 4 * k + 4] for k in range(first, first + directions)]
        y, hn, cn = op.LSTM(
            x,
            _concat([op.Unsqueeze(_reordered(w_ih, hidden), [0]) for w_ih, _, _, _ in of_layer]),  # (D, 4H, I)
            _concat([op.Unsqueeze(_reordered(w_hh, hidden), [0]) for _, w_hh, _, _ in of_layer]),  # (D, 4H, H)
            _concat([_biases(b_ih, b_hh, hidden) for _, _, b_ih, b_hh in of_layer]),  # (D, 8H)
            lengths,
            _state_of_layer(h0, first, directions),
            _state_of_layer(c0, first, directions),
            hidden_size=hidden,
            direction="bidirectional" if bidirectional else "forward",
        )
        x = op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), [0, 0, directions * hidden])  # (T, D, B, H) -> (T, B, D*H)
        hs.append(hn)
        cs.append(cn)
    return op.Transpose(x, perm=[1, 0, 2]), _concat(hs), _concat(cs)


def _reordered(weight: Any, hidden: int) -> Any:
    """The gates along axis 0, (4H, ...), in ONNX's order."""
    return op.Gather(weight, [gate * hidden + i for gate in FROM_IFGO_TO_IOFC for i in range(hidden)], axis=0)


def _biases(b_ih: Any, b_hh: Any, hidden: int) -> Any:
    """Two of (4H,) -> (1, 8H)."""
    return op.Unsqueeze(op.Concat(_reordered(b_ih, hidden), _reordered(b_hh, hidden), axis=0), [0])


def _state_of_layer(state: Any, first: int, directions: int) -> Any:
    """Rows of the state (L*D, B, H) that a layer starts from."""
    return op.Slice(state, [first], [first + directions], [0])


def _concat(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else op.Concat(*parts, axis=0)


def drop_zero_states(model: ir.Model) -> None:
    """Leave out initial states that are zeros made in the graph: ONNX assumes zeros where there are none."""
    for node in model.graph:
        if node.op_type == "LSTM":
            for index in INITIAL_STATES:
                if _is_zero(node.inputs[index]):
                    node.replace_input_with(index, None)
    RemoveUnusedNodesPass()(model)


def _is_zero(value: ir.Value | None) -> bool:
    """Whether a value is made of zeros only: filled, then perhaps cast, broadcast or cut."""
    if value is None:
        return False
    constant = ir.convenience.get_const_tensor(value)
    if constant is not None:
        return not constant.numpy().any()
    producer = value.producer()
    if producer is None:
        return False
    if producer.op_type == "ConstantOfShape":
        fill = producer.attributes.get("value")
        return fill is None or not fill.as_tensor().numpy().any()
    return producer.op_type in KEEPS_ZERO and _is_zero(producer.inputs[0])
