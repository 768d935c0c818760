"""`edgeseq::rnn` in MIL: one `rnn` op per layer and direction."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.frontend.torch import ops as torch_ops
from coremltools.converters.mil.mil import Var

from edgeseq.converters.coreml import _recurrence
from edgeseq.converters.coreml._recurrence import Result, initial


def lower(context: Any, node: Any) -> None:
    """Translate one `edgeseq::rnn` node; the signature and its meaning are in edgeseq/operators/rnn.py."""
    inputs = torch_ops._get_inputs(context, node, expected=7)
    x, h0, lengths, weights, num_layers, bidirectional, _ = inputs
    x = _recurrence.time_first(x)
    padding = _recurrence.padding_of(x, lengths)

    def layer(x: Var, rows: Sequence[int]) -> Result:
        runs = [
            partial(
                _run,
                h=initial(x, h0, row),
                weights=[weight.val for weight in weights[4 * row : 4 * row + 4]],
                activation=node.inputs[6],  # as it is written: among the values, "tanh" may be the name of another node
            )
            for row in rows
        ]
        return _recurrence.run_directions(x, runs, padding)

    _recurrence.lower_layers(context, node, layer, x, num_layers.val, 2 if bidirectional.val else 1)


def _run(x: Var, h: Var, weights: Sequence[np.ndarray], activation: str) -> tuple[Var, Var]:
    """From x (T, B, I), h (B, H) -> y (T, B, H), h (B, H)."""
    w_ih, w_hh, b_ih, b_hh = weights
    y, h = mb.rnn(
        x=x,
        initial_h=h,
        weight_ih=w_ih,
        weight_hh=w_hh,
        bias=b_ih + b_hh,
        direction="forward",
        output_sequence=True,
        activation=activation,
    )
    return y, h


LOWERING = lower
