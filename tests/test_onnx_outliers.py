"""Large channels of ONNX activations: they are found on random inputs, and taken out of the way of the others."""

import logging
from logging.handlers import MemoryHandler
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from edgeseq import converters, onnx_file, quantize
from edgeseq.artifact import Artifact
from edgeseq.capture import Call, capture, capture_calls
from edgeseq.devices import runtimes
from edgeseq.quantize import Scheme, _outliers
from edgeseq.quantize._activations import observed
from edgeseq.signature import Dim

WIDTH, HIDDEN, LARGE = 48, 256, 60.0
X = np.random.default_rng(1).standard_normal((2, 11, WIDTH), dtype=np.float32)


class Block(nn.Module):
    """A norm with one large channel and a feed-forward with one large neuron; post-norm: the residual reads the norm too."""

    def __init__(self, *, post: bool, large: float) -> None:
        super().__init__()
        self.post = post
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        with torch.no_grad():
            self.norm.weight[7] *= large
            self.up.weight[:, 7] /= large
            self.up.weight[5] *= large
            self.down.weight[:, 5] /= large

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        z: Tensor = self.down(nn.functional.gelu(self.up(y)))
        return z + y if self.post else z


def converted(post: bool, large: float, folder: Path) -> Artifact:
    torch.manual_seed(0)
    shapes = {"x": {0: Dim(name="batch", min=1, max=8), 1: Dim(name="time", min=1, max=64)}}
    captured = capture(Block(post=post, large=large).eval(), {"x": torch.randn(2, 5, WIDTH)}, shapes)
    return converters.convert(captured, "onnx", folder, model="m")


Blocks = dict[tuple[bool, float], Artifact]


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Blocks:
    """By whether the block is post-norm, and by how large its large channels are."""
    cases = [(post, large) for post in (False, True) for large in (1, LARGE)]
    return {case: converted(*case, tmp_path_factory.mktemp("block")) for case in cases}


def run(path: Path) -> np.ndarray:
    return runtimes.for_format("onnx").load(path, (), threads=1).run({"x": X})["logits"]


def rewritten(floating: Artifact, folder: Path) -> Path:
    """The float32 file with its outliers taken out, not yet rounded."""
    model = ir.load(floating.path)
    sites = _outliers.sites(model)
    _outliers.take_out(model, sites, observed(floating.path, [site.name for site in sites]))
    ir.save(model, folder / "rewritten.onnx")
    return folder / "rewritten.onnx"


@pytest.mark.parametrize("post", [False, True])
def test_float_values_stay_the_same(post: bool, blocks: Blocks, tmp_path: Path) -> None:
    floating = blocks[post, LARGE]

    path = rewritten(floating, tmp_path)

    expected = run(floating.path)
    np.testing.assert_allclose(run(path), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("post", "divisions"), [(False, 0), (True, 1)])
def test_a_norm_divides_by_itself_where_nobody_else_reads_it(
    post: bool, divisions: int, blocks: Blocks, tmp_path: Path
) -> None:
    path = rewritten(blocks[post, LARGE], tmp_path)

    operators = [node.op_type for node in ir.load(path).graph]

    assert operators.count("Mul") == divisions
    assert operators.count("Gelu") == 2  # the large neuron goes its own way
    assert operators.count("LayerNormalization") == 1


@pytest.mark.parametrize("post", [False, True])
def test_large_channels_cost_the_others_no_steps(post: bool, blocks: Blocks, tmp_path: Path) -> None:
    losses = [error_db(blocks[post, large], tmp_path) for large in (1, LARGE)]

    # A channel 60 times as large as the others would leave them 60 times coarser steps: 36 dB.
    assert losses[1] <= losses[0] + 6


def error_db(floating: Artifact, folder: Path) -> float:
    """Power of the error of int8 relative to the values'."""
    artifact = quantize.quantize(floating, Scheme.parse("dynamic_wi8_afp32"), folder / "int8")
    expected, actual = run(floating.path), run(artifact.path)
    return float(10 * np.log10(np.square(actual - expected).sum() / np.square(expected).sum()))


def test_a_model_without_large_channels_is_left_alone(blocks: Blocks, tmp_path: Path) -> None:
    floating = blocks[False, 1]

    path = rewritten(floating, tmp_path)

    assert [n.op_type for n in ir.load(path).graph] == [n.op_type for n in ir.load(floating.path).graph]


def test_what_is_stored_still_tells_its_layer(blocks: Blocks, tmp_path: Path) -> None:
    artifact = quantize.quantize(blocks[True, LARGE], Scheme.parse("dynamic_wi8_afp32"), tmp_path)

    names = [name.removeprefix("model.") for name in ir.load(artifact.path).graph.initializers]

    assert {name.partition(".")[0] for name in names} == {"norm", "up", "down"}


class Chooser(nn.Module):
    """Rows of a table that a float input chooses: random ones lie outside of it."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm, self.linear = nn.Embedding(4, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(self.norm(self.table((1000 * x).abs().long())))
        return y


def test_a_model_that_refuses_random_inputs_is_quantized_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = MemoryHandler(capacity=9)
    logger = logging.getLogger("edgeseq.quantize.onnx")
    monkeypatch.setattr(logger, "handlers", [heard])
    monkeypatch.setattr(logger, "level", logging.WARNING)  # whatever the root logger's is
    torch.manual_seed(0)
    floating = converters.convert(capture(Chooser(), {"x": torch.zeros(2, 5)}), "onnx", tmp_path / "fp32", model="m")

    artifact = quantize.quantize(floating, Scheme.parse("dynamic_wi8_afp32"), tmp_path / "int8")

    assert "refuses random inputs" in heard.buffer[0].getMessage()
    assert "MatMulInteger" in [node.op_type for node in ir.load(artifact.path).graph]


class TwoWays(Block):
    """The block on inputs as they are and on squashed ones: which channels are large differs."""

    def encode(self, x: Tensor) -> Tensor:
        y: Tensor = self(x)
        return y

    def step(self, x: Tensor) -> Tensor:
        y: Tensor = self(torch.tanh(x))
        return y


def test_programs_still_share_the_weights_that_outliers_change(tmp_path: Path) -> None:
    torch.manual_seed(0)
    axes = {0: Dim(name="batch", min=1, max=8), 1: Dim(name="time", min=1, max=64)}
    calls = [
        Call(name=name, method=name, examples={"x": torch.randn(2, 5, WIDTH)}, dynamic_shapes={"x": axes})
        for name in ("encode", "step")
    ]
    captured = capture_calls(TwoWays(post=True, large=LARGE).eval(), calls)
    floating = converters.convert(captured, "onnx", tmp_path / "fp32", model="m")

    artifact = quantize.quantize(floating, Scheme.parse("dynamic_wi8_afp32"), tmp_path / "int8")

    share = 1 / 4 + _outliers.APART / HIDDEN  # of bytes: integers, and the neurons that stay float32
    assert onnx_weights(artifact) <= 1.02 * share * onnx_weights(floating)
    assert all("apart" in " ".join(n.name or "" for n in ir.load(p).graph) for p in artifact.path.glob("*.onnx"))


def onnx_weights(artifact: Artifact) -> int:
    """Bytes of the file that the programs share."""
    return (artifact.path / onnx_file.WEIGHTS).stat().st_size
