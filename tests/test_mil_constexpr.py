"""Compressed weights: the Core ML evaluator expands them as loops over the definition do, and as coremltools wrote them."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if find_spec("coremltools") is None:
    pytest.skip("coremltools is not installed", allow_module_level=True)

import edgeseq.quiet_coremltools  # noqa: F401  # first: it decides how coremltools is imported

# isort: split
import coremltools as ct
import coremltools.optimize.coreml as cto
from coremltools.converters.mil import Builder as mb

from edgeseq.devices.runtimes._mil import constexpr
from edgeseq.devices.runtimes._mil.evaluate import load_functions

pytestmark = pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")

FEW = settings(max_examples=12)
SEEDS = st.integers(0, 2**16)


def run(name: str, **inputs: Any) -> Any:
    return constexpr.OPERATORS[name](**inputs)


def same(actual: Any, expected: Any) -> None:
    assert np.shape(actual) == np.shape(expected)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def packed(numbers: np.ndarray, bits: int) -> np.ndarray:
    """Bit by bit, the lowest first."""
    flat = [(int(number) >> bit) & 1 for number in numbers.ravel() for bit in range(bits)]
    flat += [0] * (-len(flat) % 8)
    return np.array([sum(flat[i + j] << j for j in range(8)) for i in range(0, len(flat), 8)], np.uint8)


@FEW
@given(rows=st.integers(1, 4), columns=st.integers(1, 4), seed=SEEDS, axis=st.sampled_from([0, 1, -1]))
def test_compressed_weights(rows: int, columns: int, seed: int, axis: int) -> None:
    rng = np.random.default_rng(seed)
    data = rng.integers(-128, 128, (rows, 2 * columns)).astype(np.int8)
    scale = rng.random((data.shape[axis],)).astype(np.float32)
    zero = rng.integers(-3, 4, (data.shape[axis],)).astype(np.int8)

    lines = np.moveaxis(data, axis, 0).astype(np.float32)
    wide = np.stack([(lines[i] - float(zero[i])) * scale[i] for i in range(len(lines))])
    same(
        run("constexpr_affine_dequantize", quantized_data=data, zero_point=zero, scale=scale, axis=axis),
        np.moveaxis(wide, 0, axis),
    )
    blocks = rng.random((rows, columns)).astype(np.float32)
    offset = rng.integers(-3, 4, (rows, columns)).astype(np.int8)
    shifted = (data - np.repeat(offset, 2, axis=1).astype(np.float32)) * np.repeat(blocks, 2, axis=1)
    same(run("constexpr_blockwise_shift_scale", data=data, scale=blocks, offset=offset), shifted)
    same(run("constexpr_blockwise_shift_scale", data=data, scale=blocks), data * np.repeat(blocks, 2, axis=1))


@FEW
@given(seed=SEEDS, bits=st.integers(1, 8))
def test_packed_lookup_tables(seed: int, bits: int) -> None:
    rng = np.random.default_rng(seed)
    indices, table = rng.integers(0, 2**bits, (3, 5)), rng.random(2**bits).astype(np.float32)

    actual = run("constexpr_lut_to_dense", indices=packed(indices, bits), lut=table, shape=np.array([3, 5], np.uint32))

    same(actual, table[indices])


@FEW
@given(
    seed=SEEDS,
    groups=st.tuples(st.sampled_from([1, 2, 4]), st.sampled_from([1, 3])),
    width=st.integers(1, 3),
    axis=st.integers(-1, 1),
)
def test_lookup_tables_of_blocks_and_vectors(seed: int, groups: tuple[int, int], width: int, axis: int) -> None:
    rng = np.random.default_rng(seed)
    indices = rng.integers(0, 4, (4, 3)).astype(np.uint8)
    table = rng.random((*groups, 4, width)).astype(np.float32)
    expected = np.zeros((4 * width, 3) if axis == 0 else (4, 3 * width), np.float32)
    for i in range(4):
        for j in range(3):
            for v in range(width):
                place = (i * width + v, j) if axis == 0 else (i, j * width + v)
                expected[place] = table[i * groups[0] // 4, j * groups[1] // 3, indices[i, j], v]

    same(run("constexpr_lut_to_dense", indices=indices, lut=table, vector_axis=axis), expected)
    mask = rng.random((4, 3)) < 0.5
    wide, values = run(
        "constexpr_lut_to_sparse",
        indices_mask=mask.astype(np.uint8),
        indices_nonzero_data=indices[mask],
        lut=table,
        vector_axis=axis,
    )
    spread = np.repeat(mask, width, 0 if axis == 0 else 1)
    same(wide, spread)
    same(run("constexpr_sparse_to_dense", nonzero_data=values, mask=wide), np.where(spread, expected, 0))


@FEW
@given(seed=SEEDS)
def test_sparse_weights(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, mask = rng.normal(size=(3, 7)).astype(np.float32), rng.random((3, 7)) < 0.4
    shape = np.array([3, 7], np.uint32)

    expected = np.where(mask, x, 0)
    same(run("constexpr_sparse_to_dense", nonzero_data=x[mask], mask=packed(mask, 1), shape=shape), expected)
    same(run("constexpr_sparse_to_dense", nonzero_data=x[mask], mask=mask.astype(np.uint8)), expected)
    data, scale = rng.integers(-128, 128, (3, 7)).astype(np.int8), rng.random((3, 1)).astype(np.float32)
    there, values = run(
        "constexpr_sparse_blockwise_shift_scale", data_mask=mask.astype(np.uint8), nonzero_data=data[mask], scale=scale
    )
    same(there, mask)
    same(values, (data * scale)[mask])
    half = x.astype(np.float16)
    assert run("constexpr_cast", source_val=half, output_dtype="fp32").dtype == np.float32
    same(run("constexpr_cast", source_val=half, output_dtype="fp32"), half.astype(np.float32))


def quantized(model: ct.models.MLModel) -> ct.models.MLModel:
    return cto.linear_quantize_weights(model, cto.OptimizationConfig(cto.OpLinearQuantizerConfig(weight_threshold=0)))


def in_blocks(model: ct.models.MLModel) -> ct.models.MLModel:
    settings = cto.OpLinearQuantizerConfig(
        dtype="uint4", granularity="per_block", block_size=16, mode="linear", weight_threshold=0
    )
    return cto.linear_quantize_weights(model, cto.OptimizationConfig(settings))


def palettized(model: ct.models.MLModel) -> ct.models.MLModel:
    settings = cto.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=0)
    return cto.palettize_weights(model, cto.OptimizationConfig(settings))


def in_groups(model: ct.models.MLModel) -> ct.models.MLModel:
    settings = cto.OpPalettizerConfig(
        mode="uniform", nbits=2, granularity="per_grouped_channel", group_size=8, weight_threshold=0
    )
    return cto.palettize_weights(model, cto.OptimizationConfig(settings))


def pruned(model: ct.models.MLModel) -> ct.models.MLModel:
    settings = cto.OpMagnitudePrunerConfig(target_sparsity=0.7, weight_threshold=0)
    return cto.prune_weights(model, cto.OptimizationConfig(settings))


def jointly(
    first: Callable[[ct.models.MLModel], ct.models.MLModel],
) -> Callable[[ct.models.MLModel], ct.models.MLModel]:
    settings = cto.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=0)
    return lambda model: cto.palettize_weights(first(model), cto.OptimizationConfig(settings), joint_compression=True)


def quantized_jointly(model: ct.models.MLModel) -> ct.models.MLModel:
    settings = cto.OptimizationConfig(cto.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=0))
    return cto.linear_quantize_weights(pruned(model), settings, joint_compression=True)


COMPRESSIONS = {
    "quantized 16": quantized, "quantized 18": quantized, "in blocks 18": in_blocks, "palettized 16": palettized,
    "palettized 18": palettized, "in groups 18": in_groups, "pruned 16": pruned, "pruned 18": pruned,
    "pruned and palettized 18": jointly(pruned), "pruned and quantized 18": quantized_jointly,
}  # fmt: skip


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_what_coremltools_compresses_is_what_it_expands(name: str, tmp_path: Path) -> None:
    """Its own expansion of the saved package is the reference; that one shares no code with the evaluator."""
    weight = np.random.default_rng(0).normal(size=(32, 64)).astype(np.float32)
    target = ct.target.iOS18 if name.endswith("18") else ct.target.iOS16

    specs = [mb.TensorSpec(shape=(3, 64))]
    program = mb.program(input_specs=specs, opset_version=target)(lambda x: mb.linear(x=x, weight=weight, name="y"))
    model = ct.convert(
        program, minimum_deployment_target=target, compute_precision=ct.precision.FLOAT32, skip_model_load=True
    )
    small = COMPRESSIONS[name](model)
    small.save(str(tmp_path / "small.mlpackage"))
    cto.decompress_weights(small).save(str(tmp_path / "expanded.mlpackage"))
    x = np.random.default_rng(1).normal(size=(3, 64)).astype(np.float32)

    actual, expected = (
        load_functions(tmp_path / f"{kind}.mlpackage")["main"]({"x": x})["y"] for kind in ("small", "expanded")
    )

    assert "constexpr_" in str(small._mil_program) and "constexpr_" not in str(
        cto.decompress_weights(small)._mil_program
    )
    np.testing.assert_allclose(actual, expected, atol=1e-4)
