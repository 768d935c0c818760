"""`edgeseq::lstm` for TFLite: what one step of an LSTM computes; `_stack.py` runs it.

A step is a matrix product of its own for each row, one LOGISTIC over all four gates, and a few sums and products: tanh(g) is
2·sigmoid(2g) - 1, with the inner 2 in the weights.

Letters: B batch, H hidden width, G = 4H gates in torch's order i, f, g, o.
"""

from collections.abc import Sequence

import numpy as np

from edgeseq.converters.tflite._emit import binary, scalar, split, unary
from edgeseq.converters.tflite._graph import Graph, Value, constant
from edgeseq.converters.tflite._layer import Layer, Weights, array, is_zero, summed
from edgeseq.converters.tflite._projected_lstm import projected_lstm
from edgeseq.converters.tflite._site import Site
from edgeseq.converters.tflite._stack import run_stack

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


def _layer(rows: Sequence[Weights]) -> Layer:
    """w_ih, w_hh, b_ih, b_hh of each row -> the layer."""
    factor = np.repeat(np.array([1, 1, 2, 1], np.float32), array(rows[0][1]).shape[1])  # of the gates: g's is doubled
    return Layer(
        width=array(rows[0][1]).shape[1],
        inputs=[constant(array(w_ih) * factor[:, None], name=w_ih.name) for w_ih, *_ in rows],
        biases=[constant(array(summed(*row[2:])) * factor, name=row[2].name) for row in rows],
        recurrent=[constant(array(w_hh) * factor[:, None], name=w_hh.name) for _, w_hh, _, _ in rows],
        takes_sum=True,
        cell=_cell,
    )


def _cell(graph: Graph, sums: Sequence[Value], states: list[Value]) -> list[Value]:
    """Hochreiter and Schmidhuber 1997, with forget gates."""
    _, c = states
    i, f, half_g, o = split(graph, unary(graph, "LOGISTIC", sums[0]), 1, 4)
    g = binary(graph, "SUB", binary(graph, "MUL", half_g, scalar(2, half_g)), scalar(1, half_g))
    added = binary(graph, "MUL", i, g)
    c = added if is_zero(c) else binary(graph, "ADD", binary(graph, "MUL", f, c), added)
    return [binary(graph, "MUL", o, unary(graph, "TANH", c)), c]


LOWERING = lstm
