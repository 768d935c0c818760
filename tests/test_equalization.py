"""Equalization: the same numbers to the bit, and less noise where a channel is far larger than others."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeseq import converters, quantize
from edgeseq.artifact import Artifact
from edgeseq.capture import Call, CapturedModel, capture, capture_calls
from edgeseq.channel_scales import best_scale
from edgeseq.devices import runtimes
from edgeseq.quantize import Scheme
from edgeseq.signature import Dim

WIDTH = 32
AXES = {"x": {0: Dim(name="batch", min=1, max=8), 1: Dim(name="time", min=1, max=32)}}

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:copyreg", "ignore:.*LeafSpec.*:FutureWarning")


class Block(nn.Module):
    """A norm with a few large channels, attention over it, and one more matrix; with or without residuals after the norm."""

    def __init__(self, *, has_residual: bool, peak: float = 60.0, is_tied: bool = False, has_offset: bool = True):
        super().__init__()
        self.has_residual = has_residual
        self.norm = nn.LayerNorm(WIDTH, bias=has_offset)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.up = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(2 * WIDTH, 4)
        if is_tied:
            self.up.weight = self.value.weight
        with torch.no_grad():
            self.norm.weight[::11] *= peak
            for weight in {layer.weight for layer in (self.query, self.key, self.value, self.up)}:
                weight[:, ::11] /= peak
            self.norm.weight[5] = 0  # a channel that is always the same

    def forward(self, x: Tensor) -> Tensor:
        """X (B, T, D) -> (B, T, 4)."""
        y = nn.functional.dropout(self.norm(x), 0.1, self.training)
        heads = [part(y).unflatten(2, (4, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)]
        z = nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        logits: Tensor = self.head(torch.cat([torch.relu(self.up(y)), z], dim=2))
        return logits + y[:, :, 1:5] if self.has_residual else logits


def captured(model: nn.Module) -> CapturedModel:
    return capture(model.eval(), {"x": torch.randn(3, 7, WIDTH)}, AXES)


def is_changed(model: nn.Module, result: CapturedModel) -> bool:
    """Whether any weight of the program is another than the model's, or there are more."""
    state, own = result.programs["forward"].state_dict, model.state_dict()
    return any(
        key.removeprefix("model.") not in own or not torch.equal(value, own[key.removeprefix("model.")])
        for key, value in state.items()
    )


@settings(max_examples=6, deadline=None)
@given(
    has_residual=st.booleans(),
    has_offset=st.booleans(),
    is_tied=st.booleans(),
    peak=st.sampled_from([0.01, 1.0, 7.3, 60.0, 1e4]),
    seed=st.integers(0, 99),
)
def test_outputs_stay_equal_to_the_bit(
    has_residual: bool, has_offset: bool, is_tied: bool, peak: float, seed: int
) -> None:
    torch.manual_seed(seed)
    model = Block(has_residual=has_residual, peak=peak, is_tied=is_tied, has_offset=has_offset).eval()
    x = torch.randn(2, 13, WIDTH)
    with torch.no_grad():
        expected = model(x)

        (actual,) = captured(model).programs["forward"].module()(x)

        assert torch.equal(actual, expected)
        assert torch.equal(model(x), expected), "the model itself is left as it was"


@pytest.mark.parametrize("has_residual", [False, True])
def test_a_norm_takes_scales_into_its_own_weights_unless_a_residual_reads_it(has_residual: bool) -> None:
    torch.manual_seed(0)
    model = Block(has_residual=has_residual)

    result = captured(model)

    targets = [str(node.target) for node in result.programs["forward"].graph.nodes]
    assert is_changed(model, result)
    assert (targets.count("aten.mul.Tensor") > 0) == has_residual


