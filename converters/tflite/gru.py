"""`edgeseq::gru` for TFLite: what one step of a GRU computes; `_recurrence.py` has the loops around it.

Letters: B batch, D directions (1 or 2), H hidden width, G = 3H gates in torch's order r, z, n.
"""

from collections.abc import Sequence

import numpy as np

from edgeseq.converters.tflite._emit import binary, slice_axis, split, unary
from edgeseq.converters.tflite._graph import Graph, Value, constant
from edgeseq.converters.tflite._recurrence import Layer
from edgeseq.converters.tflite._site import Site
from edgeseq.converters.tflite._stack import Directions, array, input_half, products, run_stack


def gru(
    site: Site,
    x: Value,
    h0: Value,
    lengths: Value | None,
    weights: Sequence[Value],
    num_layers: int,
    bidirectional: bool,
) -> list[Value]:
    """X (B, T, I), h0 (L*D, B, H) -> y (B, T, D*H), hn (L*D, B, H)."""
    return run_stack(site, _layer, x, [h0], lengths, weights, num_layers, bidirectional)


def _layer(directions: Directions) -> Layer:
    """The biases of r and z go to the input half; that of n belongs to the product that r multiplies."""
    width = array(directions[0][1]).shape[1]
    is_inner = np.repeat([False, False, True], width)
    outer, inner = [], []
    for *_, b_ih, b_hh in directions:
        outer.append(array(b_ih) + np.where(is_inner, 0, array(b_hh)))
        inner.append(constant(np.where(is_inner, array(b_hh), 0), name=b_hh.name))
    recurrent = [w_hh for _, w_hh, _, _ in directions]

    def step(graph: Graph, gates: Value, states: list[Value]) -> list[Value]:
        """Cho et al. 2014, with the reset after the product."""
        (h,) = states
        product = products(graph, h, recurrent, inner)  # (D*B, 3H)
        both = [slice_axis(graph, half, 1, 0, 2 * width) for half in (product, gates)]
        r, z = split(graph, unary(graph, "LOGISTIC", binary(graph, "ADD", *both)), 1, 2)
        from_h, from_x = (slice_axis(graph, half, 1, 2 * width, width) for half in (product, gates))
        n = unary(graph, "TANH", binary(graph, "ADD", from_x, binary(graph, "MUL", r, from_h)))
        return [binary(graph, "ADD", n, binary(graph, "MUL", z, binary(graph, "SUB", h, n)))]

    weight, bias = input_half(directions, outer)
    return Layer(directions=len(directions), width=width, input_weight=weight, bias=bias, step=step)


LOWERING = gru
