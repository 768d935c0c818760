"""`edgeseq::lstm` with projected outputs for TFLite: what one step computes; `_recurrence.py` has the loops around it.

Letters: B batch, D directions (1 or 2), H hidden width, P output width, G = 4H gates in torch's order i, f, g, o.
"""

from collections.abc import Sequence

from edgeseq.converters.tflite._emit import binary, split, unary
from edgeseq.converters.tflite._graph import Graph, Value
from edgeseq.converters.tflite._recurrence import Layer
from edgeseq.converters.tflite._site import Site
from edgeseq.converters.tflite._stack import Directions, array, input_half, products, run_stack


def projected_lstm(
    site: Site,
    x: Value,
    h0: Value,
    c0: Value,
    lengths: Value | None,
    weights: Sequence[Value],
    num_layers: int,
    bidirectional: bool,
) -> list[Value]:
    """X (B, T, I), h0 (L*D, B, P), c0 (L*D, B, H) -> y (B, T, D*P), hn (L*D, B, P), cn (L*D, B, H)."""
    return run_stack(site, _layer, x, [h0, c0], lengths, weights, num_layers, bidirectional)


def _layer(directions: Directions) -> Layer:
    recurrent, down = ([direction[number] for direction in directions] for number in (1, 4))

    def step(graph: Graph, gates: Value, states: list[Value]) -> list[Value]:
        """Sak et al. 2014, without peepholes."""
        h, c = states
        i, f, g, o = split(graph, binary(graph, "ADD", products(graph, h, recurrent), gates), 1, 4)
        i, f, o = (unary(graph, "LOGISTIC", gate) for gate in (i, f, o))
        c = binary(graph, "ADD", binary(graph, "MUL", f, c), binary(graph, "MUL", i, unary(graph, "TANH", g)))
        return [products(graph, binary(graph, "MUL", o, unary(graph, "TANH", c)), down), c]

    weight, bias = input_half(directions, [array(b_ih) + array(b_hh) for _, _, b_ih, b_hh, _ in directions])
    width = array(down[0]).shape[0]
    return Layer(directions=len(directions), width=width, input_weight=weight, bias=bias, step=step)
