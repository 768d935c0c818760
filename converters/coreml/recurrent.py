"""`edgeseq::lstm` in MIL: one `lstm` op per layer, or one per direction where rows have lengths.

Letters: B batch, T time, D directions (1 or 2), H hidden width, I input width, L layers. MIL's own layout is (T, B, I).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.frontend.torch import ops as torch_ops
from coremltools.converters.mil.mil import Var

USES_CELL = "edgeseq_uses_cell"  # set in a node's meta where the program reads the final cell state
HOLD = 1e4  # times a weight of 0.01 or more, it saturates a sigmoid whatever else a gate is given


@dataclass(frozen=True, kw_only=True)
class Direction:
    """One direction of one layer, as MIL's `lstm` takes it."""

    weight_ih: np.ndarray  # (4H, I)
    weight_hh: np.ndarray  # (4H, H)
    bias: np.ndarray  # (4H,)
    initial_h: Var  # (B, H)
    initial_c: Var  # (B, H)

    def holding_cell(self) -> "Direction":
        """The same with one more input feature: `HOLD` on padded steps, it shuts the input and opens the forget gate.

        Its weights are as large as their rows' largest, so that rounding the rows to integers loses nothing.
        """
        signs = np.repeat(np.array([-1, 1, 0, 0], self.weight_ih.dtype), self.weight_hh.shape[1])  # gates i, f, o, g
        largest = np.maximum(np.abs(self.weight_ih).max(axis=1), 0.01)  # (4H,)
        widened = np.concatenate([self.weight_ih, (signs * largest)[:, None]], axis=1)  # (4H, I + 1)
        return Direction(
            weight_ih=widened,
            weight_hh=self.weight_hh,
            bias=self.bias,
            initial_h=self.initial_h,
            initial_c=self.initial_c,
        )


@dataclass(frozen=True, kw_only=True)
class Padding:
    """Where the rows of a padded batch end."""

    lengths: Var  # (B,)
    last: Var  # (1, B) each row's last valid step
    is_valid: Var  # (T, B, 1) 1.0 within the row, else 0.0
    hold: Var  # (T, B, 1) 0.0 within the row, else `HOLD`


def lower_lstm(context: Any, node: Any) -> None:
    """Translate one `edgeseq::lstm` node; the signature and its meaning are in edgeseq/operators/lstm.py."""
    x, h0, c0, lengths, weights, num_layers, bidirectional = torch_ops._get_inputs(context, node, expected=7)
    directions = 2 if bidirectional.val else 1
    x = mb.transpose(x=x, perm=[1, 0, 2])  # (B, T, I) -> (T, B, I)
    padding = None if lengths is None else _padding(x, lengths)
    states: list[tuple[Var, Var]] = []
    for layer in range(num_layers.val):
        layer_directions = [_direction(x, h0, c0, weights, layer * directions + offset) for offset in range(directions)]
        if padding is None:
            x, final = _whole_rows(x, layer_directions)
        else:
            x, final = _padded_rows(x, layer_directions, padding, uses_cell=node.meta[USES_CELL])
        states += final
    y = mb.transpose(x=x, perm=[1, 0, 2], name=f"{node.name}_y")  # (T, B, D*H) -> (B, T, D*H)
    hn, cn = (mb.stack(values=list(state), axis=0) for state in zip(*states, strict=True))  # each (L*D, B, H)
    context.add((y, hn, cn), torch_name=node.name)


def _whole_rows(x: Var, directions: Sequence[Direction]) -> tuple[Var, list[tuple[Var, Var]]]:
    """From x (T, B, I) -> y (T, B, D*H) and the final (h, c) of each direction, each (B, H)."""
    if len(directions) == 1:
        y, h, c = _run(x, directions[0])
        return y, [(h, c)]
    ahead, back = directions
    y, h, c = mb.lstm(
        x=x,
        initial_h=mb.concat(values=[ahead.initial_h, back.initial_h], axis=-1),  # (B, 2H)
        initial_c=mb.concat(values=[ahead.initial_c, back.initial_c], axis=-1),
        weight_ih=ahead.weight_ih,
        weight_hh=ahead.weight_hh,
        bias=ahead.bias,
        weight_ih_back=back.weight_ih,
        weight_hh_back=back.weight_hh,
        bias_back=back.bias,
        direction="bidirectional",
        output_sequence=True,
    )
    pairs = zip(*(mb.split(x=state, num_splits=2, axis=-1) for state in (h, c)), strict=True)  # (B, 2H) -> (B, H) twice
    return y, list(pairs)


