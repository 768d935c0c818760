"""`edgeseq::gru` in MIL: one `gru` op per layer and direction.

MIL computes o = tanh(W x + b + r * (R h)); torch has a bias within the last bracket. A hidden unit that never changes
brings it: its update gate is saturated, so that it keeps its initial value, and its column of R is the bias.

Letters: B batch, T time, D directions (1 or 2), H hidden width, I input width, L layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.frontend.torch import ops as torch_ops
from coremltools.converters.mil.mil import Var

from edgeseq.converters.coreml import _recurrence
from edgeseq.converters.coreml._recurrence import Result, filled, initial

HOLD = 1e4  # saturates a sigmoid


@dataclass(frozen=True, kw_only=True)
class Direction:
    """One direction of one layer, gates in MIL's order r, o, z. `constant` is the value of the unit that never changes."""

    weight_ih: np.ndarray  # (3H, I), or (3(H + 1), I)
    weight_hh: np.ndarray  # (3H, H), or (3(H + 1), H + 1)
    bias: np.ndarray  # (3H,), or (3(H + 1),)
    constant: float | None  # None: there is none


def lower(context: Any, node: Any) -> None:
    """Translate one `edgeseq::gru` node; the signature and its meaning are in edgeseq/operators/gru.py."""
    x, h0, lengths, weights, num_layers, bidirectional = torch_ops._get_inputs(context, node, expected=6)
    x = _recurrence.time_first(x)
    padding = _recurrence.padding_of(x, lengths)

    def layer(x: Var, rows: Sequence[int]) -> Result:
        runs = [
            partial(_run, h=initial(x, h0, row), direction=_direction(*(w.val for w in weights[4 * row : 4 * row + 4])))
            for row in rows
        ]
        return _recurrence.run_directions(x, runs, padding)

    _recurrence.lower_layers(context, node, layer, x, num_layers.val, 2 if bidirectional.val else 1)


def _run(x: Var, h: Var, direction: Direction) -> tuple[Var, Var]:
    """From x (T, B, I), h (B, H) -> y (T, B, H), h (B, H)."""
    width = h.shape[-1]
    if direction.constant is not None:
        h = mb.concat(values=[h, filled(x, 1, direction.constant)], axis=-1)  # (B, H + 1)
    y, h = mb.gru(
        x=x,
        initial_h=h,
        weight_ih=direction.weight_ih,
        weight_hh=direction.weight_hh,
        bias=direction.bias,
        direction="forward",
        output_sequence=True,
    )
    if direction.constant is not None:
        y = mb.slice_by_size(x=y, begin=[0, 0, 0], size=[-1, -1, width])
        h = mb.slice_by_size(x=h, begin=[0, 0], size=[-1, width])
    return y, h


def _direction(w_ih: np.ndarray, w_hh: np.ndarray, b_ih: np.ndarray, b_hh: np.ndarray) -> Direction:
    """From torch's weights of one direction, gates in the order r, z, n."""
    b_r, b_z, inner = np.split(b_hh, 3)
    bias = b_ih + np.concatenate([b_r, b_z, np.zeros_like(inner)])
    inputs, recurrent, biases = (list(np.split(weight, 3)) for weight in (w_ih, w_hh, bias))
    constant = None
    if inner.any():
        constant = _constant(inner, recurrent[2])
        inputs = [np.pad(gate, ((0, 1), (0, 0))) for gate in inputs]
        recurrent = [np.pad(gate, ((0, 1), (0, 1))) for gate in recurrent]
        recurrent[2][:-1, -1] = inner / constant
        biases = [np.append(gate, np.float32(HOLD if index == 1 else 0)) for index, gate in enumerate(biases)]
    r, z, n = 0, 1, 2
    weight_ih, weight_hh, bias = (
        np.concatenate([gates[r], gates[n], gates[z]]) for gates in (inputs, recurrent, biases)
    )
    return Direction(weight_ih=weight_ih, weight_hh=weight_hh, bias=bias, constant=constant)


def _constant(inner: np.ndarray, recurrent: np.ndarray) -> float:
    """A power of two that makes the column no larger than the rows it joins, so that integers round them no worse."""
    largest = np.maximum(np.abs(recurrent).max(axis=1), 0.01)  # (H,)
    return float(2.0 ** np.ceil(np.log2(np.maximum(np.abs(inner) / largest, 1).max())))


LOWERING = lower
