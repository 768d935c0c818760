"""What `convert` takes: which source takes what, and what programs and run folders become."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeseq import cli, converters, sources
from edgeseq.capture import CapturedModel
from edgeseq.devices import runtimes
from edgeseq.errors import RequestError
from edgeseq.sources import Loaded, _drawing
from edgeseq.sources._recurrent import whole_gru, whole_lstm, whole_rnn_relu, whole_rnn_tanh
from tests import tiny

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.export warns of its own parts


class Recurrent(nn.Module):
    """Time first, without biases: x (B, T, 6) -> (B, widths of both directions)."""

    def __init__(self, kind: Callable[..., nn.Module], **options: Any) -> None:
        super().__init__()
        self.layer = kind(6, 4, 2, bidirectional=True, bias=False, **options)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x.transpose(0, 1))[0]
        return y.mean(0)


def exported(model: nn.Module, example: Tensor, axes: Mapping[int, object], path: Path) -> Path:
    torch.export.save(torch.export.export(model.eval(), (example,), dynamic_shapes=(axes,)), path)
    return path


def load(path: Path) -> Loaded:
    source = sources.get(sources.find(path))
    return source.load(path, source.models(path)[0])


def assert_converted(loaded: Loaded, format: str, folder: Path) -> None:
    """Its file computes what its cases say."""
    artifact = converters.convert(loaded.captured, format, folder, model="model")
    session = runtimes.for_format(format).load(artifact.path, artifact.signatures, threads=1)
    calls = [case for case in loaded.cases if case.kind in ("parity", "bench")]  # others are of several calls
    for case in calls:
        actual = session.run(case.inputs, case.signature)
        for name, expected in case.outputs.items():
            np.testing.assert_allclose(actual[name], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "source"),
    [("a.py", "script"), ("a.pt2", "exported"), ("a.keras", "keras"), ("run/request.json", "run_folder"),
     ("hf/config.json", "hugging_face"), ("bare/model.safetensors", "hugging_face"), ("old/pytorch_model.bin", "hugging_face")],
)  # fmt: skip
def test_source_is_found_by_names_alone(name: str, source: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")

    assert sources.find(path if "/" not in name else path.parent) == source


@pytest.mark.parametrize("name", ["weights.onnx", "empty", "absent"])
def test_what_no_source_takes_is_refused_with_all_that_is_taken(name: str, tmp_path: Path) -> None:
    (tmp_path / "weights.onnx").write_bytes(b"")
    (tmp_path / "empty").mkdir()

    with pytest.raises(RequestError) as caught:
        sources.find(tmp_path / name)
    for known in sources.names():
        assert sources.get(known).takes in str(caught.value)


@pytest.mark.parametrize(("text", "expected"), [("my model v2", "my_model_v2"), ("..", "model"), ("a/b", "a_b")])
def test_any_text_becomes_a_file_name(text: str, expected: str) -> None:
    assert sources.file_name(text) == expected


# Exported programs.


def test_exported_program_is_captured_with_its_dimensions(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 3))
    axes = {0: torch.export.Dim("batch", max=16), 1: torch.export.Dim("time", max=40)}
    path = exported(model, torch.ones(2, 6, dtype=torch.int64), axes, tmp_path / "m.pt2")

    loaded = load(path)

    (signature,) = loaded.captured.signatures
    assert [(spec.name, spec.dtype, spec.shape) for spec in signature.inputs] == [
        ("input", "int32", ("batch", "input_axis_1"))
    ]
    assert [(dim.name, dim.min, dim.max) for dim in signature.dims] == [("batch", 1, 16), ("input_axis_1", 1, 40)]
    assert max(case.inputs["input"].max() for case in loaded.cases) > 40  # the whole table is tried
    assert_converted(loaded, "tflite", tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "options", "operator"),
    [
        (nn.LSTM, {}, "lstm"),
        (nn.LSTM, {"proj_size": 3}, "lstm"),
        (nn.GRU, {}, "gru"),
        (nn.RNN, {}, "rnn"),
        (nn.RNN, {"nonlinearity": "relu"}, "rnn"),
    ],
)
def test_recurrent_layer_of_an_exported_program_stays_whole(
    kind: Callable[..., nn.Module], options: Mapping[str, Any], operator: str, tmp_path: Path
) -> None:
    model = Recurrent(kind, **options)
    path = exported(model, torch.randn(2, 7, 6), {0: torch.export.Dim("batch", max=8)}, tmp_path / "m.pt2")

    loaded = load(path)

    (program,) = loaded.captured.programs.values()
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert called.count(f"edgeseq.{operator}.default") == 1
    assert not any(name.startswith(("aten.lstm", "aten.gru", "aten.rnn")) for name in called)
    assert_converted(loaded, "tflite", tmp_path / "out")


@pytest.mark.parametrize(("high", "bound"), [(1000, 1000), (None, 1200)])
def test_bounds_of_a_program_are_kept(high: int | None, bound: int, tmp_path: Path) -> None:
    axes = {0: torch.export.Dim("batch", min=600, max=high)}
    path = exported(nn.Linear(4, 3), torch.ones(700, 4), axes, tmp_path / "m.pt2")

    loaded = load(path)

    assert [(dim.min, dim.max) for dim in loaded.captured.signatures[0].dims] == [(600, bound)]


def test_program_whose_sizes_follow_from_each_other_is_refused(tmp_path: Path) -> None:
    half = torch.export.Dim("half", min=2, max=8)
    path = exported(nn.Identity(), torch.ones(2, 6), {1: 2 * half}, tmp_path / "m.pt2")

    with pytest.raises(RequestError, match="each dynamic axis a dimension of its own"):
        load(path)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("projection", [0, 2])
def test_atens_lstm_is_computed_by_ours(batch_first: bool, bias: bool, projection: int) -> None:
    layer = nn.LSTM(5, 3, 2, bidirectional=True, batch_first=batch_first, bias=bias, proj_size=projection)
    x, states = torch.randn(2, 2, 5), (torch.randn(4, 2, projection or 3), torch.randn(4, 2, 3))
    expected, (hn, cn) = layer(x, states)

    result = whole_lstm(x, states, list(layer.parameters()), bias, 2, 0.0, False, True, batch_first)

    for actual, wanted in zip(result, (expected, hn, cn), strict=True):
        torch.testing.assert_close(actual, wanted)


@pytest.mark.parametrize(
    ("layer", "ours"),
    [
        (nn.GRU(5, 3, 2, bidirectional=True, bias=False), whole_gru),
        (nn.RNN(5, 3, 2, bidirectional=True, bias=False), whole_rnn_tanh),
        (nn.RNN(5, 3, 2, bidirectional=True, bias=False, nonlinearity="relu"), whole_rnn_relu),
    ],
)
def test_atens_layers_of_one_state_are_computed_by_ours(layer: nn.Module, ours: Callable[..., Any]) -> None:
    x, state = torch.randn(4, 2, 5), torch.randn(4, 2, 3)
    expected = layer(x, state)

    result = ours(x, state, list(layer.parameters()), False, 2, 0.0, False, True, False)

    for actual, wanted in zip(result, expected, strict=True):
        torch.testing.assert_close(actual, wanted)


@pytest.mark.parametrize("example", [torch.tensor(True), torch.tensor(3), torch.tensor(0.5)])
def test_a_scalar_is_drawn_like_its_example(example: Tensor) -> None:
    drawn = _drawing.like({"x": example}, {})({}, np.random.default_rng(0))["x"]

    assert (drawn.shape, drawn.dtype) == (example.shape, example.dtype)


# Run folders.


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of one converted program."""
    root = tmp_path_factory.mktemp("run")
    path = exported(
        tiny.model(), torch.ones(2, 5, dtype=torch.int64), {0: torch.export.Dim("batch", max=8)}, root / "tiny.pt2"
    )
    assert (
        cli.main(["convert", str(path), "--output", str(root / "out"), "--format", "tflite", "--scheme", "fp32"]) == 0
    )
    return root / "out"


