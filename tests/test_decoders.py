"""Decoders: prefill and step of one capture, with a cache, equal the whole sequence and transformers' GPT-2 in each format."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from edgeseq import converters, quantize
from edgeseq.artifact import Artifact
from edgeseq.capture import Call, CapturedModel, capture_calls
from edgeseq.devices import runtimes
from edgeseq.errors import RequestError
from edgeseq.models.gpt import GPT, GPTSpec
from edgeseq.operators.cached_attention import cached_attention, causal_mask
from edgeseq.quantize import Scheme
from edgeseq.reference import Case, Reference
from edgeseq.signature import Run, Signature, State, Tensors, TensorSpec
from edgeseq.stream import CAPACITY_STEP, Stream
from edgeseq.tasks.generation import beam_search, greedy, token_agreement
from edgeseq.verify import verify

FORMATS = converters.names()
SPEC = GPTSpec(n_vocab=2000, d_model=64, n_layers=2, n_heads=4, max_length=80)
PROMPT = np.random.default_rng(1).integers(0, SPEC.n_vocab, (1, 7), dtype=np.int32)
NEW_TOKENS = 40

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:copyreg", "ignore:.*LeafSpec.*:FutureWarning")


@pytest.fixture(scope="module")
def gpt2() -> GPT2LMHeadModel:
    """Weights large enough for logits that tell tokens apart."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=SPEC.n_vocab,
        n_positions=SPEC.max_length,
        n_embd=SPEC.d_model,
        n_layer=SPEC.n_layers,
        n_head=SPEC.n_heads,
        initializer_range=0.15,
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module")
def model(gpt2: GPT2LMHeadModel) -> GPT:
    ours = GPT(SPEC).eval()
    ours.load_state_dict(copied(gpt2.transformer.state_dict()))
    return ours


