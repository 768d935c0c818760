"""A batch for a file whose batch is 1: its rows run one by one, and their outputs are joined again."""

from collections.abc import Mapping, Sequence

import numpy as np

from edgeseq.signature import Tensors

Axes = Mapping[str, int]  # where inputs and outputs have the batch, by name; those without it are not named


def count(axes: Axes, inputs: Tensors) -> int:
    """How many rows there are to run."""
    return max((inputs[name].shape[axis] for name, axis in axes.items() if name in inputs), default=1)


def rows(axes: Axes, inputs: Tensors) -> list[Tensors]:
    """The inputs of each row of the batch, with the batch axis kept at size 1."""
    of_all = count(axes, inputs)
    if of_all == 1:
        return [inputs]
    return [
        {name: value.take([row], axes[name]) if name in axes else value for name, value in inputs.items()}
        for row in range(of_all)
    ]


def joined(axes: Axes, results: Sequence[Tensors]) -> dict[str, np.ndarray]:
    """The rows' outputs as one batch."""
    return {
        name: np.concatenate([row[name] for row in results], axes[name]) if name in axes else value
        for name, value in results[0].items()
    }
