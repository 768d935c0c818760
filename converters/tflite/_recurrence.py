"""A recurrent layer, whatever its gates: `lstm.py` and others say what one step computes.

The input half of all gates is one matrix product outside the loops. Both directions of a layer run in one loop, as rows
of the same tensors, so that a step costs few operators; states are carried from step to step and start as given.

Letters: T time, B batch, D directions (1 or 2), I input width, P output width, G gates' width.
"""

from collections.abc import Sequence

import numpy as np

from edgeseq.converters.tflite._emit import reshape, transpose
from edgeseq.converters.tflite._graph import Graph, Value, constant
from edgeseq.converters.tflite._layer import Layer, array
from edgeseq.converters.tflite._loops import Loops
from edgeseq.converters.tflite.matmul import fully_connected


def run_layer(
    graph: Graph, layer: Layer, x: Value, states: Sequence[Value], lengths: Value | None, *, needs_outputs: bool
) -> tuple[Value, list[Value]]:
    """X (B, T, I), states, each (D, B, its width) -> y (B, T, D*P), states. Without need, y is x.

    Steps from a row's length on change no state, and their outputs are zero; the backward direction starts at the row's
    last valid step. Lengths (B,) are for a batch of 1 only.
    """
    d, width, n_gates = layer.rows, layer.width, layer.n_gates
    batch, time = x.shape[0], x.shape[1]
    assert isinstance(batch, int), "the file's batch is fixed"
    gates = _gates(graph, layer, transpose(graph, x, (1, 0, 2)))  # (T, B, D*G)
    gates = transpose(graph, reshape(graph, gates, (time, batch, d, n_gates)), (0, 2, 1, 3))  # (T, D, B, G)
    carried = [reshape(graph, state, (d * batch, state.shape[2])) for state in states]

    def run_round(body: Graph, rows: Value, before: list[Value]) -> tuple[list[Value], Value]:
        after = layer.step(body, reshape(body, rows, (d * batch, n_gates)), before)
        return after, after[0]

    if time == 1:
        carried, output = run_round(graph, gates, carried)
        outputs = reshape(graph, output, (1, d, batch, width))
    else:
        size = d * batch * width
        loops = Loops(run_round=run_round, directions=d, size=size, time=time, lengths=lengths)
        start = loops.start(graph, reshape(graph, gates, (time * d, batch * n_gates)), carried)
        end = loops.collect(graph, start) if needs_outputs else loops.steps(graph, start)
        carried = end.states
        outputs = reshape(graph, loops.in_order(graph, end), (time, d, batch, width)) if needs_outputs else x
    if needs_outputs:
        outputs = reshape(graph, transpose(graph, outputs, (2, 0, 1, 3)), (batch, time, d * width))
    final = [reshape(graph, state, (d, batch, state.shape[1])) for state in carried]
    return (outputs if needs_outputs else x), final


def _gates(graph: Graph, layer: Layer, x: Value) -> Value:
    """X (T, B, I) times the input weights of all directions -> (T, B, D*G)."""
    weight, bias = (
        constant(np.concatenate([array(part) for part in parts]), name=parts[0].name)
        for parts in (layer.inputs, layer.biases)
    )
    return fully_connected(graph, x, weight, bias)
