"""A sequence given to a signature with states in chunks, which must come to what it gives for the whole at once."""

from collections.abc import Sequence

import numpy as np

from edgeseq.signature import Signature, Tensors
from edgeseq.stream import Stream


def sequence_dim(signature: Signature) -> str | None:
    """The dimension that chunks divide: the first that varies of an input that is no state, and no state has it.

    None: the signature has no states, or takes a fixed number of steps.
    """
    of_states = {size for name in signature.state_inputs for size in signature.input(name).shape}
    varying = {dim.name for dim in signature.dims} - of_states
    fed = [spec for spec in signature.inputs if spec.name not in hidden_inputs(signature)]
    return next((str(size) for spec in fed for size in spec.shape if size in varying and signature.states), None)


def hidden_inputs(signature: Signature) -> set[str]:
    """The inputs that a stream feeds by itself: states, and the positions in them."""
    positions = {state.position for state in signature.states if state.position is not None}
    return {*signature.state_inputs, *positions}


def state_sizes(signature: Signature, inputs: Tensors) -> dict[str, int]:
    """Sizes of the dimensions of states, as these inputs have them, else the smallest; capacities grow by themselves."""
    known = {
        str(size): value.shape[axis]
        for name, value in inputs.items()
        for axis, size in enumerate(signature.input(name).shape)
        if isinstance(size, str)
    }
    smallest = {dim.name: dim.min for dim in signature.dims}
    wanted = {
        size
        for state in signature.states
        for axis, size in enumerate(signature.input(state.input).shape)
        if isinstance(size, str) and axis != state.axis
    }
    return {size: known.get(size, smallest.get(size, 1)) for size in sorted(wanted)}


def random_lengths(total: int, least: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Lengths of at least two chunks of a whole of `total` where that is long enough, none shorter than `least`."""
    lengths, left = [], total
    while left >= 2 * least:
        longest = max(least, min(left - least, total // 2))
        lengths.append(int(rng.integers(least, longest + 1)))
        left -= lengths[-1]
    return (*lengths, left) if left else tuple(lengths)


def in_chunks(stream: Stream, name: str, inputs: Tensors, lengths: Sequence[int]) -> dict[str, np.ndarray]:
    """Outputs over all chunks, and the states that the last one leaves, of those that are not caches.

    A chunk of one step is run by the case of the signature that is made for it, where there is one. Of an output without
    the sequence's dimension, such as the logits of the next token, the last chunk's counts; one that has it twice is left
    out, since chunks give its diagonal only.
    """
    signature = stream.signatures[name]
    dim = sequence_dim(signature)
    axes = {spec.name: spec.shape.index(dim) for spec in signature.inputs if dim in spec.shape}
    step = _step(stream, signature, axes)
    parts, start = [], 0
    for length in lengths:
        rows = range(start, start + length)
        part = {key: value.take(rows, axes[key]) if key in axes else value for key, value in inputs.items()}
        parts.append(stream.run(part, step if length == 1 else name))
        start += length
    stream.recall()
    joined = {
        spec.name: np.concatenate([part[spec.name] for part in parts], spec.shape.index(dim))
        if dim in spec.shape
        else parts[-1][spec.name]
        for spec in signature.outputs
        if spec.name in parts[0] and spec.shape.count(str(dim)) < 2
    }
    kept = {state.output: stream.states[state.input] for state in signature.states if state.axis is None}
    return {**joined, **kept}


def _step(stream: Stream, signature: Signature, axes: dict[str, int]) -> str:
    """The signature that runs one step: a case of this one whose sequence has length 1, or this one itself."""
    for other in stream.signatures.values():
        is_case = other.case_of == signature.program
        if is_case and all(other.input(name).shape[axis] == 1 for name, axis in axes.items()):
            return other.name
    return signature.name