def copied(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """GPT-2's weights by our names; its Conv1D holds transposed matrices, one for queries, keys and values."""
    ours = {"embedding.weight": theirs["wte.weight"], "position.weight": theirs["wpe.weight"]}
    ours |= {f"norm.{kind}": theirs[f"ln_f.{kind}"] for kind in ("weight", "bias")}
    pairs = {"ln_1": "attention_norm", "ln_2": "feedforward_norm"}
    products = {"attn.c_proj": "attention.output", "mlp.c_fc": "up", "mlp.c_proj": "down"}
    for i in range(SPEC.n_layers):
        for kind in ("weight", "bias"):
            ours |= {f"blocks.{i}.{new}.{kind}": theirs[f"h.{i}.{old}.{kind}"] for old, new in pairs.items()}
            ours |= {f"blocks.{i}.{new}.{kind}": theirs[f"h.{i}.{old}.{kind}"].t() for old, new in products.items()}
            parts = theirs[f"h.{i}.attn.c_attn.{kind}"].chunk(3, dim=-1)
            for name, part in zip(("query", "key", "value"), parts, strict=True):
                ours[f"blocks.{i}.attention.{name}.{kind}"] = part.t()
    return ours


@pytest.fixture(scope="module")
def captured(model: GPT) -> CapturedModel:
    return capture_calls(model, model.calls())


@pytest.fixture(scope="module")
def artifacts(captured: CapturedModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """By format, converted when first asked for."""
    folder = tmp_path_factory.mktemp("gpt")

    class OnDemand(dict[str, Artifact]):
        def __missing__(self, format: str) -> Artifact:
            self[format] = converters.convert(captured, format, folder / format, model="gpt")
            return self[format]

    return OnDemand()


def stream_of(artifact: Artifact, batch: int = 1) -> Stream:
    runtime = runtimes.for_format(artifact.format)
    session = runtime.load(artifact.path, artifact.signatures, threads=1)
    return runtime.stream(session, artifact.signatures, {"batch": batch})


@pytest.fixture(scope="module")
def program(captured: CapturedModel) -> Run:
    """The captured program in PyTorch, which serves both signatures."""
    signature, module = captured.signature_of("prefill"), captured.programs["prefill"].module()

    def run(inputs: Tensors, _: str) -> dict[str, np.ndarray]:
        with torch.no_grad():
            results = module(*(torch.from_numpy(inputs[spec.name]) for spec in signature.inputs))
        return {spec.name: value.numpy() for spec, value in zip(signature.outputs, results, strict=True)}

    return run


def in_chunks(stream: Stream, tokens: np.ndarray, lengths: list[int]) -> np.ndarray:
    """The logits after each chunk: tokens (B, T) -> (chunks, B, V)."""
    logits, start = [], 0
    for length in lengths:
        chunk = tokens[:, start : start + length]
        logits.append(stream.run({"tokens": chunk}, "step" if length == 1 else "prefill")["logits"])
        start += length
    return np.stack(logits)


@torch.no_grad()
def whole(model: GPT, tokens: np.ndarray, lengths: list[int]) -> np.ndarray:
    """What the model without a cache computes at the ends of the chunks."""
    ends = np.cumsum(lengths) - 1
    return model(torch.from_numpy(tokens).long()).numpy()[:, ends].transpose(1, 0, 2)


def test_model_computes_what_gpt2_computes(gpt2: GPT2LMHeadModel, model: GPT) -> None:
    tokens = torch.randint(0, SPEC.n_vocab, (3, 21))

    with torch.no_grad():
        expected, actual = gpt2(tokens).logits, model(tokens)

    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=1e-5)


@given(count=st.integers(1, 5), capacity=st.integers(1, 9), used=st.lists(st.integers(0, 9), min_size=1, max_size=3))
def test_cached_attention_is_attention_to_all_rows_so_far(count: int, capacity: int, used: list[int]) -> None:
    position = torch.tensor([min(rows, capacity) for rows in used])
    torch.manual_seed(count)
    q, k, v = torch.randn(3, len(used), 2, count, 4).unbind()
    keys, values = torch.randn(2, len(used), 2, capacity, 4).unbind()

    actual = cached_attention(q, k, v, keys, values, causal_mask(position, count, capacity))

    for row, rows in enumerate(position.tolist()):
        every_key, every_value = (torch.cat([a[row, :, :rows], b[row]], 1) for a, b in ((keys, k), (values, v)))
        seen = torch.ones(count, rows + count, dtype=torch.bool).tril(rows)
        expected = F.scaled_dot_product_attention(q[row], every_key, every_value, attn_mask=seen)
        torch.testing.assert_close(actual[row], expected)


@settings(max_examples=12)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_any_chunks_equal_the_whole_sequence(
    lengths: list[int], seed: int, model: GPT, captured: CapturedModel, program: Run
) -> None:
    tokens = np.random.default_rng(seed).integers(0, SPEC.n_vocab, (2, sum(lengths)), dtype=np.int32)

    actual = in_chunks(Stream(program, captured.signatures, {"batch": 2}), tokens, lengths)

    np.testing.assert_allclose(actual, whole(model, tokens, lengths), atol=1e-4)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("format", FORMATS)
def test_chunks_and_steps_equal_the_whole_sequence_in_each_format(
    format: str, batch: int, model: GPT, artifacts: dict[str, Artifact]
) -> None:
    lengths = [5, 1, 1, 24, 1, 1, 1, 38, 1, 7]  # up to the last position, across every growth of the cache
    tokens = np.random.default_rng(batch).integers(0, SPEC.n_vocab, (batch, sum(lengths)), dtype=np.int32)

    actual = in_chunks(stream_of(artifacts[format], batch), tokens, lengths)

    np.testing.assert_allclose(actual, whole(model, tokens, lengths), atol=2e-4)


@pytest.mark.parametrize("format", FORMATS)
def test_rows_of_a_batch_may_be_of_different_lengths(format: str, model: GPT, artifacts: dict[str, Artifact]) -> None:
    tokens = np.random.default_rng(5).integers(0, SPEC.n_vocab, (2, 12), dtype=np.int32)
    stream = stream_of(artifacts[format], batch=2)
    stream.run({"tokens": tokens[:, :8]}, "prefill")
    stream.positions["position"] = np.array([8, 3], np.int32)  # the second row had three tokens and padding

    for t in range(3):
        inputs = np.stack([tokens[:1, 8 + t], tokens[1:, 3 + t]])
        logits = stream.run({"tokens": inputs}, "step")["logits"]

    expected = np.concatenate([whole(model, tokens[:1, :11], [11])[0], whole(model, tokens[1:, :6], [6])[0]])
    np.testing.assert_allclose(logits, expected, atol=2e-4)


@pytest.mark.parametrize("format", FORMATS)
def test_greedy_tokens_are_those_of_transformers(
    format: str, gpt2: GPT2LMHeadModel, artifacts: dict[str, Artifact]
) -> None:
    expected = generated(gpt2, num_beams=1)

    actual = greedy(stream_of(artifacts[format]), PROMPT, NEW_TOKENS)

    assert token_agreement(actual[0], expected) == 1


@pytest.mark.parametrize("format", FORMATS)
def test_beams_find_what_those_of_transformers_find(
    format: str, gpt2: GPT2LMHeadModel, artifacts: dict[str, Artifact]
) -> None:
    expected = generated(gpt2, num_beams=3)

    actual, _ = beam_search(stream_of(artifacts[format]), PROMPT, NEW_TOKENS, n_beams=3)

    assert token_agreement(actual, expected) == 1
    assert not np.array_equal(expected, generated(gpt2, num_beams=1))


def generated(gpt2: GPT2LMHeadModel, num_beams: int) -> np.ndarray:
    """The tokens that transformers generates after the prompt."""
    tokens = torch.from_numpy(PROMPT).long()
    result = gpt2.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        num_beams=num_beams,
        pad_token_id=0,
    )
    return result[0, PROMPT.shape[1] :].numpy()


