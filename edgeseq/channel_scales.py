"""The powers of two that the inputs of linear layers are multiplied by, so that int8 adds the least noise.

Letters: R rows of an activation, I inputs of a linear layer, O its outputs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

STRENGTHS = (0.25, 0.375, 0.5, 0.625, 0.75)  # how much of a channel's size moves into the weights: SmoothQuant's alpha
MOST = 16.0  # a scale or its inverse; it keeps weights within float16


def best_scale(x: Tensor, weights: Sequence[Tensor]) -> tuple[float, Tensor]:
    """X (R, I), weights (O, I) -> how many times less noise there is, and the powers of two (I,) that x is to be multiplied by.

    Between them lies every balance of the largest activation and the largest weight of a channel (SmoothQuant, Xiao et
    al. 2023, eq. 4); the one with the least noise is taken.
    """
    size = x.abs().amax(0)
    weight = torch.stack([w.abs().amax(0) for w in weights]).amax(0)
    scale = torch.ones_like(size)
    before = least = _noise(x, weights, scale)
    for strength in STRENGTHS:
        candidate = _powers_of_two(size, weight, strength)
        noise = _noise(x, weights, candidate)
        if noise < least:
            least, scale = noise, candidate
    return before / least if least > 0 else 1.0, scale


def _powers_of_two(size: Tensor, weight: Tensor, strength: float) -> Tensor:
    """Scales (I,) around 1. A channel without activations or weights keeps its own; none outgrows the largest."""
    is_used = (size > 0) & (weight > 0)
    if not is_used.any():
        return torch.ones_like(size)
    wanted = torch.where(is_used, weight.pow(1 - strength) / size.pow(strength), 1.0)
    wanted = wanted / wanted[is_used].median()
    roof = torch.where(is_used, size.max() / size, 1.0)
    exponents = torch.minimum(wanted.log2().round(), roof.log2().floor())
    scale = exponents.exp2().clamp(1 / MOST, MOST)
    return torch.where(is_used, scale, 1.0)


def _noise(x: Tensor, weights: Sequence[Tensor], scale: Tensor) -> float:
    """The power of what int8 adds to the outputs, as a part of theirs, summed over the layers.

    Steps are a row's range / 255 of activations and an output's largest weight / 127; rounding adds a twelfth of a step
    squared.
    """
    scaled = x * scale
    steps = (scaled.amax(1).clamp(min=0) - scaled.amin(1).clamp(max=0)) / 255
    total = 0.0
    for weight in weights:
        divided = weight / scale
        of_activations = steps.square().mean() * divided.square().sum()
        of_weights = (divided.abs().amax(1) / 127).square().sum() * scaled.square().sum(1).mean()
        outputs = x @ weight.T
        signal = (outputs - outputs.mean(0)).square().sum(1).mean()
        total += float((of_activations + of_weights) / 12 / signal.clamp(min=1e-30))
    return total
