"""What the lowerings of recurrent operators to ONNX share: one node a layer, weights in its order, states from zero.

The gates are reordered by operators on constants, which the converter folds afterwards: onnxruntime quantizes an LSTM only
if its weights are constants in the file.

Letters: B batch, T time, I input width, L layers, D directions (1 or 2), H hidden width, G gates.
"""

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript import opset20 as op

INITIAL_STATES = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}  # where a node takes its initial states
KEEPS_ZERO = ("Cast", "CastLike", "Expand", "Slice", "Identity")

Node = Callable[..., Any]
"""(x (T, B, I), W (D, G*H, I), R (D, G*H, H), B (D, 2*G*H), lengths, *states (D, B, H)) -> y (T, D, B, H), *states."""


def lower_layers(
    node: Node,
    order: Sequence[int],
    x: Any,
    states: Sequence[Any],
    lengths: Any,
    weights: Sequence[Any],
    num_layers: int,
    bidirectional: bool,
) -> tuple[Any, ...]:
    """An operator of `edgeseq.operators`, layer by layer; `order` gives the place of ONNX's gates among torch's."""
    directions = 2 if bidirectional else 1
    hidden = weights[1].shape[1]
    lengths = as_lengths(lengths)
    x = op.Transpose(x, perm=[1, 0, 2])  # (B, T, I) -> (T, B, I)
    final: list[tuple[Any, ...]] = []
    for first in range(0, num_layers * directions, directions):
        of_layer = [weights[4 * row : 4 * row + 4] for row in range(first, first + directions)]
        initial = [rows(state, first, directions) for state in states]
        y, *new = node(x, *layer_weights(of_layer, order, hidden), lengths, *initial, **settings(hidden, directions))
        x = op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), [0, 0, directions * hidden])  # (T, D, B, H) -> (T, B, D*H)
        final.append(tuple(new))
    return op.Transpose(x, perm=[1, 0, 2]), *(concat(list(state)) for state in zip(*final, strict=True))


def settings(hidden: int, directions: int) -> dict[str, Any]:
    """Attributes that every recurrent node has."""
    return {"hidden_size": hidden, "direction": "bidirectional" if directions == 2 else "forward"}


def as_lengths(lengths: Any) -> Any:
    """Lengths as ONNX takes them; None stays None."""
    return None if lengths is None else op.Cast(lengths, to=ir.DataType.INT32.value)


def layer_weights(of_layer: Sequence[Sequence[Any]], order: Sequence[int], hidden: int) -> tuple[Any, Any, Any]:
    """w_ih (G*H, I), w_hh (G*H, H), b_ih and b_hh (G*H) of each direction -> W, R, B of a node."""
    reordered = [[_reordered(weight, order, hidden) for weight in direction] for direction in of_layer]
    return (
        concat([op.Unsqueeze(w_ih, [0]) for w_ih, _, _, _ in reordered]),
        concat([op.Unsqueeze(w_hh, [0]) for _, w_hh, _, _ in reordered]),
        concat([op.Unsqueeze(op.Concat(b_ih, b_hh, axis=0), [0]) for _, _, b_ih, b_hh in reordered]),
    )


def rows(state: Any, first: int, directions: int) -> Any:
    """Rows of the state (L*D, B, H) that a layer starts from."""
    return op.Slice(state, [first], [first + directions], [0])


def concat(parts: list[Any]) -> Any:
    """Along the first axis."""
    return parts[0] if len(parts) == 1 else op.Concat(*parts, axis=0)


def _reordered(weight: Any, order: Sequence[int], hidden: int) -> Any:
    """The gates along axis 0, (G*H, ...), in ONNX's order."""
    return op.Gather(weight, [gate * hidden + i for gate in order for i in range(hidden)], axis=0)


def drop_zero_states(model: ir.Model) -> None:
    """Leave out initial states that are zeros made in the graph: ONNX assumes zeros where there are none."""
    for node in model.graph:
        for index in INITIAL_STATES.get(node.op_type, ()):
            if is_zero(node.inputs[index]):
                node.replace_input_with(index, None)
    RemoveUnusedNodesPass()(model)


def is_zero(value: ir.Value | None) -> bool:
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
    return producer.op_type in KEEPS_ZERO and is_zero(producer.inputs[0])
