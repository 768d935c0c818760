"""The words of quantization, and the ONNX schemes: sizes, and errors within half a step."""

import logging
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeseq import converters, quantize
from edgeseq.artifact import Artifact
from edgeseq.capture import capture
from edgeseq.devices import runtimes
from edgeseq.errors import RequestError, UnsupportedError
from edgeseq.quantize import Scheme
from tests import tiny

VOCABULARY, WIDTH = 1000, 64
FORMATS = ("coreml", "onnx", "tflite")
TOKENS = np.random.default_rng(0).integers(0, VOCABULARY, (3, 17)).astype(np.int32)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:copyreg", "ignore:.*LeafSpec.*:FutureWarning")


@given(
    mode=st.sampled_from(["weight_only", "dynamic"]),
    bits=st.sampled_from([4, 8]),
    block=st.none() | st.integers(1, 999),
)
def test_name_of_a_scheme_with_float_activations_parses_into_its_fields(
    mode: str, bits: int, block: int | None
) -> None:
    name = f"{mode}_wi{bits}{f'b{block}' if block else ''}_afp32"

    scheme = Scheme.parse(name)

    assert (scheme.name, scheme.mode, scheme.weight_bits) == (name, mode, bits)
    assert (scheme.block, scheme.activation_bits) == (block, None)


@pytest.mark.parametrize(("weights", "activations"), [(8, 8), (8, 16), (4, 8)])
def test_name_of_a_static_scheme_parses_into_its_fields(weights: int, activations: int) -> None:
    scheme = Scheme.parse(f"static_wi{weights}_ai{activations}")

    assert (scheme.mode, scheme.weight_bits, scheme.activation_bits) == ("static", weights, activations)


@pytest.mark.parametrize(("name", "bits"), [("fp32", 32), ("fp16", 16)])
def test_plain_floats_are_schemes(name: str, bits: int) -> None:
    assert Scheme.parse(name) == Scheme(name=name, mode="float", weight_bits=bits)


@pytest.mark.parametrize(
    "name",
    [
        "int8",
        "",
        "fp8",
        "FP16",
        "dynamic_wi8",
        "dynamic_wi8_afp32 ",
        "dynamic_wi8_afp32\n",
        "dynamic_wi8_ai8",  # dynamic activations have no type in the file
        "weight_only_wi8_ai8",
        "static_wi8_afp32",  # static without activations is no static
        "dynamic_wi3_afp32",
        "dynamic_wi8b_afp32",
        "dynamic_wi4b32_afp16",
        "xdynamic_wi8_afp32",
    ],
)
def test_what_is_not_of_the_grammar_is_refused_with_examples(name: str) -> None:
    with pytest.raises(RequestError, match="is no quantization scheme; examples: fp32, fp16, dynamic_wi8_afp32"):
        Scheme.parse(name)


@given(name=st.text(max_size=30))
def test_any_text_is_a_scheme_of_that_name_or_refused(name: str) -> None:
    try:
        scheme = Scheme.parse(name)
    except RequestError as error:
        assert repr(name)[1:-1] in str(error) or name in str(error)
    else:
        assert scheme.name == name


@pytest.mark.parametrize("format", FORMATS)
def test_every_scheme_that_a_format_offers_is_of_the_grammar_and_passes_its_check(format: str) -> None:
    offered = quantize.get(format).schemes

    for name in ("fp32", *offered):
        quantize.check(format, Scheme.parse(name))
    assert {"fp16", "dynamic_wi8_afp32"} <= set(offered)