def _padded_rows(
    x: Var, directions: Sequence[Direction], padding: Padding, *, uses_cell: bool
) -> tuple[Var, list[tuple[Var, Var]]]:
    """As `_whole_rows`; every direction runs forwards, the second over each row's valid steps in reverse order."""
    outputs, states = [], []
    for offset, direction in enumerate(directions):
        steps = x if offset == 0 else _reverse(x, padding)
        if uses_cell:
            steps = mb.concat(values=[steps, padding.hold], axis=-1)  # (T, B, I + 1)
            direction = direction.holding_cell()
        y, _, c = _run(steps, direction)
        h = mb.squeeze(x=_gather_steps(y, padding.last), axes=[0])  # (1, B, H) -> (B, H)
        outputs.append(y if offset == 0 else _reverse(y, padding))
        states.append((h, c))
    y = outputs[0] if len(outputs) == 1 else mb.concat(values=outputs, axis=-1)
    return mb.mul(x=y, y=padding.is_valid), states  # (T, B, D*H)


def _run(x: Var, direction: Direction) -> tuple[Var, Var, Var]:
    """From x (T, B, I) -> y (T, B, H), h (B, H), c (B, H)."""
    y, h, c = mb.lstm(x=x, **vars(direction), direction="forward", output_sequence=True)
    return y, h, c


def _direction(x: Var, h0: Var, c0: Var, weights: Sequence[Var], row: int) -> Direction:
    """Direction `row` = layer * D + offset, of the flat list of four weights each."""
    w_ih, w_hh, b_ih, b_hh = (weight.val for weight in weights[row * 4 : row * 4 + 4])
    return Direction(
        weight_ih=_ifog(w_ih),
        weight_hh=_ifog(w_hh),
        bias=_ifog(b_ih + b_hh),
        initial_h=_initial(x, h0, row),
        initial_c=_initial(x, c0, row),
    )


def _ifog(weight: np.ndarray) -> np.ndarray:
    """Torch's gate order i, f, g, o -> MIL's i, f, o, g."""
    i, f, g, o = np.split(weight, 4)
    return np.concatenate([i, f, o, g])


def _initial(x: Var, state: Var, row: int) -> Var:
    """(L*D, B, H) -> (B, H) of one row; zeros that the model made itself are made anew, with no slicing."""
    if state.op is not None and state.op.op_type == "fill" and state.op.value.val == 0:
        batch = mb.slice_by_size(x=mb.shape(x=x), begin=[1], size=[1])
        return mb.fill(shape=mb.concat(values=[batch, [state.shape[-1]]], axis=0), value=np.float32(0))
    return mb.gather(x=state, indices=row, axis=0)


def _padding(x: Var, lengths: Var) -> Padding:
    """From x (T, B, I), lengths (B,)."""
    lengths = mb.cast(x=lengths, dtype="int32")
    length = mb.expand_dims(x=lengths, axes=[0])  # (1, B)
    total = mb.squeeze(x=mb.slice_by_size(x=mb.shape(x=x), begin=[0], size=[1]), axes=[0])  # scalar T
    steps = mb.expand_dims(x=mb.range_1d(start=np.int32(0), end=total, step=np.int32(1)), axes=[1])  # (T, 1)
    is_valid = mb.expand_dims(x=mb.cast(x=mb.less(x=steps, y=length), dtype="fp32"), axes=[2])  # (T, B, 1)
    return Padding(
        lengths=lengths,
        last=mb.sub(x=length, y=np.int32(1)),
        is_valid=is_valid,
        hold=mb.mul(x=mb.sub(x=np.float32(1), y=is_valid), y=np.float32(HOLD)),
    )


def _reverse(x: Var, padding: Padding) -> Var:
    """(T, B, I) -> (T, B, I), each row reversed within its length; its own inverse."""
    return mb.reverse_sequence(x=x, lengths=padding.lengths, seq_axis=0, batch_axis=1)


def _gather_steps(x: Var, steps: Var) -> Var:
    """From x (T, B, I), steps (S, B) -> (S, B, I)."""
    width = mb.slice_by_size(x=mb.shape(x=x), begin=[2], size=[1])
    repeats = mb.concat(values=[[1], [1], width], axis=0)
    indices = mb.tile(x=mb.expand_dims(x=steps, axes=[2]), reps=repeats)  # (S, B, I)
    return mb.gather_along_axis(x=x, indices=indices, axis=0)
