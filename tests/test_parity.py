"""The parity matrix: chunks and greedy tokens of real files against PyTorch, and each cell judged by itself."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from logging.handlers import MemoryHandler
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeseq import chunks, converters
from edgeseq.capture import Call
from edgeseq.devices import runtimes
from edgeseq.models.gpt import GPT, GPTSpec
from edgeseq.parity import ParityCase
from edgeseq.reference import Reference
from edgeseq.report.matrix import matrices
from edgeseq.signature import Dim, Signature, State, Tensors, TensorSpec
from edgeseq.sources import Loaded, _drawing, _streams, _usage
from edgeseq.stream import Stream
from edgeseq.tolerance import Tolerance
from edgeseq.verify import ParityReport, verify
from tests.test_report import build

FORMATS = converters.names()

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


class Tagger(nn.Module):
    """tokens (B, T) and the states of an LSTM -> logits (B, T, 5) and the states after the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 8)
        self.lstm = nn.LSTM(8, 8, 2, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, tokens: Tensor, h: Tensor, c: Tensor) -> dict[str, Tensor]:
        y, (hn, cn) = self.lstm(self.embedding(tokens), (h, c))
        return {"logits": self.head(y), "hn": hn, "cn": cn}


def tagger_call() -> Call:
    batch, time = Dim(name="batch", min=1, max=8), Dim(name="time", min=1, max=40)
    states = {"h": torch.randn(2, 2, 8), "c": torch.randn(2, 2, 8)}
    return Call(
        examples={"tokens": torch.randint(0, 30, (2, 7)), **states},
        dynamic_shapes={"tokens": {0: batch, 1: time}, "h": {1: batch}, "c": {1: batch}},
        states=(State(input="h", output="hn"), State(input="c", output="cn")),
        cases={"step": {"time": 1}},
    )


def loaded_from(model: nn.Module, call: Call) -> Loaded:
    usage = _usage.Usage(
        module=model.eval(),
        call=call,
        draw=_drawing.with_room(_drawing.like(call.examples, call.dynamic_shapes), call),
        unseen=_drawing.unseen_sizes(call.dynamic_shapes),
        bench=_drawing.single(call.dynamic_shapes),
    )
    return _usage.load([usage], values="random values")


@pytest.fixture(scope="module")
def tagger() -> Loaded:
    torch.manual_seed(0)
    return loaded_from(Tagger(), tagger_call())


@pytest.fixture(scope="module")
def decoder() -> Loaded:
    torch.manual_seed(0)
    model = GPT(GPTSpec(n_vocab=60, d_model=16, n_layers=1, n_heads=2, max_length=32))
    (call,) = model.calls()
    return loaded_from(model, replace(call, examples={**call.examples, "tokens": torch.randint(0, 60, (2, 3))}))


def verified(loaded: Loaded, format: str, folder: Path) -> ParityReport:
    artifact = converters.convert(loaded.captured, format, folder, model="m")
    runtime = runtimes.for_format(format)
    session = runtime.load(artifact.path, artifact.signatures, threads=1)
    streams = partial(runtime.stream, session, artifact.signatures)
    reference = Reference(model="m", cases=loaded.cases)
    return verify(artifact, reference, session.run, verified_by="", streams=streams, batch=runtime.batch)


@pytest.mark.parametrize("format", FORMATS)
def test_states_carry_an_artifact_through_chunks_to_what_pytorch_gives_for_the_whole(
    format: str, tagger: Loaded, tmp_path: Path
) -> None:
    report = verified(tagger, format, tmp_path)

    assert report.passed, report.failures
    chunked = [case for case in report.cases if case.kind == "chunked"]
    assert {case.batch for case in chunked} == {1, 3}
    assert all(len(case.chunks) > 1 and sum(case.chunks) == case.sizes["time"] for case in chunked)
    assert {case.signature for case in report.cases} == {"forward", "step"}


@pytest.mark.parametrize("format", FORMATS)
def test_a_decoder_chooses_the_tokens_that_pytorch_chooses(format: str, decoder: Loaded, tmp_path: Path) -> None:
    report = verified(decoder, format, tmp_path)

    assert report.passed, report.failures
    (greedy,) = (case for case in report.cases if case.kind == "greedy")
    assert (greedy.agreement, greedy.max_abs_error) == (1.0, None)


def test_sizes_that_are_compared_reach_from_one_step_to_the_longest(tagger: Loaded) -> None:
    tried = {case.inputs["tokens"].shape for case in tagger.cases if case.kind == "parity"}

    assert {(1, 1), (1, 40), (8, 1)} < tried
    assert tagger_call().examples["tokens"].shape not in tried


def test_states_that_are_lost_between_chunks_are_found(tagger: Loaded, tmp_path: Path) -> None:
    class Forgetful(Stream):
        def run(self, inputs: Tensors, signature: str) -> dict[str, np.ndarray]:
            self.states = {name: np.zeros_like(value) for name, value in self.states.items()}
            return super().run(inputs, signature)

    artifact = converters.convert(tagger.captured, "onnx", tmp_path, model="m")
    session = runtimes.for_format("onnx").load(artifact.path, artifact.signatures, threads=1)

    report = verify(
        artifact,
        Reference(model="m", cases=tagger.cases),
        session.run,
        verified_by="",
        streams=lambda sizes: Forgetful(session.run, artifact.signatures, sizes),
    )

    assert not report.passed
    assert "in chunks of" in report.failures[0]
    assert {case.kind for case in report.cases if case.failure(report.tolerance)} == {"chunked"}


