"""Matrix products in float32 on a given number of threads: numpy has no setting for its own, torch does."""

import numpy as np
import torch

from edgeseq.devices.runtimes._mil.operator import Array


def product(x: Array, y: Array) -> Array:
    """The product x @ y."""
    if x.dtype != np.float32 or y.dtype != np.float32:
        return np.matmul(x, y)
    return torch.matmul(_tensor(x), _tensor(y)).numpy()


def _tensor(x: Array) -> torch.Tensor:
    """Shares memory where torch can: not for negative strides, and read-only arrays draw a warning."""
    usable = x.flags.writeable and all(stride >= 0 for stride in x.strides)
    return torch.from_numpy(x if usable else x.copy())
