"""The Core ML evaluator's convolutions, pools, norms of channels and resizing are torch's, at random shapes."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

if find_spec("coremltools") is None:
    pytest.skip("coremltools is not installed", allow_module_level=True)

from tests.mil_inputs import FEW, SEEDS, floats, run, same, t


@FEW
@given(
    space=st.lists(st.integers(3, 6), min_size=1, max_size=3),
    seed=SEEDS,
    groups=st.integers(1, 2),
    stride=st.integers(1, 2),
    pads=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_convolution(space: list[int], seed: int, groups: int, stride: int, pads: tuple[int, int]) -> None:
    rank = len(space)
    x, weight, bias = (
        floats(seed, (2, 4, *space)),
        floats(seed + 1, (2, 4 // groups, *[2] * rank)),
        floats(seed + 2, (2,)),
    )
    convolve = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[rank]

    options = {"strides": [stride] * rank, "dilations": [1] * rank, "groups": groups}
    actual = run("conv", x=x, weight=weight, bias=bias, pad_type="custom", pad=np.array(pads * rank), **options)

    padded = functional.pad(t(x), pads * rank)
    same(actual, convolve(padded, t(weight), t(bias), stride=stride, groups=groups))


@FEW
@given(rank=st.integers(1, 3), seed=SEEDS, groups=st.integers(1, 2), stride=st.integers(1, 3), pad=st.integers(0, 1))
def test_transposed_convolution(rank: int, seed: int, groups: int, stride: int, pad: int) -> None:
    x, weight, bias = (
        floats(seed, (2, 4, *[4] * rank)),
        floats(seed + 1, (4, 3, *[3] * rank)),
        floats(seed + 2, (3 * groups,)),
    )
    convolve = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}[rank]

    options: dict[str, Any] = {
        "strides": [stride] * rank,
        "groups": groups,
        "pad_type": "custom",
        "pad": [pad] * 2 * rank,
    }
    actual = run("conv_transpose", x=x, weight=weight, bias=bias, **options)
    same(actual, convolve(t(x), t(weight), t(bias), stride=stride, padding=pad, groups=groups))

    extra = stride - 1
    longer = convolve(t(x), t(weight), t(bias), stride=stride, padding=pad, output_padding=extra, groups=groups)
    shape = np.array(longer.shape)
    same(run("conv_transpose", x=x, weight=weight, bias=bias, output_shape=shape, **options), longer)


@FEW
@given(size=st.integers(3, 9), stride=st.integers(1, 3), kernel=st.integers(1, 4), seed=SEEDS)
def test_same_padding_gives_a_result_a_stride(size: int, stride: int, kernel: int, seed: int) -> None:
    x, weight = floats(seed, (1, 2, size)), floats(seed + 1, (2, 2, kernel))
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)

    for pad_type, before in (("same", total // 2), ("same_lower", total - total // 2)):
        padded = functional.pad(t(x), (before, total - before))
        expected = functional.conv1d(padded, t(weight), stride=stride)
        assert expected.shape[-1] == -(-size // stride)
        same(run("conv", x=x, weight=weight, pad_type=pad_type, strides=[stride]), expected)


@FEW
@given(
    rank=st.integers(1, 2),
    size=st.integers(4, 8),
    stride=st.integers(1, 3),
    pad=st.integers(0, 1),
    ceil=st.booleans(),
    seed=SEEDS,
)
def test_pools(rank: int, size: int, stride: int, pad: int, ceil: bool, seed: int) -> None:
    x, kernel = floats(seed, (2, 3, *[size] * rank)), 3
    highest = {1: functional.max_pool1d, 2: functional.max_pool2d}[rank]
    mean: Any = {1: functional.avg_pool1d, 2: functional.avg_pool2d}[rank]
    options: dict[str, Any] = {
        "kernel_sizes": [kernel] * rank, "strides": [stride] * rank, "pad_type": "custom", "pad": [pad] * 2 * rank,
    }  # fmt: skip
    plain: dict[str, Any] = {"stride": stride, "padding": pad}

    floored = mean(t(x), kernel, **plain, count_include_pad=False)
    same(run("avg_pool", x=x, exclude_padding_from_average=True, **options), floored)
    same(run("avg_pool", x=x, **options), mean(t(x), kernel, **plain))
    squares = mean(t(x).square(), kernel, **plain) * kernel**rank
    same(run("l2_pool", x=x, **options), squares.sqrt())
    if (size + 2 * pad - kernel) % stride == 0 or not ceil:  # torch drops windows that lie in what rounding up adds
        same(run("max_pool", x=x, ceil_mode=ceil, **options), highest(t(x), kernel, **plain, ceil_mode=ceil))


@FEW
@given(seed=SEEDS, channels=st.integers(1, 4), rank=st.integers(1, 2))
def test_norms_of_channels(seed: int, channels: int, rank: int) -> None:
    x = floats(seed, (2, channels, *[3] * rank))
    gamma, beta, mean = (floats(seed + i, (channels,)) for i in (1, 2, 3))
    variance = np.abs(floats(seed + 4, (channels,))) + np.float32(0.1)

    actual = run("batch_norm", x=x, mean=mean, variance=variance, gamma=gamma, beta=beta, epsilon=1e-3)
    same(actual, functional.batch_norm(t(x), t(mean), t(variance), t(gamma), t(beta), eps=1e-3))
    actual = run("instance_norm", x=x, gamma=gamma, beta=beta, epsilon=1e-3)
    same(actual, functional.instance_norm(t(x), weight=t(gamma), bias=t(beta), eps=1e-3))
    actual = run("local_response_norm", x=x, size=3, alpha=0.1, beta=0.6, k=2.0)
    same(actual, functional.local_response_norm(t(x), 3, 0.1, 0.6, 2.0))
    image = floats(seed, (2, channels, 3, 4))
    same(run("l2_norm", x=image), image / np.sqrt(np.square(image).sum((1, 2, 3), keepdims=True)))


@FEW
@given(seed=SEEDS, height=st.integers(1, 5), width=st.integers(2, 5), up=st.integers(1, 4))
def test_resizing(seed: int, height: int, width: int, up: int) -> None:
    x = floats(seed, (2, 3, height, width))
    to: Any = (height * up, width * up)
    sizes: dict[str, Any] = {"target_size_height": to[0], "target_size_width": to[1]}
    factors: dict[str, Any] = {"scale_factor_height": up, "scale_factor_width": up}

    aligned = functional.interpolate(t(x), to, mode="bilinear", align_corners=True)
    centred = functional.interpolate(t(x), to, mode="bilinear", align_corners=False)
    nearest = functional.interpolate(t(x), to, mode="nearest")
    same(run("resize_bilinear", x=x, sampling_mode="STRICT_ALIGN_CORNERS", **sizes), aligned)
    same(run("resize_bilinear", x=x, sampling_mode="UNALIGN_CORNERS", **sizes), centred)
    same(run("upsample_bilinear", x=x, align_corners=True, **factors), aligned)
    same(run("upsample_bilinear", x=x, align_corners=False, **factors), centred)
    same(run("resize_nearest_neighbor", x=x, **sizes), nearest)
    same(run("upsample_nearest_neighbor", x=x, **factors), nearest)


@pytest.mark.parametrize(
    ("mode", "grid"),
    [
        ("DEFAULT", [0, 0.4, 0.8, 1, 1]),
        ("OFFSET_CORNERS", [0.1, 0.3, 0.5, 0.7, 0.9]),
        ("ALIGN_CORNERS", [0, 0.25, 0.5, 0.75, 1]),
    ],
)
def test_the_grids_of_resizing_are_those_of_the_documentation(mode: str, grid: list[float]) -> None:
    x = np.array([[[0.0, 1.0]]], np.float32)  # a value is its own place

    actual = run("resize_bilinear", x=x, target_size_height=1, target_size_width=5, sampling_mode=mode)

    same(actual[0, 0], np.array(grid))


@FEW
@given(seed=SEEDS, r=st.integers(1, 3))
def test_pixels_and_channels(seed: int, r: int) -> None:
    x, wide = floats(seed, (2, 2 * r * r, 3, 4)), floats(seed, (2, 2, 3 * r, 4 * r))

    same(run("pixel_shuffle", x=x, upscale_factor=r), functional.pixel_shuffle(t(x), r))
    same(run("pixel_unshuffle", x=wide, downscale_factor=r), functional.pixel_unshuffle(t(wide), r))
    deep = run("space_to_depth", x=wide, block_size=r)
    blocks = wide.reshape(2, 2, 3, r, 4, r)
    same(deep, np.stack([blocks[:, :, :, i, :, j] for i in range(r) for j in range(r)], 1).reshape(2, -1, 3, 4))
    same(run("depth_to_space", x=deep, block_size=r), wide)
    same(run("crop", x=wide, crop_height=[1, 0], crop_width=[0, 2]), wide[:, :, 1:, :-2])
