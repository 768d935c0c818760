"""Random inputs that look like an example, at any size."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from edgeseq.capture import DynamicShapes
from edgeseq.signature import Dim
from edgeseq.sources._usage import Draw, Sizes

SIZES = (2, 3, 5, 17, 40, 129)  # tried for each dynamic dimension, besides its bounds; those within them are kept


def dims_of(shapes: DynamicShapes) -> list[Dim]:
    """Every dimension once, in the order of the inputs."""
    return list({dim.name: dim for axes in shapes.values() for dim in axes.values()}.values())


def unseen_sizes(shapes: DynamicShapes) -> Sequence[Sizes]:
    """Sizes to compare at: each dimension's bounds and others, mixed so that no two dimensions are alike."""
    dims = dims_of(shapes)
    sizes = [{dim.name: _size(dim, turn + k) for k, dim in enumerate(dims)} for turn in range(len(SIZES))]
    return [dict(items) for items in dict.fromkeys(tuple(s.items()) for s in sizes)] or [{}]


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