class FixedOdds(Stream):
    """Says tokens 0, 1 and 2 with the same odds whatever came before."""

    def __init__(self, odds: list[float]) -> None:
        super().__init__(lambda inputs, signature: {}, [], {})
        self.logits = np.log(np.array([odds], np.float32))

    def run(self, inputs: Tensors, signature: str) -> dict[str, np.ndarray]:
        return {"logits": self.logits.repeat(len(inputs["tokens"]), 0)}


def test_a_beam_that_has_ended_says_nothing_else() -> None:
    """To end at once is likelier than anything longer, though not likelier than another first token."""
    stream = FixedOdds([0.45, 0.15, 0.4])

    tokens, score = beam_search(stream, np.zeros((1, 1), np.int32), 4, n_beams=3, end=2)

    assert tokens.tolist() == [2, 2, 2, 2]
    assert score == pytest.approx(np.log(0.4))


@pytest.mark.parametrize("count", [0, -1])
def test_no_tokens_cannot_be_asked_for(count: int) -> None:
    stream, prompt = FixedOdds([0.45, 0.15, 0.4]), np.zeros((1, 1), np.int32)

    with pytest.raises(RequestError, match=f"{count} tokens cannot be generated"):
        greedy(stream, prompt, count)
    with pytest.raises(RequestError, match=f"{count} tokens cannot be generated"):
        beam_search(stream, prompt, count, n_beams=3)


@pytest.mark.parametrize("n_beams", [0, -1])
def test_no_beams_cannot_be_asked_for(n_beams: int) -> None:
    with pytest.raises(RequestError, match=f"{n_beams} beams find nothing"):
        beam_search(FixedOdds([0.45, 0.15, 0.4]), np.zeros((1, 1), np.int32), 3, n_beams=n_beams)


def test_two_streams_of_one_session_do_not_mix(model: GPT, artifacts: dict[str, Artifact]) -> None:
    artifact, runtime = artifacts["tflite"], runtimes.for_format("tflite")
    session = runtime.load(artifact.path, artifact.signatures, threads=1)
    streams = [runtime.stream(session, artifact.signatures, {"batch": 1}) for _ in range(2)]
    tokens = np.random.default_rng(7).integers(0, SPEC.n_vocab, (2, 1, 6), dtype=np.int32)

    for t in range(6):
        last = [stream.run({"tokens": row[:, t : t + 1]}, "step") for stream, row in zip(streams, tokens, strict=True)]

    for row, outputs in zip(tokens, last, strict=True):
        np.testing.assert_allclose(outputs["logits"], whole(model, row, [6])[0], atol=2e-4)


