"""Layers of a recurrent operator one upon another, whatever its gates.

Letters: T time, B batch, L layers, D directions (1 or 2), P output width.
"""

from collections.abc import Callable, Sequence

from edgeseq.converters.tflite import _emit
from edgeseq.converters.tflite._graph import Value
from edgeseq.converters.tflite._layer import Layer, Weights
from edgeseq.converters.tflite._recurrence import run_layer
from edgeseq.converters.tflite._site import Site
from edgeseq.converters.tflite._wavefront import Pair
from edgeseq.errors import UnsupportedError

MakeLayer = Callable[[Sequence[Weights]], Layer]  # from the weights of each row


def run_stack(
    site: Site,
    make_layer: MakeLayer,
    x: Value,
    states: Sequence[Value],
    lengths: Value | None,
    weights: Sequence[Value],
    num_layers: int,
    bidirectional: bool,
) -> list[Value]:
    """X (B, T, I), states, each (L*D, B, its width) -> y (B, T, D*P), states.

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
    rows = [weights[first : first + per_row] for first in range(0, len(weights), per_row)]
    final, done = [], 0
    while done < len(rows):
        pair = None if bidirectional else _pair(make_layer, rows[done : done + 2], x)
        count = d if pair is None else 2
        initial = [_emit.slice_axis(graph, state, 0, done, count) for state in states]
        needs_outputs = done + count < len(rows) or site.is_used[0]
        if pair is None:
            layer = make_layer(rows[done : done + d])
            x, after = run_layer(graph, layer, x, initial, lengths, needs_outputs=needs_outputs)
        else:
            x, after = pair.run(graph, x, initial, lengths, needs_outputs=needs_outputs)
        final.append(after)
        done += count
    return [x, *(_emit.concatenate(graph, list(parts), 0) for parts in zip(*final, strict=True))]


def _pair(make_layer: MakeLayer, rows: Sequence[Weights], x: Value) -> Pair | None:
    """The next two layers, if there are two and they are better run side by side."""
    if len(rows) < 2 or x.shape[0] != 1:
        return None
    pair = Pair(first=make_layer(rows[:1]), second=make_layer(rows[1:]), both=make_layer(rows))
    return pair if pair.pays() else None