def test_run_folder_is_converted_again_to_another_scheme(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"

    code = cli.main(["convert", str(run), "--output", str(out), "--format", "tflite", "--scheme", "fp16"])

    assert code == 0
    assert (out / "artifacts/tiny/tflite/fp16/tiny.tflite").exists()
    before, after = (CapturedModel.load(folder / "models/tiny") for folder in (run, out))
    assert before.signatures == after.signatures


def test_run_folder_is_not_written_over_itself(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = (run / "request.json").read_text()

    code = cli.main(["convert", str(run), "--output", str(run), "--format", "tflite"])

    assert "choose another by --output" in capsys.readouterr().err
    assert code == 2
    assert (run / "request.json").read_text() == request


def test_run_folder_without_models_or_with_changed_ones_is_refused(run: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(run / "request.json", empty)
    changed = Path(shutil.copytree(run, tmp_path / "changed"))
    program = changed / "models/tiny/forward.pt2"
    program.write_bytes(program.read_bytes() + b"x")

    with pytest.raises(RequestError, match="holds no captured model yet"):
        load(empty)
    with pytest.raises(RequestError, match="is not the file that the run wrote"):
        load(changed)


# Scripts with several signatures.

CALLS = """
import torch
from torch import nn

from edgeseq.capture import Call
from edgeseq.signature import Dim, State


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.GRU(4, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])

    def go_on(self, x, h):
        y, h = self.layer(x, h[None])
        return self.head(y), h[0]


def score(model, code):
    return model.head(code)


def get_model():
    return Both()


def get_args():
    return (torch.randn(2, 5, 4),)


def get_calls():
    batch, time = Dim(name="batch", min=1, max=8), Dim(name="time", min=1, max=40)
    return [
        Call(
            name="prefill",
            method="go_on",
            examples={"x": torch.randn(2, 5, 4), "h": torch.randn(2, 6)},
            dynamic_shapes={"x": {0: batch, 1: time}, "h": {0: batch}},
            output_names=("y", "new_h"),
            states=(State(input="h", output="new_h"),),
            cases={"step": {"time": 1}},
        ),
        Call(name="score", method=score, examples={"code": torch.randn(2, 6)}, output_names=("score",)),
    ]
"""


def test_script_with_calls_gives_every_signature(tmp_path: Path) -> None:
    path = tmp_path / "several.py"
    path.write_text(CALLS)

    loaded = load(path)

    assert [signature.name for signature in loaded.captured.signatures] == ["step", "prefill", "score"]
    assert {case.signature for case in loaded.cases} == {"step", "prefill", "score"}
    assert [case.signature for case in loaded.cases if case.kind == "bench"] == ["step"]
    assert_converted(loaded, "tflite", tmp_path / "out")


def test_script_with_calls_may_be_captured_as_one_forward(tmp_path: Path) -> None:
    path = tmp_path / "several.py"
    path.write_text(CALLS)

    loaded = sources.get("script").load(path, "several", forward_only=True)

    assert [signature.name for signature in loaded.captured.signatures] == ["forward"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("return 3", "must return one edgeseq.capture.Call or several, not int"),
        ("return []", "must return one edgeseq.capture.Call or several, not nothing"),
        ("return [Call(examples={'x': torch.ones(2, 4)})] * 2", "gives signature 'forward' more than once"),
    ],
)
def test_wrong_calls_of_a_script_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(CALLS.partition("def get_calls")[0] + f"def get_calls():\n    {text}\n")

    with pytest.raises(RequestError, match=message):
        load(path)


def test_one_forward_cannot_be_asked_of_what_has_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = exported(nn.Linear(4, 3), torch.ones(2, 4), {}, tmp_path / "m.pt2")

    code = cli.main(["convert", str(path), "--forward-only", "--output", str(tmp_path / "out")])

    assert code == 2
    assert "has what it has; leave it out" in capsys.readouterr().err
