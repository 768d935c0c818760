"""How the numbers of a product are rounded to integers, and the noise that this leaves."""

from collections.abc import Sequence

import numpy as np

LARGEST_WEIGHT, LARGEST_ACTIVATION = 127, 255


def symmetric_int8(weight: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers in [-127, 127], and the float32 scale of each channel, of as many axes as the weight."""
    others = tuple(a for a in range(weight.ndim) if a != axis)
    scale = np.maximum(np.abs(weight).max(axis=others, keepdims=True) / LARGEST_WEIGHT, np.finfo(np.float32).tiny)
    return np.clip(np.rint(weight / scale), -LARGEST_WEIGHT, LARGEST_WEIGHT).astype(np.int8), scale.astype(np.float32)


def asymmetric_int8(weight: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Integers in [-128, 127], the float32 scale and the int8 zero point of each channel, of as many axes as the weight.

    A channel's largest weight is often far from all others and on one side of 0: its steps are half those of symmetric ones.
    """
    others = tuple(a for a in range(weight.ndim) if a != axis)
    low = np.minimum(weight.min(axis=others, keepdims=True), 0)
    high = np.maximum(weight.max(axis=others, keepdims=True), 0)
    scale = np.maximum((high - low) / 255, np.finfo(np.float32).tiny).astype(np.float32)
    zero = np.clip(np.rint(-128 - low / scale), -128, 127)
    return np.clip(np.rint(weight / scale) + zero, -128, 127).astype(np.int8), scale, zero.astype(np.int8)


def one_range(x: np.ndarray) -> np.ndarray:
    """What is left of activations that onnxruntime rounds: integers in [0, 255] with one scale and one zero point."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = (high - low) / LARGEST_ACTIVATION or 1.0
    zero = np.rint(-low / scale)
    return (np.clip(np.rint(x / scale) + zero, 0, LARGEST_ACTIVATION) - zero) * scale


def noise(xs: Sequence[np.ndarray], matrix: np.ndarray) -> float:
    """Power of the error in the products of each x (R, K) with a matrix (K, N), both rounded."""
    integers, scale = symmetric_int8(matrix, 1)
    rounded = integers * scale
    return float(sum(np.square(one_range(x) @ rounded - x @ matrix).sum() for x in xs))
