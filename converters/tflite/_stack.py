"""Layers of a recurrent operator one upon another, whatever its gates.

Letters: T time, B batch, L layers, D directions (1 or 2), H hidden width, G numbers that a step's gates need of its input.
"""

from collections.abc import Callable, Sequence

import numpy as np

from edgeseq.converters.tflite import _emit
from edgeseq.converters.tflite._emit import split
from edgeseq.converters.tflite._graph import Graph, Value, constant
from edgeseq.converters.tflite._recurrence import Layer, run_layer
from edgeseq.converters.tflite._site import Site
from edgeseq.converters.tflite.matmul import fully_connected
from edgeseq.errors import UnsupportedError

Directions = Sequence[Sequence[Value]]  # the weights of each direction of a layer, in the operator's order


def run_stack(
    site: Site,
    make_layer: Callable[[Directions], Layer],
    x: Value,
    states: Sequence[Value],
    lengths: Value | None,
    weights: Sequence[Value],
    num_layers: int,
    bidirectional: bool,
) -> list[Value]:
    """X (B, T, I), states, each (L*D, B, its width) -> y (B, T, D*H), states.

    Raises:
        UnsupportedError: Weights are computed from inputs, or rows of a batch have lengths of their own.
    """
    graph, d = site.graph, 2 if bidirectional else 1
    if lengths is not None and x.shape[0] != 1:
        raise UnsupportedError(
            f"converter 'tflite' lowers a recurrent layer with lengths for a batch of 1 only, not of {x.shape[0]}; make "
            "the batch a dynamic dimension: the file then holds a batch of 1"
        )
    if any(weight.data is None for weight in weights):
        raise UnsupportedError(
            "converter 'tflite' lowers a recurrent layer with constant weights only; these are computed from inputs"
        )
    per_row = len(weights) // (num_layers * d)
    final = []
    for first in range(0, num_layers * d, d):
        layer = make_layer([weights[row * per_row : (row + 1) * per_row] for row in range(first, first + d)])
        initial = [_emit.slice_axis(graph, state, 0, first, d) for state in states]
        needs_outputs = first < (num_layers - 1) * d or site.is_used[0]
        x, after = run_layer(graph, layer, x, initial, lengths, needs_outputs=needs_outputs)
        final.append(after)
    return [x, *(_emit.concatenate(graph, list(parts), 0) for parts in zip(*final, strict=True))]


def array(weight: Value) -> np.ndarray:
    """The numbers of a weight."""
    assert weight.data is not None, "run_stack lets constants through only"
    return weight.data


def input_half(directions: Directions, biases: Sequence[np.ndarray]) -> tuple[Value, Value]:
    """The weights w_ih of all directions (D*G, I), and their biases (D*G,)."""
    first = directions[0]
    return (
        constant(np.concatenate([array(direction[0]) for direction in directions]), name=first[0].name),
        constant(np.concatenate(list(biases)), name=first[2].name),
    )


def products(graph: Graph, h: Value, weights: Sequence[Value], biases: Sequence[Value | None] | None = None) -> Value:
    """H (D*B, P) times each direction's weight (G, P) -> (D*B, G)."""
    parts = split(graph, h, 0, len(weights))
    added = biases or [None] * len(weights)
    results = [fully_connected(graph, *inputs) for inputs in zip(parts, weights, added, strict=True)]
    return _emit.concatenate(graph, results, 0)
