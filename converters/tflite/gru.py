"""`edgeseq::gru` for TFLite: what one step of a GRU computes; `_stack.py` runs it.

Letters: B batch, L layers, D directions (1 or 2), H hidden width, G = 3H gates in torch's order r, z, n.
"""

from collections.abc import Sequence

import numpy as np

from edgeseq.converters.tflite._emit import binary, slice_axis, split, unary
from edgeseq.converters.tflite._graph import Graph, Value, constant
from edgeseq.converters.tflite._layer import Layer, Weights, array, products, summed
from edgeseq.converters.tflite._site import Site
from edgeseq.converters.tflite._stack import run_stack


def gru(
    site: Site,
    x: Value,
    h0: Value,
    lengths: Value | None,
    weights: Sequence[Value],
    num_layers: int,
    bidirectional: bool,
    reset_after: bool = True,
) -> list[Value]:
    """X (B, T, I), h0 (L*D, B, H) -> y (B, T, D*H), hn (L*D, B, H)."""
    make_layer = _reset_after if reset_after else _reset_before
    return run_stack(site, make_layer, x, [h0], lengths, weights, num_layers, bidirectional)


def _reset_after(rows: Sequence[Weights]) -> Layer:
    """The biases of r and z go to the input half; that of n belongs to the product that r multiplies."""
    width = array(rows[0][1]).shape[1]
    is_inner = np.repeat([False, False, True], width)
    return Layer(
        width=width,
        inputs=[w_ih for w_ih, *_ in rows],
        biases=[summed(b_ih, constant(np.where(is_inner, 0, array(b_hh)))) for _, _, b_ih, b_hh in rows],
        recurrent=[w_hh for _, w_hh, _, _ in rows],
        inner_biases=[constant(np.where(is_inner, array(b_hh), 0), name=b_hh.name) for *_, b_hh in rows],
        takes_sum=False,
        cell=_cell_with_reset_after,
    )


def _reset_before(rows: Sequence[Weights]) -> Layer:
    """The product of n waits for r, so that the cell computes it."""
    width = array(rows[0][1]).shape[1]
    outer, inner = (
        [constant(array(w_hh)[part], name=w_hh.name) for _, w_hh, *_ in rows]
        for part in (slice(2 * width), slice(2 * width, None))
    )

    def cell(graph: Graph, halves: Sequence[Value], states: list[Value]) -> list[Value]:
        """Cho et al. 2014, with the reset before the product."""
        (h,) = states
        r, z = _reset_and_update(graph, halves, width)
        product = products(graph, binary(graph, "MUL", r, h), inner)
        return [_mixed(graph, h, z, binary(graph, "ADD", slice_axis(graph, halves[0], 1, 2 * width, width), product))]

    return Layer(
        width=width,
        inputs=[w_ih for w_ih, *_ in rows],
        biases=[summed(b_ih, b_hh) for _, _, b_ih, b_hh in rows],
        recurrent=outer,
        takes_sum=False,
        cell=cell,
    )


def _cell_with_reset_after(graph: Graph, halves: Sequence[Value], states: list[Value]) -> list[Value]:
    """Cho et al. 2014, with the reset after the product."""
    (h,) = states
    width = int(h.shape[1])
    r, z = _reset_and_update(graph, halves, width)
    from_input, from_output = (slice_axis(graph, half, 1, 2 * width, width) for half in halves)
    return [_mixed(graph, h, z, binary(graph, "ADD", from_input, binary(graph, "MUL", r, from_output)))]


def _reset_and_update(graph: Graph, halves: Sequence[Value], width: int) -> list[Value]:
    """The gates r and z, each (D*B, H)."""
    both = [half if half.shape[1] == 2 * width else slice_axis(graph, half, 1, 0, 2 * width) for half in halves]
    return split(graph, unary(graph, "LOGISTIC", binary(graph, "ADD", *both)), 1, 2)


def _mixed(graph: Graph, h: Value, z: Value, new: Value) -> Value:
    """The next h: as much of the last one as z lets through, the rest tanh of the new."""
    n = unary(graph, "TANH", new)
    return binary(graph, "ADD", n, binary(graph, "MUL", z, binary(graph, "SUB", h, n)))


LOWERING = gru