class Averaging(nn.Module):
    """x (B, T, 8) and the state of a GRU -> the mean of its outputs (B, 8), their products (B, T, T) and the new state."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 8, batch_first=True)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, h = self.gru(x, h)
        return y.mean(1), y @ y.mT, h


@pytest.mark.parametrize("format", FORMATS)
def test_outputs_that_sum_up_over_time_are_compared_in_whole_calls_only(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    batch, time = Dim(name="batch", min=1, max=8), Dim(name="time", min=1, max=64)
    call = Call(
        examples={"x": torch.randn(2, 5, 8), "h": torch.zeros(1, 2, 8)},
        dynamic_shapes={"x": {0: batch, 1: time}, "h": {1: batch}},
        output_names=("mean", "products", "new_h"),
        states=(State(input="h", output="new_h"),),
    )
    heard = MemoryHandler(capacity=9)
    monkeypatch.setattr(_streams.logger, "handlers", [heard])
    monkeypatch.setattr(_streams.logger, "level", logging.WARNING)
    loaded = loaded_from(Averaging(), call)

    report = verified(loaded, format, tmp_path)

    assert report.passed, report.failures
    whole, chunked = ([case for case in loaded.cases if case.kind == kind] for kind in ("parity", "chunked"))
    assert all(list(case.outputs) == ["mean", "products", "new_h"] for case in whole)
    assert [list(case.outputs) for case in chunked] == [["new_h"], ["new_h"]]
    assert "output 'mean' of signature 'forward' depends on how a sequence is divided" in heard.buffer[0].getMessage()


def test_other_tokens_are_found(decoder: Loaded, tmp_path: Path) -> None:
    artifact = converters.convert(decoder.captured, "onnx", tmp_path, model="m")
    session = runtimes.for_format("onnx").load(artifact.path, artifact.signatures, threads=1)
    (greedy,) = (case for case in decoder.cases if case.kind == "greedy")
    others = replace(greedy, outputs={"tokens": (greedy.outputs["tokens"] + 1) % 60})

    report = verify(artifact, Reference(model="m", cases=(others,)), session.run, verified_by="")

    assert "greedy tokens agree to" in report.failures[0]


def test_an_output_of_another_type_than_the_signature_says_is_found(tagger: Loaded, tmp_path: Path) -> None:
    artifact = converters.convert(tagger.captured, "onnx", tmp_path, model="m")
    session = runtimes.for_format("onnx").load(artifact.path, artifact.signatures, threads=1)

    def run(inputs: Tensors, signature: str) -> dict[str, np.ndarray]:
        outputs = session.run(inputs, signature)
        return {**outputs, "hn": outputs["hn"].astype(np.float64)}

    first = next(case for case in tagger.cases if case.signature == "forward")
    report = verify(artifact, Reference(model="m", cases=(first,)), run, verified_by="")

    assert report.failures == ("hn is float64, not float32 at forward 1×1",)


@given(total=st.integers(1, 60), least=st.integers(1, 9), seed=st.integers(0, 99))
def test_chunks_fill_the_whole_and_none_is_too_short(total: int, least: int, seed: int) -> None:
    lengths = chunks.random_lengths(total, least, np.random.default_rng(seed))

    assert sum(lengths) == total
    assert min(lengths) >= min(least, total)
    assert len(lengths) > 1 or total < 2 * least


def test_a_sequence_is_what_no_state_has() -> None:
    def spec(name: str, *shape: int | str) -> TensorSpec:
        return TensorSpec(name=name, dtype="float32", shape=shape)

    dims = tuple(Dim(name=name, min=1, max=9) for name in ("batch", "time"))
    outputs = (spec("hn", 1, "batch", 4),)
    step = Signature(inputs=(spec("x", "time", "batch", 3), spec("h", 1, "batch", 4)), outputs=outputs, dims=dims)
    kept = replace(step, states=(State(input="h", output="hn"),))

    assert chunks.sequence_dim(kept) == "time"
    assert chunks.sequence_dim(step) is None
    assert chunks.sequence_dim(replace(kept, dims=dims[:1])) is None


# What a report shows of it.


def case(name: str, error: float | None = 1e-6, **more: object) -> ParityCase:
    sizes: Mapping[str, int] = dict(zip(("batch", "time"), map(int, name.split("x")), strict=True))
    numbers = {"relative_error": error, "sqnr_db": 90.0, "agreement": None, "batch": sizes["batch"]}
    return ParityCase(**{"name": name, "shapes": {}, "sizes": sizes, "max_abs_error": error, **numbers, **more})  # type: ignore[arg-type]  # of mixed types


def test_every_case_is_a_column_and_a_failing_cell_is_marked() -> None:
    report = build()
    limit = Tolerance(max_abs_error=1e-4)
    cases = (case("1x1"), case("3x40", 2e-4, agreement=0.5), case("1x24", kind="chunked", chunks=(20, 4)))
    rows = tuple(replace(row, cases=cases, tolerance=limit, batch=1) for row in report.artifacts)

    first = matrices(replace(report, artifacts=rows))[0]

    assert first.columns == ("1×1", "3×40", "in chunks\n1×24")
    assert first.dims == "batch×time"
    cells = [cell for cell in first.lines[0].cells if cell]
    assert [cell.text for cell in cells] == ["1.0e-6", "✗ 2.0e-4 50.0 %*".replace(" %", "\u00a0%"), "1.0e-6"]
    assert [bool(cell.failure) for cell in cells] == [False, True, False]
    assert "in chunks of 20+4" in cells[2].tooltip


def test_a_report_without_cases_has_no_matrix() -> None:
    assert matrices(build()) == []


def test_every_format_gets_the_same_chunks(tmp_path: Path, tagger: Loaded) -> None:
    found = [verified(tagger, format, tmp_path / format) for format in ("onnx", "tflite")]

    assert [c.chunks for c in found[0].cases] == [c.chunks for c in found[1].cases]
