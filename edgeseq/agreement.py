"""One signature of a model file, run on random inputs and compared with its counterparts in other files and engines.

Call by call at several lengths and batches; where it has states, also as sequences whose states carry on from call to call.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeseq import chunks, inspection
from edgeseq.difference import Difference, judged, measured
from edgeseq.inspection.random_inputs import Trial
from edgeseq.loaded import Loaded, Outputs, call, in_precision, sequence, steps
from edgeseq.signature import Signature, Tensors

CALLS = 4  # of a signature with states and a fixed length, one after the other


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was run of one signature, and what came out."""

    signature: str
    trials: tuple[Mapping[str, tuple[int, ...]], ...]  # shapes of the inputs of each
    outputs: Mapping[str, str]  # name -> type and shape in the last trial
    not_finite: int  # values of all outputs that are NaN or infinite
    differences: tuple[Difference, ...]


@dataclass(frozen=True, kw_only=True)
class Counterpart:
    """What must give the same."""

    loaded: Loaded
    signature: str
    schemes: tuple[str, str]  # the weaker one's tolerance judges


def checked(
    mine: Loaded, name: str, counterparts: Sequence[Counterpart], fed: Sequence[Trial], tolerance: float | None
) -> Check:
    """Run a signature, and compare; a Core ML file also with itself in float16 arithmetic."""
    fed = [Trial(inputs=with_room(trial.inputs, mine.signature(name))) for trial in fed]
    results = [call(mine, name, trial.inputs) for trial in fed]
    differences = []
    for other in counterparts:
        theirs = [call(other.loaded, other.signature, trial.inputs) for trial in fed]
        found = measured((mine.title, other.loaded.title), results, theirs)
        differences += [judged(found, other.schemes, tolerance), *_streamed(mine, name, other, fed, tolerance)]
    if not counterparts:
        differences += _in_chunks(mine, name, fed, tolerance)
    if inspection.format_of(mine.path) == "coreml":
        differences.append(precision_difference(mine, name, fed, results))
    return Check(
        signature=name,
        trials=tuple({key: value.shape for key, value in trial.inputs.items()} for trial in fed),
        outputs={key: f"{value.dtype}{list(value.shape)}" for key, value in results[-1].items()},
        not_finite=sum(int((~np.isfinite(v)).sum()) for r in results for v in r.values() if v.dtype.kind == "f"),
        differences=tuple(differences),
    )


def with_room(inputs: Tensors, signature: Signature) -> dict[str, np.ndarray]:
    """The same, no more rows of a cache in use than it has, nor than the longest sequence leaves."""
    given = dict(inputs)
    longest = {dim.name: dim.max for dim in signature.dims}
    time = chunks.sequence_dim(signature)
    for state in signature.states:
        if state.position is None or state.axis is None:
            continue
        left = [given[state.input].shape[state.axis]]
        fed = [spec for spec in signature.inputs if time in spec.shape]
        left += [longest[str(time)] - given[spec.name].shape[spec.shape.index(time)] for spec in fed]
        given[state.position] = np.minimum(given[state.position], min(left)).astype(given[state.position].dtype)
    return given


def precision_difference(mine: Loaded, name: str, fed: Sequence[Trial], results: Sequence[Outputs]) -> Difference:
    """What float16 arithmetic costs a Core ML program, every operator's result rounded as on the Neural Engine.

    A program without float16 that was evaluated has been computed in float32 already.
    """
    half = in_precision(mine, "float16")
    if mine.has_float16 or not mine.is_evaluated:
        single = in_precision(mine, "float32")
        results = [call(single, name, trial.inputs) for trial in fed]
    names = ("float16 arithmetic (evaluated)", "float32 arithmetic (evaluated)")
    return measured(names, [call(half, name, trial.inputs) for trial in fed], results)


def _streamed(
    mine: Loaded, name: str, other: Counterpart, fed: Sequence[Trial], tolerance: float | None
) -> list[Difference]:
    """Sequences from empty states: here in chunks, there whole; of a fixed length, several calls in both."""
    signature = mine.signature(name)
    if not signature.states:
        return []
    theirs = _with_states(other.loaded, other.signature, signature)
    if chunks.sequence_dim(signature) is None:
        calls = [_turned(_visible(fed[0].inputs, signature), turn) for turn in range(CALLS)]
        ours, others = steps(mine, name, calls), steps(theirs, other.signature, calls)
        between = (f"{mine.title}, {CALLS} calls from empty states,", theirs.title)
        return [judged(measured(between, ours, others), other.schemes, tolerance)]
    split, whole = _sequences(mine, name, fed), _wholes(theirs, other.signature, fed, signature)
    found = measured((f"{mine.title} in chunks", f"{theirs.title} whole"), split, whole)
    return [judged(found, other.schemes, tolerance)]


def _in_chunks(mine: Loaded, name: str, fed: Sequence[Trial], tolerance: float | None) -> list[Difference]:
    """The file in chunks against itself."""
    signature = mine.signature(name)
    if chunks.sequence_dim(signature) is None:
        return []
    split, whole = _sequences(mine, name, fed), _wholes(mine, name, fed, signature)
    found = measured((f"{mine.title} in chunks", "whole"), split, whole)
    return [judged(found, (mine.scheme, mine.scheme), tolerance)]


def _sequences(loaded: Loaded, name: str, fed: Sequence[Trial]) -> list[Outputs]:
    """Every trial's sequence in chunks of random lengths."""
    signature = loaded.signature(name)
    found = []
    for number, trial in enumerate(fed):
        inputs = _visible(trial.inputs, signature)
        time = chunks.sequence_dim(signature)
        least = next(dim.min for dim in signature.dims if dim.name == time)
        lengths = chunks.random_lengths(_length(inputs, signature), least, np.random.default_rng(number))
        found.append(sequence(loaded, name, inputs, lengths))
    return found


def _wholes(loaded: Loaded, name: str, fed: Sequence[Trial], signature: Signature) -> list[Outputs]:
    """Every trial's sequence at once."""
    visible = [_visible(trial.inputs, signature) for trial in fed]
    return [sequence(loaded, name, inputs, [_length(inputs, signature)]) for inputs in visible]


def _visible(inputs: Tensors, signature: Signature) -> dict[str, np.ndarray]:
    """What a stream is fed; the states it has itself."""
    hidden = chunks.hidden_inputs(signature)
    return {key: value for key, value in inputs.items() if key not in hidden}


def _length(inputs: Tensors, signature: Signature) -> int:
    time = chunks.sequence_dim(signature)
    return next(inputs[s.name].shape[s.shape.index(time)] for s in signature.inputs if time in s.shape)


def _turned(inputs: Tensors, count: int) -> dict[str, np.ndarray]:
    """Other values of the same kind and shape."""
    return {key: np.roll(value, count) for key, value in inputs.items()}


def _with_states(other: Loaded, name: str, like: Signature) -> Loaded:
    """The other file with its signature as ours describes it, which may stand alone and know of no states."""
    known = other.signature(name)
    described = known if known.states else replace(like, name=name, case_of=known.case_of)
    return replace(other, signatures=tuple(described if s.name == name else s for s in other.signatures))
