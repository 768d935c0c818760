"""What `convert` takes: which source takes what, and what programs and run folders become."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeseq import cli, converters, sources
from edgeseq.capture import CapturedModel
from edgeseq.devices import runtimes
from edgeseq.errors import RequestError
from edgeseq.sources import Loaded
from edgeseq.sources._recurrent import whole_gru, whole_lstm
from tests import tiny

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.export warns of its own parts


class Recurrent(nn.Module):
    """Time first, without biases: x (B, T, 6) -> (B, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 4, 2, bidirectional=True, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(x.transpose(0, 1))
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
    for case in loaded.cases:
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


def test_lstm_of_an_exported_program_stays_whole(tmp_path: Path) -> None:
    path = exported(Recurrent(), torch.randn(2, 7, 6), {0: torch.export.Dim("batch", max=8)}, tmp_path / "m.pt2")

    loaded = load(path)

    (program,) = loaded.captured.programs.values()
    targets = [node.target for node in program.graph.nodes]
    assert torch.ops.edgeseq.lstm.default in targets
    assert torch.ops.aten.lstm.input not in targets
    assert_converted(loaded, "tflite", tmp_path / "out")


def test_program_whose_sizes_follow_from_each_other_is_refused(tmp_path: Path) -> None:
    half = torch.export.Dim("half", min=2, max=8)
    path = exported(nn.Identity(), torch.ones(2, 6), {1: 2 * half}, tmp_path / "m.pt2")

    with pytest.raises(RequestError, match="each dynamic axis a dimension of its own"):
        load(path)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_atens_lstm_is_computed_by_ours(batch_first: bool, bias: bool) -> None:
    layer = nn.LSTM(5, 3, 2, bidirectional=True, batch_first=batch_first, bias=bias)
    x, states = torch.randn(2, 2, 5), (torch.randn(4, 2, 3), torch.randn(4, 2, 3))
    expected, (hn, cn) = layer(x, states)

    result = whole_lstm(x, states, list(layer.parameters()), bias, 2, 0.0, False, True, batch_first)

    for actual, wanted in zip(result, (expected, hn, cn), strict=True):
        torch.testing.assert_close(actual, wanted)


@pytest.mark.skipif(not hasattr(torch.ops.edgeseq, "gru"), reason="edgeseq::gru is not there")
def test_atens_gru_is_computed_by_ours() -> None:
    layer = nn.GRU(5, 3, 2, bidirectional=True, bias=False)
    x, state = torch.randn(4, 2, 5), torch.randn(4, 2, 3)
    expected = layer(x, state)

    result = whole_gru(x, state, list(layer.parameters()), False, 2, 0.0, False, True, False)

    for actual, wanted in zip(result, expected, strict=True):
        torch.testing.assert_close(actual, wanted)


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