@pytest.mark.parametrize("format", FORMATS)
def test_scheme_that_a_format_lacks_is_refused_with_those_it_has(format: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        quantize.check(format, Scheme.parse("static_wi4_ai16"))

    able = ", ".join(quantize.get(format).schemes)
    assert str(caught.value) == f"format '{format}' cannot express scheme 'static_wi4_ai16'; it can: fp32, {able}"


def test_unknown_format_is_refused_with_the_nearest() -> None:
    with pytest.raises(RequestError, match="there is no quantizer 'tflit'; did you mean 'tflite'"):
        quantize.check("tflit", Scheme.parse("fp16"))


# ONNX on a real model, whose weights are most of its file.


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("schemes")
    captured = tiny.captured(tiny.model(VOCABULARY, WIDTH))
    floating = converters.convert(captured, "onnx", folder / "fp32", model="m")
    schemes = quantize.get("onnx").schemes
    return {
        "fp32": floating,
        **{name: quantize.quantize(floating, Scheme.parse(name), folder / name) for name in schemes},
    }


def run(artifact: Artifact) -> np.ndarray:
    session = runtimes.for_format("onnx").load(artifact.path, artifact.signatures, threads=1)
    return session.run({"tokens": TOKENS})["logits"]


@pytest.mark.parametrize(
    ("scheme", "bytes_a_weight"), [("fp32", 4), ("fp16", 2), ("dynamic_wi8_afp32", 1), ("weight_only_wi8_afp32", 1)]
)
def test_file_takes_what_the_scheme_says_a_weight_takes(
    artifacts: dict[str, Artifact], scheme: str, bytes_a_weight: int
) -> None:
    weights = sum(p.numel() for p in tiny.model(VOCABULARY, WIDTH).parameters())
    scales = 4 * (VOCABULARY + 4 * WIDTH * 2 + 64) if bytes_a_weight == 1 else 0  # float32, a channel each
    graph = 12_000  # names, shapes and metadata

    size = artifacts[scheme].size_bytes

    assert weights * bytes_a_weight <= size + 4 * WIDTH * 4 * 4  # biases stay float32, and may be merged
    assert size <= weights * bytes_a_weight + 3 * 4 * WIDTH * 8 + scales + graph


def test_quantized_artifact_names_its_parent_and_scheme(artifacts: dict[str, Artifact]) -> None:
    for scheme, artifact in artifacts.items():
        assert artifact.scheme == scheme
        assert artifact.parent_sha256 == (None if scheme == "fp32" else artifacts["fp32"].sha256)
        assert artifact.signatures == artifacts["fp32"].signatures
        assert Artifact.load(artifact.path.parent) == artifact


def test_quantization_leaves_its_input_as_it_was(artifacts: dict[str, Artifact]) -> None:
    assert Artifact.load(artifacts["fp32"].path.parent) == artifacts["fp32"]


@pytest.mark.parametrize("format", FORMATS)
def test_quantization_leaves_the_root_logger_as_it_was(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    floating = converters.convert(tiny.captured(tiny.model()), format, tmp_path / "fp32", model="m")
    monkeypatch.setattr(logging.getLogger(), "level", logging.DEBUG)

    quantize.quantize(floating, Scheme.parse("dynamic_wi8_afp32"), tmp_path / "int8")

    assert logging.getLogger().level == logging.DEBUG


@pytest.mark.parametrize("scheme", ["fp16", "dynamic_wi8_afp32", "weight_only_wi8_afp32"])
def test_quantization_gives_the_same_bytes_again(artifacts: dict[str, Artifact], scheme: str, tmp_path: Path) -> None:
    again = quantize.quantize(artifacts["fp32"], Scheme.parse(scheme), tmp_path)

    assert again.sha256 == artifacts[scheme].sha256


def test_float32_file_equals_torch(artifacts: dict[str, Artifact]) -> None:
    with torch.no_grad():
        expected = tiny.model(VOCABULARY, WIDTH)(torch.from_numpy(TOKENS).long())

    np.testing.assert_allclose(run(artifacts["fp32"]), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("scheme", "sqnr_db"),
    # A weight drawn evenly from ±m has a signal of m²/3; rounding to steps of m/127 adds (m/127)²/12: 48 dB a layer. Rounded
    # activations add as much again. Half precision has 11 bits: over 66 dB. Ten are left for what three layers add up.
    [("fp16", 56), ("weight_only_wi8_afp32", 38), ("dynamic_wi8_afp32", 25)],
)
def test_logits_are_as_close_as_the_scheme_allows(artifacts: dict[str, Artifact], scheme: str, sqnr_db: float) -> None:
    expected, actual = run(artifacts["fp32"]), run(artifacts[scheme])

    ratio = np.square(expected).sum() / np.square(actual - expected).sum()

    assert 10 * np.log10(ratio) >= sqnr_db


def test_dynamic_scheme_computes_the_lstm_in_integers(artifacts: dict[str, Artifact]) -> None:
    operators = [node.op_type for node in ir.load(artifacts["dynamic_wi8_afp32"].path).graph]

    assert "DynamicQuantizeLSTM" in operators
    assert "MatMulInteger" in operators
    assert not {"LSTM", "MatMul", "Gemm"} & set(operators)


def test_note_says_where_a_scheme_is_less_than_its_name(artifacts: dict[str, Artifact]) -> None:
    assert artifacts["dynamic_wi8_afp32"].note == ""
    assert "computed in float32" in artifacts["fp16"].note
    assert "computed in float32" in artifacts["weight_only_wi8_afp32"].note


class Table(nn.Module):
    """A table that is read and nothing else: its outputs are its weights. Rows differ in size by a factor of 10⁶."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        with torch.no_grad():
            self.embedding.weight.mul_(torch.logspace(-4, 2, 50)[:, None])
            self.embedding.weight[7] = 0

    def forward(self, tokens: Tensor) -> Tensor:
        rows: Tensor = self.embedding(tokens)
        return rows


@pytest.mark.parametrize("scheme", ["weight_only_wi8_afp32", "dynamic_wi8_afp32", "fp16"])
def test_rows_of_a_table_are_within_half_a_step_of_their_own(scheme: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Table()
    floating = converters.convert(tiny.captured(model), "onnx", tmp_path / "fp32", model="m")
    artifact = quantize.quantize(floating, Scheme.parse(scheme), tmp_path / scheme)
    session = runtimes.for_format("onnx").load(artifact.path, artifact.signatures, threads=1)

    rows = session.run({"tokens": np.arange(50, dtype=np.int32)[None]})["logits"][0]

    table = model.embedding.weight.detach().numpy()
    if scheme == "fp16":  # 11 bits of mantissa; below 2⁻¹⁴ steps of 2⁻²⁴
        half_step = np.maximum(np.abs(table) * 2.0**-11, 2.0**-25)
    else:
        half_step = np.abs(table).max(axis=1, keepdims=True) / 127 / 2 * np.ones_like(table)
    assert (np.abs(rows - table) <= half_step * (1 + 1e-5)).all()
    assert not rows[7].any()


class Tied(nn.Module):
    """A table of tokens that is the head's matrix too, on (B, T, D) as a model of masked words has it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm = nn.Embedding(VOCABULARY, WIDTH), nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        y: Tensor = self.head(self.norm(self.embedding(tokens)))
        return y


def test_a_table_that_is_embedding_and_head_is_stored_once_by_every_scheme(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Tied().eval()
    floating = converters.convert(tiny.captured(model), "onnx", tmp_path / "fp32", model="m")
    expected = model(torch.from_numpy(TOKENS)).detach().numpy()
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())

    for scheme, most in (("fp32", 1.01), ("fp16", 0.51), ("weight_only_wi8_afp32", 0.3), ("dynamic_wi8_afp32", 0.29)):
        artifact = floating
        if scheme != "fp32":
            artifact = quantize.quantize(floating, Scheme.parse(scheme), tmp_path / scheme)
        session = runtimes.for_format("onnx").load(artifact.path, artifact.signatures, threads=1)
        logits = session.run({"tokens": TOKENS})["logits"]

        assert artifact.size_bytes <= most * weights
        assert (logits * expected).sum() / np.linalg.norm(logits) / np.linalg.norm(expected) > 0.999
        operators = [node.op_type for node in ir.load(artifact.path).graph]
        assert "MatMulInteger" in operators or scheme != "dynamic_wi8_afp32"


def test_signatures_of_every_offered_scheme_can_be_loaded_by_the_engine(artifacts: dict[str, Artifact]) -> None:
    for artifact in artifacts.values():
        assert run(artifact).shape == (3, 17, 3)


class Uneven(nn.Module):
    """One linear layer, where one input's weights are 50 times as large as the others' and would coarsen their steps."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 16)
        with torch.no_grad():
            self.linear.weight[:, 3].mul_(50)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return y


def test_a_large_weight_does_not_coarsen_the_steps_of_other_inputs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Uneven().eval(), torch.randn(64, 32)
    x[:, 3] = 0
    floating = converters.convert(capture(model, {"x": x}), "onnx", tmp_path / "fp32", model="m")
    artifact = quantize.quantize(floating, Scheme.parse("weight_only_wi8_afp32"), tmp_path / "int8")
    session = runtimes.for_format("onnx").load(artifact.path, artifact.signatures, threads=1)

    error = session.run({"x": x.numpy()})["logits"] - model(x).detach().numpy()

    step = model.linear.weight.detach().abs().max().item() / 127  # of every weight, had a row one scale alone
    alone = np.sqrt(31 / 12) * step  # what 31 weights rounded to such steps add up to
    assert np.sqrt(np.square(error).mean()) < alone / 3


class OneSided(nn.Module):
    """One linear layer, where one weight of each output is far above the others."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 16)
        with torch.no_grad():
            self.linear.weight[torch.arange(16), torch.arange(16)] = 20.0

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return y


@pytest.mark.parametrize("format", FORMATS)
def test_integers_of_weights_alone_begin_where_the_weights_begin(format: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = OneSided().eval(), torch.randn(1, 32)
    x[0, :16] = 0
    floating = converters.convert(capture(model, {"x": x}), format, tmp_path / "fp32", model="m")
    artifact = quantize.quantize(floating, Scheme.parse("weight_only_wi8_afp32"), tmp_path / "int8")
    session = runtimes.for_format(format).load(artifact.path, artifact.signatures, threads=1)

    error = session.run({"x": x.numpy()})["logits"] - model(x).detach().numpy()

    weight = model.linear.weight.detach()
    step = (weight.amax() - weight.amin()).item() / 255  # ± the largest weight would take twice as much
    assert np.sqrt(np.square(error).mean()) < 1.3 * np.sqrt(16 / 12) * step


def test_weights_are_widened_by_operators_that_the_engine_computes_once(artifacts: dict[str, Artifact]) -> None:
    operators = {node.op_type for node in ir.load(artifacts["weight_only_wi8_afp32"].path).graph}

    assert "DequantizeLinear" not in operators
