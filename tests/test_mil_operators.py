"""Every operator of the Core ML evaluator computes what torch, or numpy written out, computes at random shapes."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

if find_spec("coremltools") is None:
    pytest.skip("coremltools is not installed", allow_module_level=True)

from edgeseq import converters
from edgeseq.artifact import Artifact
from edgeseq.capture import capture
from edgeseq.devices.runtimes._mil import (
    constexpr,
    convolution,
    elementwise,
    image,
    lists,
    matmul,
    recurrent,
    selection,
    shape,
)
from edgeseq.devices.runtimes._mil.evaluate import load_functions
from edgeseq.devices.runtimes._mil.precision import PRECISIONS, Precision
from tests import tiny
from tests.mil_inputs import FEW, SEEDS, Array, floats, run, same, t

pytestmark = pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning", "ignore::FutureWarning")

SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


UNARY: Mapping[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs, "ceil": torch.ceil, "floor": torch.floor, "round": torch.round, "sign": torch.sign, "exp": torch.exp,
    "exp2": torch.exp2, "square": torch.square, "sin": torch.sin, "cos": torch.cos, "tan": torch.tan, "tanh": torch.tanh,
    "erf": torch.erf, "sigmoid": torch.sigmoid, "relu": torch.relu, "relu6": functional.relu6, "silu": functional.silu,
    "softplus": functional.softplus, "softsign": functional.softsign, "gelu": functional.gelu, "atan": torch.atan,
    "cosh": torch.cosh, "sinh": torch.sinh,
}  # fmt: skip
POSITIVE: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sqrt": torch.sqrt, "log": torch.log, "rsqrt": torch.rsqrt, "inverse": lambda x: 1 / (x + 1e-4),
}  # fmt: skip
BINARY: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "real_div": torch.div, "floor_div": torch.floor_divide,
    "mod": torch.remainder, "maximum": torch.maximum, "minimum": torch.minimum, "equal": torch.eq, "not_equal": torch.ne,
    "less": torch.lt, "less_equal": torch.le, "greater": torch.gt, "greater_equal": torch.ge,
}  # fmt: skip
LOGICAL: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "logical_and": torch.logical_and, "logical_or": torch.logical_or, "logical_xor": torch.logical_xor,
}  # fmt: skip
REDUCTIONS: Mapping[str, Callable[..., Tensor]] = {
    "reduce_sum": torch.sum,
    "reduce_mean": torch.mean,
    "reduce_max": torch.amax,
    "reduce_min": torch.amin,
    "reduce_log_sum_exp": torch.logsumexp,
    "reduce_l1_norm": lambda x, **over: x.abs().sum(**over),
    "reduce_l2_norm": lambda x, **over: x.square().sum(**over).sqrt(),
    "reduce_sum_square": lambda x, **over: x.square().sum(**over),
}


@pytest.mark.parametrize("name", UNARY)
@FEW
@given(sizes=SHAPES, seed=SEEDS)
def test_unary(name: str, sizes: tuple[int, ...], seed: int) -> None:
    x = floats(seed, sizes)

    same(run(name, x=x), UNARY[name](t(x)))


@pytest.mark.parametrize("name", POSITIVE)
@FEW
@given(sizes=SHAPES, seed=SEEDS)
def test_unary_of_positive_numbers(name: str, sizes: tuple[int, ...], seed: int) -> None:
    x = np.abs(floats(seed, sizes)) + np.float32(0.1)

    same(run(name, x=x), POSITIVE[name](t(x)))


@FEW
@given(sizes=SHAPES, seed=SEEDS)
def test_unary_of_numbers_below_one(sizes: tuple[int, ...], seed: int) -> None:
    x = np.tanh(floats(seed, sizes)) * np.float32(0.9)

    same(run("acos", x=x), t(x).acos())
    same(run("asin", x=x), t(x).asin())
    same(run("atanh", x=x), t(x).atanh())


@pytest.mark.parametrize("name", BINARY)
@FEW
@given(sizes=SHAPES, seed=SEEDS, broadcast=st.booleans())
def test_binary(name: str, sizes: tuple[int, ...], seed: int, broadcast: bool) -> None:
    x = np.round(floats(seed, sizes), 1)
    y = np.round(floats(seed + 1, sizes[1:] if broadcast else sizes), 1) + np.float32(0.07)
    y = np.where(floats(seed + 2, y.shape) > 0, x[0] if broadcast else x, y)  # some are equal
    y = np.where(y == 0, np.float32(0.3), y)

    same(run(name, x=x, y=y), BINARY[name](t(x), t(y)))


@FEW
@given(sizes=SHAPES, seed=SEEDS)
def test_power_of_positive_numbers(sizes: tuple[int, ...], seed: int) -> None:
    x, y = np.abs(floats(seed, sizes)), floats(seed + 1, sizes) / 2

    same(run("pow", x=x + 1, y=y), t(x + 1) ** t(y))


@pytest.mark.parametrize("name", LOGICAL)
@FEW
@given(sizes=SHAPES, seed=SEEDS)
def test_logical(name: str, sizes: tuple[int, ...], seed: int) -> None:
    x, y = floats(seed, sizes) > 0, floats(seed + 1, sizes) > 0

    same(run(name, x=x, y=y), LOGICAL[name](t(x), t(y)))
    same(run("logical_not", x=x), ~x)


@pytest.mark.parametrize("name", REDUCTIONS)
@FEW
@given(sizes=SHAPES, seed=SEEDS, keep=st.booleans(), data=st.data())
def test_reductions(name: str, sizes: tuple[int, ...], seed: int, keep: bool, data: st.DataObject) -> None:
    x = floats(seed, sizes)
    axes = data.draw(st.lists(st.integers(-len(sizes), len(sizes) - 1), min_size=1, unique_by=lambda a: a % len(sizes)))

    actual = run(name, x=x, axes=np.array(axes, np.int32), keep_dims=keep)

    same(actual, REDUCTIONS[name](t(x), dim=tuple(axes), keepdim=keep))


@FEW
@given(sizes=SHAPES, seed=SEEDS, data=st.data())
def test_reductions_over_one_axis(sizes: tuple[int, ...], seed: int, data: st.DataObject) -> None:
    x, axis = floats(seed, sizes), data.draw(st.integers(-len(sizes), len(sizes) - 1))

    same(run("reduce_prod", x=x, axes=[axis], keep_dims=True), t(x).prod(axis, keepdim=True))
    same(run("reduce_argmax", x=x, axis=axis), t(x).argmax(axis).int())
    same(run("reduce_argmin", x=x, axis=axis, keep_dims=True), t(x).argmin(axis, keepdim=True).int())
    same(run("softmax", x=x, axis=axis), t(x).softmax(axis))
    same(run("cumsum", x=x, axis=axis), t(x).cumsum(axis))
    same(run("cumsum", x=x, axis=axis, reverse=True), t(x).flip(axis).cumsum(axis).flip(axis))
    same(run("cumsum", x=x, axis=axis, exclusive=True), t(x).cumsum(axis) - t(x))


@FEW
@given(sizes=SHAPES, seed=SEEDS)
def test_elementwise_with_options(sizes: tuple[int, ...], seed: int) -> None:
    x, y = floats(seed, sizes), floats(seed + 1, sizes)

    same(run("leaky_relu", x=x, alpha=0.3), functional.leaky_relu(t(x), 0.3))
    same(run("elu", x=x, alpha=0.7), functional.elu(t(x), 0.7))
    same(run("clip", x=x, alpha=-0.5, beta=1.5), t(x).clip(-0.5, 1.5))
    same(run("select", cond=x > 0, a=x, b=y), torch.where(t(x) > 0, t(x), t(y)))
    same(run("cast", x=x, dtype="int32"), t(x).int())
    same(run("cast", x=x, dtype="bool"), t(x).bool())
    same(run("gelu", x=x, mode="TANH_APPROXIMATION"), functional.gelu(t(x), approximate="tanh"))
    same(run("gelu", x=x, mode="SIGMOID_APPROXIMATION"), t(x) * (1.702 * t(x)).sigmoid())


@FEW
@given(sizes=SHAPES, seed=SEEDS)
def test_activations_with_two_numbers(sizes: tuple[int, ...], seed: int) -> None:
    x = floats(seed, sizes)
    both = {"x": x, "alpha": np.float32(0.3), "beta": np.float32(0.9)}

    same(run("threshold", x=x, alpha=0.3), t(x).clamp_min(0.3))
    same(run("thresholded_relu", x=x, alpha=0.3), torch.where(t(x) >= 0.3, t(x), 0.0))
    same(run("clamped_relu", **both), functional.leaky_relu(t(x), 0.3).clamp_max(0.9))
    same(run("linear_activation", **both), 0.3 * t(x) + 0.9)
    same(run("scaled_tanh", **both), 0.3 * (0.9 * t(x)).tanh())
    same(run("sigmoid_hard", **both), (0.3 * t(x) + 0.9).clamp(0, 1))
    same(run("reduce_log_sum", x=np.abs(x) + 1, axes=[0]), (t(x).abs() + 1).sum(0).log())


@FEW
@given(channels=st.integers(1, 4), seed=SEEDS)
def test_activations_of_channels(channels: int, seed: int) -> None:
    x, alpha, beta = floats(seed, (2, channels, 3)), floats(seed + 1, (channels,)), floats(seed + 2, (channels,))

    same(run("prelu", x=x, alpha=alpha), functional.prelu(t(x), t(alpha)))
    expected = t(alpha)[:, None] * functional.softplus(t(beta)[:, None] * t(x))
    same(run("softplus_parametric", x=x, alpha=alpha, beta=beta), expected)


@FEW
@given(rows=st.integers(1, 4), seed=SEEDS, signed=st.booleans())
def test_integers_of_activations(rows: int, seed: int, signed: bool) -> None:
    x, scale = floats(seed, (rows, 5)), np.abs(floats(seed + 1, (rows,))) / 50 + np.float32(0.01)
    zero = np.zeros(rows, np.int8) if signed else np.full(rows, 120, np.uint8)
    dtype = np.dtype(np.int8 if signed else np.uint8)
    limits = np.iinfo(dtype)

    integers = run("quantize", input=x, scale=scale, zero_point=zero, axis=0, output_dtype=dtype.name)
    floating = run("dequantize", input=integers, scale=scale, zero_point=zero, axis=0)

    expected = torch.fake_quantize_per_channel_affine(t(x), t(scale), t(zero).int(), 0, limits.min, limits.max)
    assert integers.dtype == dtype
    same(floating, expected)
    same(run("dequantize", input=integers, scale=scale[0]), t(integers.astype(np.float32)) * float(scale[0]))


@FEW
@given(sizes=SHAPES.filter(lambda s: s[-1] > 1), seed=SEEDS)
def test_layer_norm(sizes: tuple[int, ...], seed: int) -> None:
    x, gamma, beta = floats(seed, sizes), floats(seed + 1, sizes[-1:]), floats(seed + 2, sizes[-1:])

    actual = run("layer_norm", x=x, axes=[-1], gamma=gamma, beta=beta, epsilon=1e-3)

    same(actual, functional.layer_norm(t(x), sizes[-1:], t(gamma), t(beta), 1e-3))


@FEW
@given(sizes=SHAPES, seed=SEEDS, outputs=st.integers(1, 5), has_bias=st.booleans())
def test_linear(sizes: tuple[int, ...], seed: int, outputs: int, has_bias: bool) -> None:
    x, weight = floats(seed, sizes), floats(seed + 1, (outputs, sizes[-1]))
    bias = floats(seed + 2, (outputs,)) if has_bias else None

    actual = run("linear", x=x, weight=weight, bias=bias)

    same(actual, functional.linear(t(x), t(weight), None if bias is None else t(bias)))


@FEW
@given(
    batch=st.integers(1, 3),
    m=st.integers(1, 4),
    k=st.integers(1, 4),
    n=st.integers(1, 4),
    seed=SEEDS,
    flip=st.booleans(),
)
def test_products(batch: int, m: int, k: int, n: int, seed: int, flip: bool) -> None:
    x, y = floats(seed, (batch, m, k)), floats(seed + 1, (batch, k, n))

    first, second = (x.swapaxes(1, 2), y.swapaxes(1, 2)) if flip else (x, y)

    same(run("matmul", x=first, y=second, transpose_x=flip, transpose_y=flip), t(x) @ t(y))
    same(run("matmul", x=x, y=y[0]), t(x) @ t(y[0]))
    same(run("einsum", values=(x, y), equation="bmk,bkn->bnm"), (t(x) @ t(y)).mT)


@FEW
@given(batch=st.integers(1, 3), queries=st.integers(1, 4), keys=st.integers(1, 4), width=st.integers(1, 4), seed=SEEDS)
def test_attention(batch: int, queries: int, keys: int, width: int, seed: int) -> None:
    q, k, v = (
        floats(seed, (batch, queries, width)),
        floats(seed + 1, (batch, keys, width)),
        floats(seed + 2, (batch, keys, width)),
    )
    added, allowed = floats(seed + 3, (queries, keys)), np.tri(queries, keys, dtype=bool)

    for mask in (None, added, allowed):
        actual = run("scaled_dot_product_attention", query=q, key=k, value=v, attn_mask=mask)
        expected = functional.scaled_dot_product_attention(t(q), t(k), t(v), None if mask is None else t(mask))
        same(actual, expected)


@FEW
@given(sizes=SHAPES, seed=SEEDS, data=st.data())
def test_what_moves_values(sizes: tuple[int, ...], seed: int, data: st.DataObject) -> None:
    x, rank = floats(seed, sizes), len(sizes)
    axis = data.draw(st.integers(-rank, rank - 1))
    order = data.draw(st.permutations(range(rank)))
    repeats = data.draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))

    same(run("identity", x=x), x)
    same(run("transpose", x=x, perm=order), t(x).permute(order))
    same(run("reshape", x=x, shape=np.array([-1])), t(x).flatten())
    same(run("reshape", x=x, shape=np.array([0] * rank)), x)
    same(run("expand_dims", x=x, axes=[axis]), t(x).unsqueeze(axis))
    same(run("squeeze", x=x[None], axes=[0]), x)
    same(run("squeeze", x=x), t(x).squeeze())
    same(run("concat", values=[x, 2 * x], axis=axis), torch.cat([t(x), 2 * t(x)], axis))
    same(run("stack", values=[x, 2 * x], axis=axis), torch.stack([t(x), 2 * t(x)], axis))
    same(run("tile", x=x, reps=repeats), t(x).repeat(repeats))
    same(run("reverse", x=x, axes=[axis]), t(x).flip(axis))
    same(run("shape", x=x), np.array(sizes, np.int32))
    same(run("fill_like", ref_tensor=x, value=3.0), torch.full(sizes, 3.0, dtype=torch.float64))
    same(run("fill", shape=np.array(sizes), value=2), np.full(sizes, 2))
    same(run("flatten2d", x=x, axis=1), t(x).reshape(sizes[0], -1))


@FEW
@given(sizes=SHAPES, seed=SEEDS, data=st.data())
def test_parts(sizes: tuple[int, ...], seed: int, data: st.DataObject) -> None:
    x, axis = floats(seed, sizes), data.draw(st.integers(0, len(sizes) - 1))
    first = data.draw(st.integers(0, sizes[axis] - 1))
    size = data.draw(st.integers(1, sizes[axis] - first))
    begin, count = [0] * len(sizes), list(sizes)
    begin[axis], count[axis] = first, size

    same(run("slice_by_size", x=x, begin=begin, size=count), t(x).narrow(axis, first, size))
    count[axis] = -1
    same(run("slice_by_size", x=x, begin=begin, size=count), t(x).narrow(axis, first, sizes[axis] - first))
    begin[axis] = first - sizes[axis]
    same(run("slice_by_size", x=x, begin=begin, size=count), t(x).narrow(axis, first, sizes[axis] - first))
    parts = run("split", x=np.concatenate([x, x], axis), axis=axis, num_splits=2)
    same(np.stack(parts), np.stack([x, x]))
    uneven = run("split", x=np.concatenate([x, x[:1]], 0), axis=0, split_sizes=[sizes[0], 1])
    same(uneven[1], x[:1])


@FEW
@given(sizes=SHAPES.filter(lambda s: len(s) > 1), seed=SEEDS, data=st.data())
def test_gathers(sizes: tuple[int, ...], seed: int, data: st.DataObject) -> None:
    x, rng = floats(seed, sizes), np.random.default_rng(seed)
    axis = data.draw(st.integers(0, len(sizes) - 1))
    rows = rng.integers(0, sizes[axis], (2, 3))
    along = rng.integers(0, sizes[axis], sizes)
    points = np.stack([rng.integers(0, size, (4,)) for size in sizes[:2]], -1)

    expected = t(x).index_select(axis, t(rows.ravel())).reshape(*sizes[:axis], 2, 3, *sizes[axis + 1 :])
    same(run("gather", x=x, indices=rows, axis=axis), expected)
    same(run("gather_along_axis", x=x, indices=along, axis=axis), t(x).gather(axis, t(along)))
    same(run("gather_nd", x=x, indices=points), t(x)[t(points[:, 0]), t(points[:, 1])])
    picks = rng.integers(0, sizes[1], (sizes[0], 2))
    same(
        run("gather", x=x, indices=picks, axis=1, batch_dims=1), np.stack([r[p] for r, p in zip(x, picks, strict=True)])
    )
    same(
        run("gather_nd", x=x, indices=picks[..., None], batch_dims=1),
        np.stack([r[p] for r, p in zip(x, picks, strict=True)]),
    )


@FEW
@given(sizes=SHAPES.filter(lambda s: s[-1] > 2), seed=SEEDS, before=st.integers(0, 2), after=st.integers(0, 2))
def test_padding(sizes: tuple[int, ...], seed: int, before: int, after: int) -> None:
    x = floats(seed, (1, *sizes))

    for mode, name in (("constant", "constant"), ("reflect", "reflect"), ("replicate", "replicate")):
        flat = t(x).reshape(1, -1, sizes[-1])
        expected = functional.pad(flat, (before, after), mode=name).reshape(1, *sizes[:-1], -1)
        same(run("pad", x=x, pad=np.array([before, after]), mode=mode), expected)


@FEW
@given(rows=st.integers(1, 5), columns=st.integers(1, 5), seed=SEEDS, low=st.integers(-1, 3), high=st.integers(-1, 3))
def test_bands_ranges_and_one_hot(rows: int, columns: int, seed: int, low: int, high: int) -> None:
    x, indices = floats(seed, (2, rows, columns)), np.random.default_rng(seed).integers(0, columns, (rows, 2))

    banded = t(x).triu(-low if low >= 0 else -rows).tril(high if high >= 0 else columns)
    same(run("band_part", x=x, lower=low, upper=high), banded)
    same(run("one_hot", indices=indices, one_hot_vector_size=columns), functional.one_hot(t(indices), columns))
    same(
        run("range_1d", start=np.int32(1), end=np.int32(columns), step=np.int32(2)), torch.arange(1, max(columns, 1), 2)
    )


TESTED = "".join(path.read_text() for path in Path(__file__).parent.glob("test_mil_*.py"))
TESTED_BY_FUNCTION = frozenset({"slice_by_index", "reverse_sequence", "lstm", "gru", "rnn"})  # in test_coreml.py
MODULES = (constexpr, convolution, elementwise, lists, matmul, recurrent, selection, shape)


def test_every_operator_is_tested() -> None:
    operators = {name for module in MODULES for name in module.OPERATORS} | {*image.COMPUTING, *image.MOVING}

    untested = {name for name in operators if f'"{name}"' not in TESTED and f"mb.{name}(" not in TESTED}
    assert untested - TESTED_BY_FUNCTION == set()


# Arithmetic in one float type.


class Polynomial(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * x + 0.1) * x


@pytest.fixture(scope="module")
def polynomial(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    program = capture(Polynomial(), {"x": torch.ones(2, 5)})
    return converters.convert(program, "coreml", tmp_path_factory.mktemp("polynomial"), model="polynomial")


def evaluated(artifact: Artifact, precision: Precision, **feeds: Array) -> Array:
    return next(iter(load_functions(artifact.path, precision)["main"](feeds).values()))


@FEW
@given(seed=SEEDS)
def test_float16_rounds_the_input_and_every_result(polynomial: Artifact, seed: int) -> None:
    x = floats(seed, (2, 5))

    def rounded(value: Array) -> Array:
        return value.astype(np.float16).astype(np.float32)

    half = rounded(x)
    expected = rounded(rounded(rounded(half * half) + np.float32(0.1)) * half)
    np.testing.assert_array_equal(evaluated(polynomial, "float16", x=x), expected)
    np.testing.assert_array_equal(evaluated(polynomial, "declared", x=x), evaluated(polynomial, "float32", x=x))


def test_float32_undoes_what_a_float16_program_declares(tmp_path: Path) -> None:
    from edgeseq import quantize

    source = converters.convert(tiny.captured(tiny.model()), "coreml", tmp_path / "fp32", model="tiny")
    half = quantize.quantize(source, quantize.Scheme.parse("fp16"), tmp_path / "fp16")
    tokens = np.arange(12, dtype=np.int32).reshape(2, 6)

    logits = {precision: evaluated(half, precision, tokens=tokens) for precision in PRECISIONS}
    exact = evaluated(source, "float32", tokens=tokens)

    weights_alone = np.abs(logits["float32"] - exact).max()
    everything = np.abs(logits["float16"] - exact).max()
    assert 0 < weights_alone < everything < 1e-2
    assert np.abs(logits["float16"] - evaluated(source, "float16", tokens=tokens)).max() < 2e-3
