"""Core ML packages for iOS 18: states that the engine keeps, several functions, and what older systems get instead."""

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

if find_spec("coremltools") is None:
    pytest.skip("coremltools is not installed", allow_module_level=True)

from edgeseq import converters, quantize
from edgeseq.artifact import Artifact
from edgeseq.capture import Call, CapturedModel, capture, capture_calls
from edgeseq.devices import runtimes
from edgeseq.devices.runtimes._mil.evaluate import Evaluated, load_functions
from edgeseq.errors import RequestError, UnsupportedError
from edgeseq.inspection import inspect
from edgeseq.models.gpt import GPT, GPTSpec
from edgeseq.operators.lstm import LSTM
from edgeseq.reference import Case, Reference
from edgeseq.report.inspection import render
from edgeseq.signature import Dim, State
from edgeseq.stream import Stream
from edgeseq.tasks.generation import beam_search, greedy
from edgeseq.verify import verify

pytestmark = pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning", "ignore::FutureWarning")

SPEC = GPTSpec(n_vocab=60, d_model=16, n_layers=1, n_heads=2, max_length=24)
BATCH = Dim(name="batch", min=1, max=8)
IOS18 = {"target": "ios18"}


@pytest.fixture(scope="module")
def gpt() -> GPT:
    torch.manual_seed(0)
    model = GPT(SPEC).eval()
    for parameter in model.parameters():
        parameter.data.mul_(3)  # logits that tell tokens apart
    return model


@pytest.fixture(scope="module")
def captured(gpt: GPT) -> CapturedModel:
    return capture_calls(gpt, gpt.calls())


