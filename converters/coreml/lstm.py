"""`edgeseq::lstm` in MIL: one `lstm` op per layer, or one per direction where rows have lengths or outputs are projected.

MIL's `lstm` has no projection. With h = w_hr m, where m is what it calls its output, the gates see w_hh h = (w_hh w_hr) m:
so it keeps m, its recurrent weight is the product, and the layer's outputs are one matrix product after it. A given
initial h need not be a projection of anything; it enters as more input features, which are zero from the second step on.

Letters: B batch, T time, D directions (1 or 2), H hidden width, P output width, I input width, L layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.frontend.torch import ops as torch_ops
from coremltools.converters.mil.mil import Var

from edgeseq.converters.coreml import _recurrence
from edgeseq.converters.coreml._recurrence import Padding, Result, filled, initial, is_zero

USES_CELL = "edgeseq_uses_cell"  # set in a node's meta where the program reads the final cell state
HOLD = 1e4  # times a weight of 0.01 or more, it saturates a sigmoid whatever else a gate is given


@dataclass(frozen=True, kw_only=True)
class Direction:
    """One direction of one layer."""

    weight_ih: np.ndarray  # (4H, I)
    weight_hh: np.ndarray  # (4H, P)
    bias: np.ndarray  # (4H,)
    projection: np.ndarray | None  # (P, H); None: P is H
    initial_h: Var  # (B, P)
    initial_c: Var  # (B, H)

    def holding_cell(self) -> "Direction":
        """The same with one more input feature: `HOLD` on padded steps, it shuts the input and opens the forget gate.

        Its weights are as large as their rows' largest, so that rounding the rows to integers loses nothing.
        """
        width = len(self.bias) // 4
        signs = np.repeat(np.array([-1, 1, 0, 0], self.weight_ih.dtype), width)  # gates i, f, o, g
        largest = np.maximum(np.abs(self.weight_ih).max(axis=1), 0.01)  # (4H,)
        return replace(self, weight_ih=np.column_stack([self.weight_ih, signs * largest]))  # (4H, I + 1)

    def given_as_features(self) -> "Direction":
        """The same with P more input features that bring the initial h."""
        return replace(self, weight_ih=np.column_stack([self.weight_ih, self.weight_hh]))


def lower(context: Any, node: Any) -> None:
    """Translate one `edgeseq::lstm` node; the signature and its meaning are in edgeseq/operators/lstm.py."""
    x, h0, c0, lengths, weights, num_layers, bidirectional = torch_ops._get_inputs(context, node, expected=7)
    directions = 2 if bidirectional.val else 1
    per_row = len(weights) // (num_layers.val * directions)
    x = _recurrence.time_first(x)
    padding = _recurrence.padding_of(x, lengths)
    is_held = padding is not None and node.meta[USES_CELL]

    def layer(x: Var, rows: Sequence[int]) -> Result:
        both = [_direction(x, h0, c0, weights[row * per_row : (row + 1) * per_row], row) for row in rows]
        if padding is None and directions == 2 and per_row == 4:
            return _both_at_once(x, both[0], both[1])
        runs = [partial(_run, direction=direction, held=padding if is_held else None) for direction in both]
        return _recurrence.run_directions(x, runs, padding)

    _recurrence.lower_layers(context, node, layer, x, num_layers.val, directions)


def _both_at_once(x: Var, ahead: Direction, back: Direction) -> Result:
    """From x (T, B, I) -> y (T, B, 2H) and the final (h, c) of each direction, each (B, H)."""
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


def _run(x: Var, direction: Direction, held: Padding | None) -> tuple[Var, Var, Var]:
    """From x (T, B, I) -> y (T, B, P), h (B, P), c (B, H); the cell stays as it is on held rows' padding."""
    projection, initial_h = direction.projection, direction.initial_h
    if projection is not None:
        if not is_zero(initial_h):
            x = mb.concat(values=[x, _on_first_step(x, initial_h)], axis=-1)  # (T, B, I + P)
            direction = direction.given_as_features()
        initial_h = filled(x, projection.shape[1])
    if held is not None:
        padded = mb.sub(x=np.float32(1), y=mb.cast(x=held.is_valid, dtype="fp32"))  # (T, B, 1)
        x = mb.concat(values=[x, mb.mul(x=padded, y=np.float32(HOLD))], axis=-1)  # (T, B, I + 1)
        direction = direction.holding_cell()
    y, h, c = mb.lstm(
        x=x,
        initial_h=initial_h,
        initial_c=direction.initial_c,
        weight_ih=direction.weight_ih,
        weight_hh=direction.weight_hh if projection is None else direction.weight_hh @ projection,
        bias=direction.bias,
        direction="forward",
        output_sequence=True,
    )
    if projection is not None:
        y, h = (mb.linear(x=state, weight=projection) for state in (y, h))  # (…, H) -> (…, P)
    return y, h, c


def _on_first_step(x: Var, h: Var) -> Var:
    """From x (T, B, I), h (B, P) -> (T, B, P), zeros from the second step on."""
    is_first = mb.expand_dims(x=mb.equal(x=_recurrence.steps(x), y=np.int32(0)), axes=[2])  # (T, 1, 1)
    return mb.mul(x=mb.cast(x=is_first, dtype="fp32"), y=mb.expand_dims(x=h, axes=[0]))


def _direction(x: Var, h0: Var, c0: Var, weights: Sequence[Var], row: int) -> Direction:
    """Direction `row` = layer * D + offset, of its four or five weights."""
    w_ih, w_hh, b_ih, b_hh, *projection = (weight.val for weight in weights)
    return Direction(
        weight_ih=_ifog(w_ih),
        weight_hh=_ifog(w_hh),
        bias=_ifog(b_ih + b_hh),
        projection=projection[0] if projection else None,
        initial_h=initial(x, h0, row),
        initial_c=initial(x, c0, row),
    )


def _ifog(weight: np.ndarray) -> np.ndarray:
    """Torch's gate order i, f, g, o -> MIL's i, f, o, g."""
    i, f, g, o = np.split(weight, 4)
    return np.concatenate([i, f, o, g])


LOWERING = lower
