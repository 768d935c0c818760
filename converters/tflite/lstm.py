"""`edgeseq::lstm` for TFLite: what one step of an LSTM computes; `recurrence.py` has the loops around it.

A step is one matrix product a direction, one LOGISTIC over all four gates, and a few sums and products: tanh(g) is
2·sigmoid(2g) - 1, with the inner 2 in the weights.

Letters: B batch, D directions (1 or 2), H hidden width, G = 4H gates in torch's order i, f, g, o.
"""

from collections.abc import Sequence

import numpy as np

from edgeseq.converters.tflite import _emit
from edgeseq.converters.tflite._emit import binary, scalar, split, unary
from edgeseq.converters.tflite._graph import Graph, Value, constant
from edgeseq.converters.tflite._site import Site
from edgeseq.converters.tflite.matmul import fully_connected
from edgeseq.converters.tflite.recurrence import Layer, run_layer
from edgeseq.errors import UnsupportedError


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
    graph, d = site.graph, 2 if bidirectional else 1
    if lengths is not None and x.shape[0] != 1:
        raise UnsupportedError(
            f"converter 'tflite' lowers an LSTM with lengths for a batch of 1 only, not of {x.shape[0]}; make the "
            "batch a dynamic dimension: the file then holds a batch of 1"
        )
    hidden, cells = [], []
    for number in range(num_layers):
        layer = _layer(weights[4 * d * number : 4 * d * (number + 1)])
        states = [_emit.slice_axis(graph, state, 0, d * number, d) for state in (h0, c0)]
        needs_outputs = number < num_layers - 1 or site.is_used[0]
        x, (h, c) = run_layer(graph, layer, x, states, lengths, needs_outputs=needs_outputs)
        hidden.append(h)
        cells.append(c)
    return [x, _emit.concatenate(graph, hidden, 0), _emit.concatenate(graph, cells, 0)]


def _layer(weights: Sequence[Value]) -> Layer:
    """w_ih, w_hh, b_ih, b_hh of each direction -> the layer."""
    arrays = [value.data for value in weights if value.data is not None]
    if len(arrays) != len(weights):
        raise UnsupportedError(
            "converter 'tflite' lowers an LSTM with constant weights only; these are computed from inputs"
        )
    width = arrays[1].shape[1]
    factor = np.repeat(np.float32([1, 1, 2, 1]), width)  # of the gates: g's product is doubled
    inputs = np.concatenate([array * factor[:, None] for array in arrays[0::4]])
    bias = np.concatenate([(b_ih + b_hh) * factor for b_ih, b_hh in zip(arrays[2::4], arrays[3::4], strict=True)])
    recurrent = [
        constant(array * factor[:, None], name=value.name)
        for array, value in zip(arrays[1::4], weights[1::4], strict=True)
    ]

    def step(graph: Graph, gates: Value, states: list[Value]) -> list[Value]:
        """Hochreiter and Schmidhuber 1997, with forget gates."""
        h, c = states
        parts = zip(split(graph, h, 0, len(recurrent)), recurrent, strict=True)
        products = _emit.concatenate(graph, [fully_connected(graph, part, w, None) for part, w in parts], 0)
        squashed = unary(graph, "LOGISTIC", binary(graph, "ADD", products, gates))
        i, f, half_g, o = split(graph, squashed, 1, 4)
        g = binary(graph, "SUB", binary(graph, "MUL", half_g, scalar(2, half_g)), scalar(1, half_g))
        c = binary(graph, "ADD", binary(graph, "MUL", f, c), binary(graph, "MUL", i, g))
        return [binary(graph, "MUL", o, unary(graph, "TANH", c)), c]

    return Layer(
        directions=len(recurrent),
        width=width,
        input_weight=constant(inputs, name=weights[0].name),
        bias=constant(bias, name=weights[2].name),
        step=step,
        n_recurrent=sum(array.size for array in arrays[1::4]),
    )
