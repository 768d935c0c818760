"""From the states of many tokens to one vector a sentence, blind to padding."""

from torch import Tensor


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """X (B, T, D), valid (B, T) bool -> the mean over valid steps (B, D)."""
    weights = valid.to(x.dtype).unsqueeze(2)  # (B, T, 1)
    return (x * weights).sum(1) / weights.sum(1).clamp(min=1.0)


def masked_max(x: Tensor, valid: Tensor) -> Tensor:
    """X (B, T, D), valid (B, T) bool -> the largest value over valid steps (B, D); x must be above -1e4."""
    return (x + (valid.to(x.dtype).unsqueeze(2) - 1.0) * 1e4).amax(1)