@pytest.mark.parametrize("scheme", ["fp32", "fp16", "dynamic_wi8_afp32", "weight_only_wi8_afp32"])
@pytest.mark.parametrize("format", FORMATS)
def test_the_table_of_both_ends_is_stored_once(
    format: str, scheme: str, model: GPT, artifacts: dict[str, Artifact], tmp_path: Path
) -> None:
    parsed, artifact = Scheme.parse(scheme), artifacts[format]

    stored = artifact if scheme == "fp32" else quantize.quantize(artifact, parsed, tmp_path)

    weight_bytes = parsed.weight_bits // 8
    parameters, table = sum(p.numel() for p in model.parameters()), model.embedding.weight.numel()
    assert stored.size_bytes < weight_bytes * parameters + 0.75 * weight_bytes * table + 40_000


@pytest.mark.parametrize("format", FORMATS)
def test_quantized_steps_choose_nearly_the_same_tokens(
    format: str, model: GPT, artifacts: dict[str, Artifact], tmp_path: Path
) -> None:
    quantized = quantize.quantize(artifacts[format], Scheme.parse("dynamic_wi8_afp32"), tmp_path)
    lengths, tokens = [1] * 40, np.random.default_rng(3).integers(0, SPEC.n_vocab, (1, 40), dtype=np.int32)

    actual = in_chunks(stream_of(quantized), tokens, lengths)

    assert token_agreement(actual.argmax(-1), whole(model, tokens, lengths).argmax(-1)) >= 0.8


@pytest.mark.parametrize("format", FORMATS)
def test_each_signature_is_verified_by_its_name(
    format: str, captured: CapturedModel, program: Run, artifacts: dict[str, Artifact]
) -> None:
    cases = tuple(random_case(captured, program, name, i) for i, name in enumerate(("step", "prefill", "step")))
    artifact, runtime = artifacts[format], runtimes.for_format(format)
    session = runtime.load(artifact.path, artifact.signatures, threads=1)

    report = verify(artifact, Reference(model="gpt", cases=cases), session.run, verified_by=runtime.verified_by)

    assert report.passed, report.failures
    assert len(report.cases) == 3


def random_case(captured: CapturedModel, program: Run, name: str, number: int) -> Case:
    """A cache of random numbers, of a batch and a capacity that the capture never saw."""
    rng = np.random.default_rng(number)
    batch, capacity, time = number + 1, 9 + number, 1 if name == "step" else 6
    width = SPEC.d_model // SPEC.n_heads
    signature = captured.signature_of("prefill")
    inputs = {
        "tokens": rng.integers(0, SPEC.n_vocab, (batch, time), dtype=np.int32),
        "position": rng.integers(0, capacity, batch, dtype=np.int32),
    }
    shape = (batch, SPEC.n_heads, capacity, width)
    inputs |= {cache: rng.normal(size=shape).astype(np.float32) for cache in signature.state_inputs}
    return Case(name=f"{name} {number}", kind="parity", signature=name, inputs=inputs, outputs=program(inputs, name))


def test_step_is_a_case_of_prefill(captured: CapturedModel, tmp_path: Path) -> None:
    captured.save(tmp_path)
    loaded = CapturedModel.load(tmp_path)

    step, prefill = loaded.signatures

    assert (step.name, step.program, prefill.program) == ("step", "prefill", "prefill")
    assert step.input("tokens").shape == ("batch", 1)
    assert prefill.input("tokens").shape == ("batch", "time")
    assert step.states == prefill.states
    assert list(loaded.programs) == ["prefill"]