@pytest.fixture(scope="module")
def artifact(captured: CapturedModel, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return converters.convert(captured, "coreml", tmp_path_factory.mktemp("gpt"), model="gpt", given=IOS18)


def stream_of(artifact: Artifact, batch: int = 1) -> Stream:
    runtime = runtimes.get("coreml_evaluator")
    session = runtime.load(artifact.path, artifact.signatures, threads=1)
    return runtime.stream(session, artifact.signatures, {"batch": batch})


@torch.no_grad()
def logits_of(model: GPT, tokens: np.ndarray) -> np.ndarray:
    """Of the whole sequence (B, T) at once, after its last token."""
    return model(torch.from_numpy(tokens).long()).numpy()[:, -1]


@pytest.mark.parametrize("batch", [1, 3])
def test_chunks_and_steps_equal_the_whole_sequence(batch: int, gpt: GPT, artifact: Artifact) -> None:
    tokens = np.random.default_rng(batch).integers(0, SPEC.n_vocab, (batch, SPEC.max_length), dtype=np.int32)
    stream, start = stream_of(artifact, batch), 0

    for length in (5, 1, 1, 9, 1, 7):
        chunk = {"tokens": tokens[:, start : start + length]}
        logits = stream.run(chunk, "step" if length == 1 else "prefill")["logits"]
        start += length
        np.testing.assert_allclose(logits, logits_of(gpt, tokens[:, :start]), atol=2e-2)
    with pytest.raises(RequestError, match="caches of 24 rows at most, but 25 are needed"):
        stream.run({"tokens": tokens[:, :1]}, "step")


def test_the_package_writes_rows_in_place_and_gives_none(artifact: Artifact) -> None:
    found = inspect(artifact.path)

    assert found.operator_counts["slice_update"] == found.operator_counts["write_state"] == 2 * SPEC.n_layers
    function = load_functions(artifact.path)["main"]
    assert function.block.outputs == ("logits",)
    assert function.state_shapes["keys_0"] == (1, 2, SPEC.max_length, 8)
    states = function.new_states()
    function({"tokens": np.array([[3, 4]], np.int32), "position": np.array([5], np.int32)}, states)
    used = np.abs(states["values_0"]).sum((0, 1, 3)) > 0
    assert used.nonzero()[0].tolist() == [5, 6]


def test_the_record_says_who_keeps_the_states(artifact: Artifact) -> None:
    loaded = Artifact.load(artifact.path.parent)

    assert {state.kept_as for signature in loaded.signatures for state in signature.states} == {"float16"}
    assert "keys_0: float32[batch, 2, capacity, 8], a state that the engine keeps in float16" in render(
        inspect(artifact.path)
    )
    (alone,) = (note for note in inspect_without_record(artifact).contents.notes)
    assert "the engine keeps the states keys_0 float16[1, 2, 24, 8], values_0" in alone


def inspect_without_record(artifact: Artifact) -> Any:
    record = artifact.path.parent / "artifact.json"
    text = record.read_text()
    record.unlink()
    try:
        return inspect(artifact.path)
    finally:
        record.write_text(text)


def test_greedy_and_beam_search_find_what_they_find_with_caches_outside(
    captured: CapturedModel, artifact: Artifact, tmp_path: Path
) -> None:
    outside = converters.convert(captured, "coreml", tmp_path, model="gpt")
    prompt = np.random.default_rng(0).integers(0, SPEC.n_vocab, (1, 4), dtype=np.int32)

    kept, given = (greedy(stream_of(a), prompt, 12) for a in (artifact, outside))
    np.testing.assert_array_equal(kept, given)
    kept, given = (beam_search(stream_of(a), prompt, 8, n_beams=3)[0] for a in (artifact, outside))
    np.testing.assert_array_equal(kept, given)


@pytest.mark.parametrize("scheme", ["fp32", "fp16", "dynamic_wi8_afp32"])
def test_verification_feeds_states_and_reads_them_back(
    scheme: str, captured: CapturedModel, artifact: Artifact, tmp_path: Path
) -> None:
    made = artifact if scheme == "fp32" else quantize.quantize(artifact, quantize.Scheme.parse(scheme), tmp_path)
    rng, program = np.random.default_rng(0), captured.programs["prefill"].module()
    cases = []
    for batch, time, capacity in ((1, 1, 9), (3, 4, 7), (2, 6, 24)):
        inputs: dict[str, np.ndarray] = {
            "tokens": rng.integers(0, SPEC.n_vocab, (batch, time), dtype=np.int32),
            "position": rng.integers(0, capacity - 5, batch, dtype=np.int32),
        }
        signature = captured.signature_of("prefill")
        inputs |= {n: rng.normal(size=(batch, 2, capacity, 8)).astype(np.float32) for n in signature.state_inputs}
        with torch.no_grad():
            values = program(*(torch.from_numpy(inputs[spec.name]) for spec in signature.inputs))
        outputs = {spec.name: value.numpy() for spec, value in zip(signature.outputs, values, strict=True)}
        name = "step" if time == 1 else "prefill"
        cases.append(Case(name=name, kind="parity", signature=name, inputs=inputs, outputs=outputs))
    session = runtimes.get("coreml_evaluator").load(made.path, made.signatures, threads=1)

    report = verify(made, Reference(model="gpt", cases=tuple(cases)), session.run, verified_by="the evaluator")

    assert report.passed, [report.failures, *report.cases]
    assert report.max_abs_error > 1e-6  # states are rounded to float16


class Tagger(nn.Module):
    """One step of an LSTM whose states go on from call to call."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = LSTM(5, 8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.lstm(x, (h, c))
        return self.head(y), h, c


def test_an_lstms_states_are_kept_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Tagger().eval()
    call = Call(
        examples={"x": torch.randn(2, 3, 5), "h": torch.zeros(2, 2, 8), "c": torch.zeros(2, 2, 8)},
        dynamic_shapes={"x": {0: BATCH, 1: Dim(name="time", min=1, max=16)}, "h": {1: BATCH}, "c": {1: BATCH}},
        output_names=("logits", "new_h", "new_c"),
        states=(State(input="h", output="new_h"), State(input="c", output="new_c")),
    )
    artifact = converters.convert(capture_calls(model, [call]), "coreml", tmp_path, model="tagger", given=IOS18)
    x = np.random.default_rng(0).normal(size=(2, 9, 5)).astype(np.float32)
    stream = stream_of(artifact, 2)

    parts = [stream.run({"x": part}, "forward")["logits"] for part in np.split(x, [4, 5], axis=1)]

    with torch.no_grad():
        whole, h, _ = model(torch.from_numpy(x), torch.zeros(2, 2, 8), torch.zeros(2, 2, 8))
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole.numpy(), atol=2e-3)
    stream.recall()
    np.testing.assert_allclose(stream.states["h"], h.numpy(), atol=2e-3)


class Translator(nn.Module):
    """What an encoder-decoder is made of: a source that is read once, and steps that look at it and at their own past."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.mix, self.head = nn.Embedding(40, 64), nn.Linear(64, 64), nn.Linear(64, 40)

    def encode(self, source: Tensor) -> Tensor:
        return self.mix(self.table(source))

    def step(self, tokens: Tensor, position: Tensor, memory: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        new = self.mix(self.table(tokens))  # (B, T, D)
        used = torch.arange(past.shape[1]) < position[:, None]  # (B, S)
        seen = (past * used[..., None]).sum(1) + new.sum(1)  # (B, D)
        focus = (memory @ new[:, -1:].mT).softmax(1) * memory  # (B, M, D)
        return self.head(seen + focus.sum(1)), new

    def calls(self) -> tuple[Call, ...]:
        source = {0: BATCH, 1: Dim(name="source_length", min=1, max=20)}
        return (
            Call(
                name="step",
                method="step",
                examples={
                    "tokens": torch.ones(2, 3, dtype=torch.int64),
                    "position": torch.tensor([0, 1]),
                    "memory": torch.randn(2, 5, 64),
                    "past": torch.zeros(2, 6, 64),
                },
                dynamic_shapes={
                    "tokens": {0: BATCH, 1: Dim(name="time", min=1, max=12)},
                    "position": {0: BATCH},
                    "memory": source,
                    "past": {0: BATCH, 1: Dim(name="capacity", min=1, max=12)},
                },
                output_names=("logits", "new_past"),
                states=(State(input="past", output="new_past", axis=1, position="position"),),
            ),
            Call(
                name="encode",
                method="encode",
                examples={"source": torch.ones(2, 5, dtype=torch.int64)},
                dynamic_shapes={"source": source},
                output_names=("memory",),
            ),
        )


@pytest.fixture(scope="module")
def translator() -> Translator:
    torch.manual_seed(0)
    return Translator().eval()


@pytest.fixture(scope="module", params=[{}, IOS18], ids=["states outside", "states kept"])
def translating(
    request: pytest.FixtureRequest, translator: Translator, tmp_path_factory: pytest.TempPathFactory
) -> Artifact:
    program = capture_calls(translator, translator.calls())
    return converters.convert(
        program, "coreml", tmp_path_factory.mktemp("two"), model="translator", given=request.param
    )


@pytest.mark.parametrize("scheme", ["fp32", "fp16", "dynamic_wi8_afp32"])
def test_an_encoder_and_a_decoder_are_functions_of_one_package_that_share_weights(
    scheme: str, translating: Artifact, translator: Translator, tmp_path: Path
) -> None:
    parsed = quantize.Scheme.parse(scheme)
    artifact = translating if scheme == "fp32" else quantize.quantize(translating, parsed, tmp_path)
    is_exact = scheme == "fp32" and not artifact.signature("step").keeps_states
    rng = np.random.default_rng(0)
    source, tokens = rng.integers(0, 40, (2, 7), dtype=np.int32), rng.integers(0, 40, (2, 6), dtype=np.int32)

    stream = stream_of(artifact, 2)
    memory = stream.run({"source": source}, "encode")["memory"]
    logits = [stream.run({"tokens": t, "memory": memory}, "step")["logits"] for t in np.split(tokens, [3, 4], axis=1)]

    with torch.no_grad():
        read = translator.encode(torch.from_numpy(source).long())
        zeros = torch.zeros(2, 1, 64), torch.zeros(2, dtype=torch.int32)
        expected = translator.step(torch.from_numpy(tokens).long(), zeros[1], read, zeros[0])[0]
    np.testing.assert_allclose(logits[-1], expected.numpy(), atol=1e-5 if is_exact else 0.2)
    weights = sum(p.numel() for p in translator.parameters()) * parsed.weight_bits // 8
    stored = artifact.path / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    assert stored.stat().st_size < 1.15 * weights + 1_000  # with scales, and every entry at a multiple of 64 bytes
    assert set(load_functions(artifact.path)) == {"encode", "step"}


@pytest.mark.parametrize("target", ["ios16", "ios17"])
def test_several_programs_need_a_system_that_has_functions(target: str, translator: Translator, tmp_path: Path) -> None:
    captured = capture_calls(translator, translator.calls())

    with pytest.raises(
        UnsupportedError, match=f"one program per package for target '{target}', but the model has step, "
    ):
        converters.convert(captured, "coreml", tmp_path, model="translator", given={"target": target})


def test_a_capacity_may_be_chosen(captured: CapturedModel, gpt: GPT, tmp_path: Path) -> None:
    artifact = converters.convert(captured, "coreml", tmp_path, model="gpt", given={**IOS18, "capacity": 6})
    stream, tokens = stream_of(artifact), np.arange(6, dtype=np.int32)[None]

    logits = stream.run({"tokens": tokens}, "prefill")["logits"]

    np.testing.assert_allclose(logits, logits_of(gpt, tokens), atol=2e-2)
    assert load_functions(artifact.path)["main"].state_shapes["keys_0"][2] == 6
    with pytest.raises(RequestError, match="caches of 6 rows at most"):
        stream.run({"tokens": tokens[:, :1]}, "step")


def test_a_capacity_beyond_what_the_model_can_use_is_refused(captured: CapturedModel, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot keep 25 rows of each cache, for the model can use 24 at most"):
        converters.convert(captured, "coreml", tmp_path, model="gpt", given={**IOS18, "capacity": 25})


def test_a_capacity_without_a_cache_is_refused(tmp_path: Path) -> None:
    captured = capture(nn.Linear(4, 4), {"input": torch.randn(2, 4)}, {"input": {0: BATCH}})

    with pytest.raises(RequestError, match="cannot keep 6 rows of each cache, for the model has no cache"):
        converters.convert(captured, "coreml", tmp_path, model="linear", given={**IOS18, "capacity": 6})


@pytest.mark.parametrize(
    ("target", "scheme", "words"),
    [
        ("ios16", "fp16", "iOS 17 or macOS 14"),
        ("ios18", "fp16", "iOS 18 or macOS 15"),
        ("ios16", "weight_only_wi4b32_afp32", "iOS 18 or macOS 15"),
    ],
)
def test_the_note_names_the_newer_of_the_systems_of_the_scheme_and_the_package(
    target: str, scheme: str, words: str, tmp_path: Path
) -> None:
    captured = capture(nn.Linear(32, 8), {"input": torch.randn(2, 32)}, {"input": {0: BATCH}})
    artifact = converters.convert(captured, "coreml", tmp_path, model="linear", given={"target": target})

    assert quantize.quantize(artifact, quantize.Scheme.parse(scheme), tmp_path / scheme).note == f"needs {words}"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"target": "ios12"}, "has no target 'ios12'; known: ios16, ios17, ios18"),
        ({"capacity": 9}, "cannot keep 9 rows of each cache; give 1 or more, with the target ios18"),
        ({"capacity": 0, **IOS18}, "cannot keep 0 rows"),
        ({"taget": "ios18"}, "unknown key 'taget'; did you mean 'target'"),
        ({"target": 18}, "'target' must be a string, not 18"),
    ],
)
def test_options_that_mean_nothing_are_refused(given: Mapping[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        converters.options("coreml", given)


class FromCoreML:
    """Stands in for coremltools' `MLModel` on macOS, the evaluator in place of Core ML."""

    def __init__(self, path: str, function_name: str | None = None):
        self.function: Evaluated = load_functions(Path(path))[function_name or "main"]

    def make_state(self) -> "StateFromCoreML":
        return StateFromCoreML(self.function)

    def predict(self, data: dict[str, np.ndarray], state: "StateFromCoreML | None") -> dict[str, np.ndarray]:
        assert set(data) == set(self.function.block.inputs) - set(self.function.state_shapes)
        return self.function(data, None if state is None else state.values)

    def _is_stateful(self) -> bool:
        return bool(self.function.state_shapes)


class StateFromCoreML:
    """Stands in for `MLState`."""

    def __init__(self, function: Evaluated):
        self.values = function.new_states()

    def read_state(self, name: str) -> np.ndarray:
        return self.values[name]

    def write_state(self, name: str, value: np.ndarray) -> None:
        assert value.shape == self.values[name].shape
        self.values[name] = value


def test_the_engine_on_macos_is_called_as_coremltools_describes(
    gpt: GPT, artifact: Artifact, translator: Translator, translating: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("coremltools.models.MLModel", FromCoreML)
    runtime = runtimes.get("coreml")
    tokens = np.random.default_rng(4).integers(0, SPEC.n_vocab, (2, 9), dtype=np.int32)
    source = {"source": tokens % 40}

    stream = runtime.stream(
        runtime.load(artifact.path, artifact.signatures, threads=1), artifact.signatures, {"batch": 2}
    )
    stream.run({"tokens": tokens[:, :8]}, "prefill")
    logits = stream.run({"tokens": tokens[:, 8:]}, "step")["logits"]
    memory = runtime.load(translating.path, translating.signatures, threads=1).run(source, "encode")["memory"]

    np.testing.assert_allclose(logits, logits_of(gpt, tokens), atol=2e-2)
    with torch.no_grad():
        np.testing.assert_allclose(
            memory, translator.encode(torch.from_numpy(source["source"]).long()).numpy(), atol=1e-5
        )


class Attending(nn.Module):
    """Attention with masks of both kinds, with a scale, and causal."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        heads = x.view(x.shape[0], x.shape[1], 2, 4).transpose(1, 2)  # (B, H, T, K)
        valid = (torch.arange(x.shape[1]) < lengths[:, None])[:, None, None]  # (B, 1, 1, T)
        attend = functional.scaled_dot_product_attention
        masked = attend(heads, heads, heads, attn_mask=valid, scale=0.7)
        added = attend(heads, heads, heads, attn_mask=(~valid).float() * -5)
        return masked + added + attend(heads, heads, heads, is_causal=True)


@pytest.mark.parametrize("target", ["ios16", "ios18"])
def test_attention_is_one_operator_where_there_is_one(target: str, tmp_path: Path) -> None:
    examples = {"x": torch.randn(2, 5, 8), "lengths": torch.tensor([5, 2])}
    shapes = {"x": {0: BATCH, 1: Dim(name="time", min=1, max=16)}, "lengths": {0: BATCH}}
    captured = capture(Attending(), examples, shapes)
    artifact = converters.convert(captured, "coreml", tmp_path, model="attending", given={"target": target})
    x, lengths = np.random.default_rng(0).normal(size=(3, 9, 8)).astype(np.float32), np.array([9, 1, 4], np.int32)

    session = runtimes.get("coreml_evaluator").load(artifact.path, artifact.signatures, threads=1)
    (actual,) = session.run({"x": x, "lengths": lengths}).values()

    expected = Attending()(torch.from_numpy(x), torch.from_numpy(lengths)).numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    counts = inspect(artifact.path).operator_counts
    assert counts.get("scaled_dot_product_attention", 0) == (3 if target == "ios18" else 0)
