"""MIL operators on the last two axes of images (…, H, W), and the norms of channels (B, C, *space)."""

from typing import Any

import numpy as np

from edgeseq.devices.runtimes._mil.operator import Array, Operator


def batch_norm(
    x: Array, mean: Array, variance: Array, gamma: Array | None = None, beta: Array | None = None, epsilon: Any = 1e-5
) -> Array:
    """Ioffe and Szegedy 2015, with the statistics of training."""
    of_channels = (-1, *[1] * (x.ndim - 2))
    scale = 1 / np.sqrt(variance + np.float32(epsilon))
    result = (x - mean.reshape(of_channels)) * scale.reshape(of_channels)
    return _affine(result, gamma, beta)


def instance_norm(x: Array, gamma: Array | None = None, beta: Array | None = None, epsilon: Any = 1e-5) -> Array:
    """Ulyanov et al. 2016."""
    space = tuple(range(2, x.ndim))
    centred = x - x.mean(axis=space, keepdims=True)
    deviation = np.sqrt((centred * centred).mean(axis=space, keepdims=True) + np.float32(epsilon))
    return _affine(centred / deviation, gamma, beta)


def l2_norm(x: Array, epsilon: Any = 1e-6) -> Array:
    """X / sqrt(sum of squares + epsilon), the sum over the last three axes."""
    return x / np.sqrt(np.square(x).sum(axis=(-3, -2, -1), keepdims=True) + np.float32(epsilon))


def local_response_norm(x: Array, size: Any, alpha: Any = 1e-4, beta: Any = 0.75, k: Any = 1.0) -> Array:
    """Krizhevsky et al. 2012, over `size` channels."""
    before = int(size) // 2
    widths = [(0, 0), (before, int(size) - 1 - before), *[(0, 0)] * (x.ndim - 2)]
    squares = np.lib.stride_tricks.sliding_window_view(np.pad(np.square(x), widths), int(size), 1).sum(axis=-1)
    return x / (np.float32(k) + np.float32(alpha) / int(size) * squares) ** np.float32(beta)


def resize_bilinear(
    x: Array, target_size_height: Any = 1, target_size_width: Any = 1, sampling_mode: Any = "DEFAULT"
) -> Array:
    """Interpolated at a grid of points that the mode spaces."""
    for axis, target in ((-2, int(target_size_height)), (-1, int(target_size_width))):
        x = _interpolated(x, axis, _grid(x.shape[axis], target, str(sampling_mode)))
    return x


def upsample_bilinear(
    x: Array,
    scale_factor_height: Any = 1,
    scale_factor_width: Any = 1,
    align_corners: Any = True,
    half_pixel_centers: Any = None,
) -> Array:
    """The same by factors; corners that are not aligned are centred on pixels unless `half_pixel_centers` is False."""
    is_centred = not align_corners and (half_pixel_centers is None or bool(half_pixel_centers))
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if is_centred else "DEFAULT"
    for axis, factor in ((-2, float(scale_factor_height)), (-1, float(scale_factor_width))):
        x = _interpolated(x, axis, _grid(x.shape[axis], int(np.floor(x.shape[axis] * factor)), mode))
    return x


def resize_nearest_neighbor(x: Array, target_size_height: Any, target_size_width: Any) -> Array:
    """Each pixel is the one at or before its place."""
    for axis, target in ((-2, int(target_size_height)), (-1, int(target_size_width))):
        x = np.take(x, np.arange(target) * x.shape[axis] // target, axis)
    return x


def upsample_nearest_neighbor(x: Array, scale_factor_height: Any = 1, scale_factor_width: Any = 1) -> Array:
    """The same by factors."""
    sizes = [int(np.floor(x.shape[a] * float(f))) for a, f in ((-2, scale_factor_height), (-1, scale_factor_width))]
    return resize_nearest_neighbor(x, *sizes)


def pixel_shuffle(x: Array, upscale_factor: Any) -> Array:
    """(B, C·r², H, W) -> (B, C, H·r, W·r), Shi et al. 2016."""
    batch, channels, height, width = x.shape
    r = int(upscale_factor)
    parts = x.reshape(batch, channels // r**2, r, r, height, width).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(batch, channels // r**2, height * r, width * r)


def pixel_unshuffle(x: Array, downscale_factor: Any) -> Array:
    """The opposite of `pixel_shuffle`."""
    batch, channels, height, width = x.shape
    r = int(downscale_factor)
    parts = x.reshape(batch, channels, height // r, r, width // r, r).transpose(0, 1, 3, 5, 2, 4)
    return parts.reshape(batch, channels * r**2, height // r, width // r)


def _grid(size: int, target: int, mode: str) -> Array:
    """Where the new pixels lie among the old ones."""
    steps = np.arange(target)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        if target == 1:
            return np.full(1, (size - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0)
        places = steps * (size - 1) / (target - 1)
    elif mode == "UNALIGN_CORNERS":
        places = (steps + 0.5) * size / target - 0.5
    elif mode == "OFFSET_CORNERS":
        places = (steps + 0.5) * max(1, size - 1) / target
    else:
        places = steps * size / target
    return np.clip(places, 0, size - 1)


def _interpolated(x: Array, axis: int, places: Array) -> Array:
    """Between the two nearest elements along an axis."""
    low = np.floor(places).astype(int)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    part = (places - low).astype(np.float32).reshape(-1, *[1] * (-axis - 1))
    return np.take(x, low, axis) * (1 - part) + np.take(x, high, axis) * part


def _affine(x: Array, gamma: Array | None, beta: Array | None) -> Array:
    of_channels = (-1, *[1] * (x.ndim - 2))
    x = x if gamma is None else x * gamma.reshape(of_channels)
    return x if beta is None else x + beta.reshape(of_channels)


COMPUTING: dict[str, Operator] = {
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "l2_norm": l2_norm,
    "local_response_norm": local_response_norm,
    "resize_bilinear": resize_bilinear,
    "upsample_bilinear": upsample_bilinear,
}
MOVING: dict[str, Operator] = {
    "resize_nearest_neighbor": resize_nearest_neighbor,
    "upsample_nearest_neighbor": upsample_nearest_neighbor,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
}
