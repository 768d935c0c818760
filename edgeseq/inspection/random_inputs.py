"""Random inputs for a model file of which nothing is known but what it says itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeseq.inspection import NO_BOUND
from edgeseq.signature import Signature, TensorSpec

SIZES = (3, 1, 7, 2, 17, 5)  # tried in turn for each varying dimension; those within its bounds are used
LONGEST = 64  # tried where no bound is known, besides `SIZES`
TRIALS = 5

Axis = tuple[str, int]  # (input, axis)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One set of inputs."""

    inputs: Mapping[str, np.ndarray]


def trials(
    signatures: Sequence[Signature], table_rows: Mapping[str, int], ranges: Mapping[str, tuple[int, int]]
) -> list[Trial]:
    """Inputs that suit every one of these signatures of one model, at several lengths and batches, all rows different."""
    groups, bounds = dimensions(signatures)
    count = TRIALS if set(groups.values()) else 2
    found = []
    for number in range(count):
        is_long = {group for (_, axis), group in groups.items() if axis and number == TRIALS - 1}
        sizes = {
            group: _size(bounds[group], number + 2 * i, is_long=group in is_long)
            for i, group in enumerate(dict.fromkeys(groups.values()))
        }
        rng = np.random.default_rng(number)
        inputs = {}
        for spec in signatures[0].inputs:
            shape = tuple(_fixed(signatures, (spec.name, axis), groups, sizes) for axis in range(len(spec.shape)))
            smallest = min(sizes.values(), default=2)
            inputs[spec.name] = _values(spec, shape, rng, table_rows, ranges, smallest)
        found.append(Trial(inputs=inputs))
    return found


def dimensions(signatures: Sequence[Signature]) -> tuple[dict[Axis, str], dict[str, tuple[int, int]]]:
    """Which axes vary, named by the dimension that they share, and the bounds of each dimension.

    The signature that tells the most dimensions apart names them; a file that gives its dimensions no names is taken to
    have one for the first axes and one for the others.
    """
    varying = [_varying(signature) for signature in signatures]
    shared = set.intersection(*(set(names) for names in varying))
    naming = max(varying, key=lambda names: len({names[axis] for axis in shared}))
    groups = {axis: naming[axis] for axis in sorted(shared)}
    bounds: dict[str, tuple[int, int]] = {}
    for axis, group in groups.items():
        low, high = bounds.get(group, (1, NO_BOUND))
        for signature, names in zip(signatures, varying, strict=True):
            known = {dim.name: dim for dim in signature.dims}.get(names[axis].partition(" ")[0])
            if known:
                low, high = max(low, known.min), min(high, known.max)
        bounds[group] = (low, high)
    return groups, bounds


def _varying(signature: Signature) -> dict[Axis, str]:
    found = {}
    for spec in signature.inputs:
        for axis, size in enumerate(spec.shape):
            if isinstance(size, str):
                unnamed = size == "?" or ".." in size
                found[spec.name, axis] = f"{size} {'first' if axis == 0 else 'inner'}" if unnamed else size
    return found


def _fixed(signatures: Sequence[Signature], at: Axis, groups: Mapping[Axis, str], sizes: Mapping[str, int]) -> int:
    """The size of an axis: of its dimension, or what one of the signatures fixes it to."""
    if at in groups:
        return sizes[groups[at]]
    name, axis = at
    shapes = [spec.shape for signature in signatures for spec in signature.inputs if spec.name == name]
    return next(size for shape in shapes if isinstance(size := shape[axis], int))


def _size(bounds: tuple[int, int], number: int, *, is_long: bool) -> int:
    """One of the sizes within the bounds; long once, in the dimensions that are not the batch."""
    low, high = bounds
    if is_long:
        return min(high, max(low, LONGEST))
    tried = [size for size in SIZES if low <= size <= high] or [low]
    return tried[number % len(tried)]


def _values(
    spec: TensorSpec,
    shape: tuple[int, ...],
    rng: np.random.Generator,
    table_rows: Mapping[str, int],
    ranges: Mapping[str, tuple[int, int]],
    smallest: int,
) -> np.ndarray:
    """Normal floats; rows of the table that integers choose among; other integers as lengths, and masks as ones."""
    if spec.dtype == "bool":
        return rng.random(shape) < 0.5
    if not spec.dtype.startswith(("int", "uint")):
        return rng.normal(size=shape).astype(np.float32)
    if spec.name in ranges:
        low, high = ranges[spec.name]
    elif spec.name in table_rows:
        low, high = 0, table_rows[spec.name] - 1
    else:
        low, high = 1, 1 if "mask" in spec.name else smallest
    return rng.integers(low, high + 1, shape).astype(np.int32)
