"""`edgeseq::rnn` for TFLite: what one step of a plain recurrent network computes; `_stack.py` runs it.

Letters: B batch, L layers, D directions (1 or 2), H hidden width.
"""

from collections.abc import Sequence
from functools import partial

from edgeseq.converters.tflite._emit import unary
from edgeseq.converters.tflite._graph import Graph, Value
from edgeseq.converters.tflite._layer import Layer, Weights, array, summed
from edgeseq.converters.tflite._site import Site
from edgeseq.converters.tflite._stack import run_stack


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


def _layer(rows: Sequence[Weights], activation: str) -> Layer:
    """w_ih, w_hh, b_ih, b_hh of each row -> the layer."""

    def cell(graph: Graph, sums: Sequence[Value], states: list[Value]) -> list[Value]:
        """Elman 1990."""
        del states
        return [unary(graph, activation, sums[0])]

    return Layer(
        width=array(rows[0][1]).shape[1],
        inputs=[w_ih for w_ih, *_ in rows],
        biases=[summed(b_ih, b_hh) for _, _, b_ih, b_hh in rows],
        recurrent=[w_hh for _, w_hh, _, _ in rows],
        takes_sum=True,
        cell=cell,
    )


LOWERING = rnn