def test_scales_do_not_take_the_name_of_a_buffer() -> None:
    class Named(Block):
        def __init__(self) -> None:
            super().__init__(has_residual=True)
            self.query.register_buffer("weight_scale", torch.full((WIDTH,), 3.0))
            self.register_buffer("query_weight_scale_1", torch.full((1,), 5.0))  # its placeholder's name

        def forward(self, x: Tensor) -> Tensor:
            buffers = dict(self.named_buffers())
            return super().forward(x * buffers["query.weight_scale"]) * buffers["query_weight_scale_1"]

    torch.manual_seed(0)
    model, x = Named().eval(), torch.randn(2, 5, WIDTH)

    result = captured(model)

    assert is_changed(model, result)
    torch.testing.assert_close(result.programs["forward"].module()(x)[0], model(x), rtol=0, atol=1e-5)


def test_nothing_changes_where_channels_are_alike() -> None:
    torch.manual_seed(0)
    model = Block(has_residual=True, peak=1.0)

    assert not is_changed(model, captured(model))


def test_weights_that_several_calls_share_stay_shared() -> None:
    torch.manual_seed(0)
    model, x = Block(has_residual=False), torch.randn(3, 7, WIDTH)
    calls = [Call(name=name, examples={"x": x}, dynamic_shapes=AXES) for name in ("encode", "step")]

    result = capture_calls(model, calls)

    assert all(
        torch.equal(value, model.state_dict()[key.removeprefix("model.")])
        for program in result.programs.values()
        for key, value in program.state_dict.items()
    )


def test_a_program_with_scales_is_saved_and_read_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Block(has_residual=True).eval(), torch.randn(2, 5, WIDTH)
    captured(model).save(tmp_path)

    with torch.no_grad():
        (actual,) = CapturedModel.load(tmp_path).programs["forward"].module()(x)

        assert torch.equal(actual, model(x))


@given(exponents=st.lists(st.integers(-20, 20), min_size=2, max_size=12), zeros=st.integers(0, 3))
def test_scales_are_powers_of_two_within_bounds_and_never_add_noise(exponents: list[int], zeros: int) -> None:
    generator = torch.Generator().manual_seed(len(exponents))
    x = torch.randn(20, len(exponents), generator=generator) * torch.tensor(exponents).float().exp2()
    x[:, :zeros] = 0

    gain, scale = best_scale(x, [torch.randn(4, len(exponents), generator=generator)])

    assert gain >= 1
    assert torch.equal(scale.log2(), scale.log2().round())
    assert (scale[:zeros] == 1).all()
    assert ((scale >= 1 / 16) & (scale <= 16)).all()


def error(model: nn.Module, artifact: Artifact, x: Tensor) -> float:
    """Root of the mean square of the difference from the model's outputs."""
    session = runtimes.for_format(artifact.format).load(artifact.path, artifact.signatures, threads=1)
    with torch.no_grad():
        return float(np.sqrt(np.square(session.run({"x": x.numpy()})["logits"] - model(x).numpy()).mean()))


@pytest.mark.parametrize("format", ["coreml", "onnx", "tflite"])
@pytest.mark.parametrize("has_residual", [False, True])
def test_every_format_computes_the_same(format: str, has_residual: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Block(has_residual=has_residual)

    artifact = converters.convert(captured(model), format, tmp_path, model="m")

    assert error(model, artifact, torch.randn(1, 9, WIDTH)) < 1e-5


@pytest.mark.parametrize("has_residual", [False, True])
def test_int8_activations_are_several_times_as_close(
    has_residual: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model, x, scheme = Block(has_residual=has_residual), torch.randn(1, 32, WIDTH), Scheme.parse("dynamic_wi8_afp32")

    def quantized(name: str) -> Artifact:
        floating = converters.convert(captured(model), "tflite", tmp_path / name, model="m")
        return quantize.quantize(floating, scheme, tmp_path / name / "int8")

    with_scales = error(model, quantized("with"), x)
    monkeypatch.setattr("edgeseq.capture.equalize", lambda *_: None)
    without = error(model, quantized("without"), x)

    assert with_scales < without / 2