def test_a_cache_grows_in_steps_up_to_the_last_position(captured: CapturedModel, program: Run) -> None:
    stream = Stream(program, captured.signatures, {"batch": 2})
    tokens = np.zeros((2, SPEC.max_length - 1), np.int32)

    sizes = []
    for part in (tokens[:, :CAPACITY_STEP], tokens[:, :1], tokens[:, CAPACITY_STEP + 1 :], tokens[:, :1]):
        stream.run({"tokens": part}, "prefill")
        sizes.append(stream.states["keys_0"].shape[2])

    assert sizes == [CAPACITY_STEP, 2 * CAPACITY_STEP, SPEC.max_length, SPEC.max_length]
    with pytest.raises(RequestError, match="caches of 80 rows at most, but 81 are needed"):
        stream.run({"tokens": tokens[:, :1]}, "step")


def test_a_cache_that_is_given_its_capacity_does_not_grow(captured: CapturedModel, program: Run) -> None:
    stream = Stream(program, captured.signatures, {"batch": 2, "capacity": SPEC.max_length})

    stream.run({"tokens": np.zeros((2, 3), np.int32)}, "prefill")

    assert {state.shape[2] for state in stream.states.values()} == {SPEC.max_length}


def test_a_capacity_beyond_the_last_position_is_refused(captured: CapturedModel, program: Run) -> None:
    with pytest.raises(RequestError, match="was given the size 81 of capacity, which goes from 1 to 80"):
        Stream(program, captured.signatures, {"batch": 2, "capacity": SPEC.max_length + 1})


def test_caches_along_two_axes_share_one_position() -> None:
    """One cache has its rows along axis 1, the other along axis 2."""
    shapes: dict[str, tuple[int | str, ...]] = {"x": ("batch", "time", 3), "rows": ("batch", "capacity", 3)}
    shapes |= {"columns": ("batch", 3, "capacity"), "new_columns": ("batch", 3, "time")}
    specs = {name: TensorSpec(name=name, dtype="float32", shape=shape) for name, shape in shapes.items()}
    position = TensorSpec(name="position", dtype="int32", shape=("batch",))
    signature = Signature(
        inputs=(specs["x"], position, specs["rows"], specs["columns"]),
        outputs=(replace(specs["x"], name="new_rows"), specs["new_columns"]),
        states=(
            State(input="rows", output="new_rows", axis=1, position="position"),
            State(input="columns", output="new_columns", axis=2, position="position"),
        ),
    )
    stream = Stream(lambda i, _: {"new_rows": i["x"], "new_columns": i["x"].swapaxes(1, 2)}, [signature], {"batch": 1})
    x = np.arange(1, 22, dtype=np.float32).reshape(1, 7, 3)

    for chunk in np.split(x, [4, 5], axis=1):
        stream.run({"x": chunk}, "forward")

    assert stream.positions["position"].tolist() == [7]
    np.testing.assert_array_equal(stream.states["rows"][:, :7], x)
    np.testing.assert_array_equal(stream.states["columns"][:, :, :7], x.swapaxes(1, 2))


class TwoWays(nn.Module):
    """One matrix, used by two programs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(128, 128)

    def encode(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def score(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.layer(x) * y).sum(-1)

    def calls(self) -> tuple[Call, ...]:
        x, y = torch.randn(2, 2, 128).unbind()
        return (
            Call(name="encode", method="encode", examples={"x": x}, output_names=("code",)),
            Call(name="forward", method="score", examples={"x": x, "y": y}, output_names=("score",)),
        )


def test_programs_of_one_tflite_file_share_their_weights(tmp_path: Path) -> None:
    model = TwoWays().eval()
    artifact = converters.convert(capture_calls(model, model.calls()), "tflite", tmp_path, model="two")
    session = runtimes.for_format("tflite").load(artifact.path, artifact.signatures, threads=1)
    x, y = np.random.default_rng(0).normal(size=(2, 2, 128)).astype(np.float32)

    codes = [session.run({"x": x}, "encode")["code"] for _ in range(2)]
    score = session.run({"x": x, "y": y}, "forward")["score"]

    with torch.no_grad():
        expected = model.layer(torch.from_numpy(x)).numpy()
    for code in codes:
        np.testing.assert_allclose(code, expected, atol=1e-5)
    np.testing.assert_allclose(score, (expected * y).sum(-1), atol=1e-4)
    assert artifact.size_bytes < 1.2 * 4 * 128 * 128
