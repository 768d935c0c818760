"""`edgeseq::lstm` for TFLite: what one step of an LSTM computes; `_recurrence.py` has the loops around it.

A step is one matrix product a direction, one LOGISTIC over all four gates, and a few sums and products: tanh(g) is
2·sigmoid(2g) - 1, with the inner 2 in the weights.

Letters: B batch, D directions (1 or 2), H hidden width, G = 4H gates in torch's order i, f, g, o.
"""

from collections.abc import Sequence

import numpy as np

from edgeseq.converters.tflite._emit import binary, scalar, split, unary
from edgeseq.converters.tflite._graph import Graph, Value, constant
from edgeseq.converters.tflite._projected_lstm import projected_lstm
from edgeseq.converters.tflite._recurrence import Layer
from edgeseq.converters.tflite._site import Site
from edgeseq.converters.tflite._stack import Directions, array, products, run_stack

WEIGHTS_IF_PROJECTED = 5  # of a layer and direction


def lstm(
    site: Site,
    x: Value,
    h0: Value,
    c0: Value,
    lengths: Value | None,
    weights: Sequence[Value],
    num_layers: int,
    bidirectional: bool,
) -> list[Value]:
    """X (B, T, I), h0 and c0 (L*D, B, H) -> y (B, T, D*H), hn, cn (L*D, B, H)."""
    if len(weights) == WEIGHTS_IF_PROJECTED * num_layers * (2 if bidirectional else 1):
        return projected_lstm(site, x, h0, c0, lengths, weights, num_layers, bidirectional)
    return run_stack(site, _layer, x, [h0, c0], lengths, weights, num_layers, bidirectional)


def _layer(directions: Directions) -> Layer:
    """w_ih, w_hh, b_ih, b_hh of each direction -> the layer."""
    width = array(directions[0][1]).shape[1]
    factor = np.repeat(np.array([1, 1, 2, 1], np.float32), width)  # of the gates: g's product is doubled
    inputs = np.concatenate([array(w_ih) * factor[:, None] for w_ih, *_ in directions])
    bias = np.concatenate([(array(b_ih) + array(b_hh)) * factor for _, _, b_ih, b_hh in directions])
    recurrent = [constant(array(w_hh) * factor[:, None], name=w_hh.name) for _, w_hh, _, _ in directions]

    def step(graph: Graph, gates: Value, states: list[Value]) -> list[Value]:
        """Hochreiter and Schmidhuber 1997, with forget gates."""
        h, c = states
        squashed = unary(graph, "LOGISTIC", binary(graph, "ADD", products(graph, h, recurrent), gates))
        i, f, half_g, o = split(graph, squashed, 1, 4)
        g = binary(graph, "SUB", binary(graph, "MUL", half_g, scalar(2, half_g)), scalar(1, half_g))
        c = binary(graph, "ADD", binary(graph, "MUL", f, c), binary(graph, "MUL", i, g))
        return [binary(graph, "MUL", o, unary(graph, "TANH", c)), c]

    return Layer(
        directions=len(directions),
        width=width,
        input_weight=constant(inputs, name=directions[0][0].name),
        bias=constant(bias, name=directions[0][2].name),
        step=step,
    )


LOWERING = lstm
