"""`edgeseq::lstm` with projected outputs for TFLite: what one step computes; `_stack.py` runs it.

Letters: B batch, L layers, D directions (1 or 2), H hidden width, P output width, G = 4H gates in torch's order i, f, g, o.
"""

from collections.abc import Sequence

from edgeseq.converters.tflite._emit import binary, split, unary
from edgeseq.converters.tflite._graph import Graph, Value
from edgeseq.converters.tflite._layer import Layer, Weights, array, products, summed
from edgeseq.converters.tflite._site import Site
from edgeseq.converters.tflite._stack import run_stack


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


def _layer(rows: Sequence[Weights]) -> Layer:
    """w_ih, w_hh, b_ih, b_hh, w_hr of each row -> the layer."""
    down = [row[4] for row in rows]

    def cell(graph: Graph, sums: Sequence[Value], states: list[Value]) -> list[Value]:
        """Sak et al. 2014, without peepholes."""
        _, c = states
        i, f, g, o = split(graph, sums[0], 1, 4)
        i, f, o = (unary(graph, "LOGISTIC", gate) for gate in (i, f, o))
        c = binary(graph, "ADD", binary(graph, "MUL", f, c), binary(graph, "MUL", i, unary(graph, "TANH", g)))
        return [products(graph, binary(graph, "MUL", o, unary(graph, "TANH", c)), down), c]

    return Layer(
        width=array(down[0]).shape[0],
        inputs=[row[0] for row in rows],
        biases=[summed(*row[2:4]) for row in rows],
        recurrent=[row[1] for row in rows],
        takes_sum=True,
        cell=cell,
    )
