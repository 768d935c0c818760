"""`edgeseq::rnn` for TFLite: what one step of a plain recurrent network computes; `_recurrence.py` has the loops.

Letters: B batch, D directions (1 or 2), H hidden width.
"""

from collections.abc import Sequence
from functools import partial

from edgeseq.converters.tflite._emit import binary, unary
from edgeseq.converters.tflite._graph import Graph, Value
from edgeseq.converters.tflite._recurrence import Layer
from edgeseq.converters.tflite._site import Site
from edgeseq.converters.tflite._stack import Directions, array, input_half, products, run_stack


def rnn(
    site: Site,
    x: Value,
    h0: Value,
    lengths: Value | None,
    weights: Sequence[Value],
    num_layers: int,
    bidirectional: bool,
    nonlinearity: str,
) -> list[Value]:
    """X (B, T, I), h0 (L*D, B, H) -> y (B, T, D*H), hn (L*D, B, H)."""
    make_layer = partial(_layer, activation=nonlinearity.upper())
    return run_stack(site, make_layer, x, [h0], lengths, weights, num_layers, bidirectional)


def _layer(directions: Directions, activation: str) -> Layer:
    recurrent = [w_hh for _, w_hh, _, _ in directions]

    def step(graph: Graph, gates: Value, states: list[Value]) -> list[Value]:
        """Elman 1990."""
        return [unary(graph, activation, binary(graph, "ADD", products(graph, states[0], recurrent), gates))]

    weight, bias = input_half(directions, [array(b_ih) + array(b_hh) for _, _, b_ih, b_hh in directions])
    width = array(recurrent[0]).shape[1]
    return Layer(directions=len(directions), width=width, input_weight=weight, bias=bias, step=step)


LOWERING = rnn
