"""Random inputs that look like an example, at any size."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from edgeseq.capture import Call, DynamicShapes
from edgeseq.signature import Dim
from edgeseq.sources._usage import Draw, Sizes

SIZES = (2, 3, 5, 17, 40, 129)  # tried for each dynamic dimension, besides its bounds; those within them are kept
MIXED = 3  # how many cases are mixed of them
LONGEST = 512  # the size that is compared in place of a greater bound, for which attention would take minutes


def dims_of(shapes: DynamicShapes) -> list[Dim]:
    """Every dimension once, in the order of the inputs."""
    return list({dim.name: dim for axes in shapes.values() for dim in axes.values()}.values())


def unseen_sizes(shapes: DynamicShapes) -> Sequence[Sizes]:
    """Sizes to compare at: the smallest, others mixed so that no two dimensions are alike, the longest, the widest batch."""
    dims = dims_of(shapes)
    least = {dim.name: dim.min for dim in dims}
    most = {dim.name: max(dim.min, min(dim.max, LONGEST)) for dim in dims}
    batch = single(shapes)
    mixed = [{dim.name: _size(dim, turn + (k and 3)) for k, dim in enumerate(dims)} for turn in range(1, 1 + MIXED)]
    sizes = [least, *mixed, {**most, **batch}, {**least, **{name: most[name] for name in batch}}]
    return [dict(items) for items in dict.fromkeys(tuple(s.items()) for s in sizes)]


def single(shapes: DynamicShapes) -> Sizes:
    """Batch 1 (the smallest of any first axis), everything else as in the example."""
    return {axes[0].name: axes[0].min for axes in shapes.values() if 0 in axes}


def like(examples: Mapping[str, Tensor], shapes: DynamicShapes) -> Draw:
    """Draws integers from the example's range, floats with its mean and spread."""

    def draw(sizes: Sizes, rng: np.random.Generator) -> dict[str, Tensor]:
        return {
            key: _random_like(example, shape_at(example, shapes.get(key, {}), sizes), rng)
            for key, example in examples.items()
        }

    return draw


def with_room(draw: Draw, call: Call) -> Draw:
    """The same, with positions that leave room: no more rows of a cache in use than it has, nor than there are steps left."""
    axes = {(name, axis): dim for name, dims in call.dynamic_shapes.items() for axis, dim in dims.items()}
    cached = [(state, state.position) for state in call.states if state.position is not None]
    of_states = {dim.name for state in call.states for (name, _), dim in axes.items() if name == state.input}
    steps = {at: dim for at, dim in axes.items() if dim.name not in of_states}

    def draw_with_room(sizes: Sizes, rng: np.random.Generator) -> Mapping[str, Tensor]:
        values = dict(draw(sizes, rng))
        for state, position in cached:
            rows = values[state.input].shape[state.axis or 0]
            left = min([rows, *(dim.max - values[name].shape[axis] for (name, axis), dim in steps.items())])
            values[position] = values[position].clamp(max=left)
        return values

    return draw_with_room


def shape_at(example: Tensor, axes: Mapping[int, Dim], sizes: Sizes) -> list[int]:
    """The example's shape with its dynamic axes at the given sizes."""
    return [sizes.get(axes[i].name, have) if i in axes else have for i, have in enumerate(example.shape)]


def _size(dim: Dim, turn: int) -> int:
    allowed = [size for size in (dim.min, *SIZES) if dim.min <= size <= dim.max]
    return allowed[turn % len(allowed)]


def _random_like(example: Tensor, shape: list[int], rng: np.random.Generator) -> Tensor:
    if example.dtype == torch.bool:
        return torch.from_numpy(np.asarray(rng.random(shape) < 0.5))
    if not example.is_floating_point():
        low, high = int(example.min()), int(example.max())
        return torch.from_numpy(np.asarray(rng.integers(low, high + 1, shape))).to(example.dtype)
    spread = float(example.std(correction=0)) or 1.0
    return torch.from_numpy(np.asarray(rng.normal(float(example.mean()), spread, shape))).to(example.dtype)
