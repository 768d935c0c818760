"""The command line when the request is wrong: one line that says what to do, the right exit code, nothing half-written."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from edgeseq import cli, pipeline
from edgeseq.artifact import Artifact
from edgeseq.errors import RequestError
from edgeseq.limits import Limits
from edgeseq.sources import _script
from edgeseq.steps import source as steps
from edgeseq.worker import Job

SCRIPT = """
import torch
from torch import nn


def get_model():
    return nn.Linear(4, 3)


def get_args():
    return (torch.randn(2, 4),)
"""
RECIPE = """
name = "small"
data = "movie_snippets"
formats = ["onnx"]
schemes = ["fp32"]

[teacher]
model = "bert"
weights = "minilm_l6"
training = { epochs = 1, batch_size = 32, learning_rate = 1e-4 }

[students.one]
model = "bilstm"
training = { epochs = 1, batch_size = 64, learning_rate = 2e-3 }
"""

pytestmark = [
    pytest.mark.usefixtures("elsewhere"),
    pytest.mark.filterwarnings("ignore::FutureWarning:copyreg", "ignore:.*LeafSpec.*:FutureWarning"),
]


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line on standard error, after the lines of progress."""
        lines = [line for line in self.err.splitlines() if not line.startswith("[")]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("edgeseq: ")
        assert "Traceback" not in self.out + self.err
        return lines[0].removeprefix("edgeseq: ")


@dataclass(frozen=True)
class CommandLine:
    """Calls the command line in this process."""

    captured: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str | Path) -> Answer:
        code = cli.main([str(a) for a in arguments])
        return Answer(code, *self.captured.readouterr())


@pytest.fixture
def edgeseq(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


def written(text: str, name: str = "mymodel.py") -> Path:
    path = Path(name)
    path.write_text(text)
    return path


def leftovers(folder: Path = Path("out")) -> list[str]:
    """Everything in an output folder but logs, the lock and what is marked as unfinished."""
    if not folder.is_dir():
        return []
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(n for n in names if not n.startswith(("logs/", ".lock", ".partial/")) and n != "request.json")


# Recipes.


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('data = "', 'dataa = "', "recipe 'r.toml' has an unknown key 'dataa'; did you mean 'data'?"),
        ("epochs = 1, batch_size = 32", 'epochs = "1", batch_size = 32', "'epochs' must be an integer, not '1'"),
        ("epochs = 1, batch_size = 32", "batch_size = 32", "recipe 'r.toml': 'teacher': 'training' lacks 'epochs'"),
        ('formats = ["onnx"]', 'formats = "onnx"', "'formats' must be a list, not 'onnx'"),
        ("[teacher]", "[teacher", "recipe 'r.toml' is not TOML: "),
        ('"movie_snippets"', '"movie_snipets"', "there is no data 'movie_snipets'; did you mean 'movie_snippets'?"),
        ('"bilstm"', '"blstm"', "there is no model 'blstm'; did you mean 'bilstm'?"),
        ('["onnx"]', '["onx"]', "there is no converter 'onx'; did you mean 'onnx'?"),
        ('["fp32"]', '["int8"]', "'int8' is no quantization scheme; examples: fp32, fp16, dynamic_wi8_afp32"),
    ],
)
def test_wrong_recipe_is_refused_before_any_work(edgeseq: CommandLine, old: str, new: str, message: str) -> None:
    assert RECIPE.count(old) == 1
    written(RECIPE.replace(old, new), "r.toml")

    answer = edgeseq("run", "r.toml", "--output", "out")

    assert message in answer.line
    assert answer.code == 2
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "movie-sentimnt",
            "there is no recipe 'movie-sentimnt'; did you mean 'movie-sentiment'? known: movie-sentiment",
        ),
        ("absent.toml", "recipe 'absent.toml' cannot be read: No such file or directory"),
        ("..", "there is no recipe '..'"),
    ],
)
def test_recipe_that_does_not_exist_is_refused(edgeseq: CommandLine, name: str, message: str) -> None:
    answer = edgeseq("run", name)

    assert message in answer.line
    assert answer.code == 2
    assert not Path("runs").exists()


# Requests to convert.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--format", "onxx"), "there is no converter 'onxx'; did you mean 'onnx'? known: coreml, onnx, tflite"),
        (("--format", "onnx", "--scheme", "int8"), "'int8' is no quantization scheme; examples: fp32"),
        (
            ("--format", "onnx", "--scheme", "static_wi8_ai8"),
            "format 'onnx' cannot express scheme 'static_wi8_ai8'; it can: fp32",
        ),
    ],
)
def test_unknown_format_or_scheme_is_refused_before_any_work(
    edgeseq: CommandLine, options: Sequence[str], message: str
) -> None:
    answer = edgeseq("convert", written(SCRIPT), "--output", "out", *options)

    assert message in answer.line
    assert answer.code == 2
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("absent.py", "'absent.py' does not exist; it takes "),
        ("model.pt", "'model.pt' is nothing that `convert` takes; it takes "),
        ("folder.py", "'folder.py' is nothing that `convert` takes; it takes "),
    ],
)
def test_what_no_source_takes_is_refused(edgeseq: CommandLine, model: str, message: str) -> None:
    Path("model.pt").write_bytes(b"weights")
    Path("folder.py").mkdir()

    answer = edgeseq("convert", model, "--output", "out", "--format", "onnx")

    assert answer.line.startswith(message)
    for taken in ("a Python script with get_model() and get_args()", "a .pt2 file", "a Hugging Face folder"):
        assert taken in answer.line
    assert answer.code == 2
    assert not Path("out").exists()


@pytest.mark.parametrize("output", ["a_file", "a_file/below", "a_full_folder"])
def test_output_folder_that_cannot_be_used_is_refused_and_left_alone(edgeseq: CommandLine, output: str) -> None:
    Path("a_file").write_text("precious")
    Path("a_full_folder").mkdir()
    (Path("a_full_folder") / "thesis.txt").write_text("precious")

    answer = edgeseq("convert", written(SCRIPT), "--output", output, "--format", "onnx")

    assert f"output folder '{output}'" in answer.line
    assert "choose another by --output" in answer.line
    assert answer.code == 2
    assert sorted(p.name for p in Path().rglob("*") if p.is_file()) == ["a_file", "mymodel.py", "thesis.txt"]
    assert Path("a_file").read_text() == (Path("a_full_folder") / "thesis.txt").read_text() == "precious"


def test_missing_package_names_the_extra_and_exits_with_4(
    edgeseq: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("edgeseq.converters.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # how Python marks a module as missing

    answer = edgeseq("convert", written(SCRIPT), "--output", "out", "--format", "onnx")

    assert "converter 'onnx' needs the package 'onnxscript'" in answer.line
    assert "pip install 'edgeseq[onnx]'" in answer.line
    assert answer.code == 4
    assert not Path("out").exists()


# Scripts: what the stage says, word by word; then one of them through the whole command.


@pytest.mark.parametrize(("low", "high"), [(8, 2), (3, 3), (0, 4), (-1, 4)])
def test_bounds_that_do_not_rise_are_refused(low: int, high: int) -> None:
    message = raised_by(shapes(f'{{"input": {{0: ("batch", {low}, {high})}}}}'))

    assert message == f"dimension 'batch' runs from {low} to {high}; it must rise, from 1 or more"


def raised_by(text: str) -> str:
    """The error of capturing a script, which is one line, and nothing was written."""
    out = Path("captured")
    out.mkdir()
    settings = {
        "source": "script",
        "path": str(written(text).resolve()),
        "model": "mymodel",
        "forward_only": False,
    }
    job = Job(settings=settings, needs={}, out=out, progress=lambda done, total, what: None)
    with pytest.raises(RequestError) as caught:
        steps.work(job)
    assert list(out.iterdir()) == []
    assert caught.value.exit_code == 2
    return str(caught.value)


def shapes(body: str) -> str:
    return f"{SCRIPT}\n\ndef get_dynamic_shapes():\n    return {body}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            SCRIPT.replace("get_model", "get_modle"),
            "script 'mymodel.py' has no function get_model(); it needs get_model() and",
        ),
        (
            SCRIPT.replace("get_args", "args"),
            "script 'mymodel.py' has no function get_args(); it needs get_model() and",
        ),
        ("get_model = 3", "script 'mymodel.py' has no function get_model()"),
        (
            "import nothing_of_this_name",
            "script 'mymodel.py' raised ModuleNotFoundError: No module named 'nothing_of_this_name' (line 1 of ",
        ),
        ("x = 1\nraise ValueError('no luck')", "script 'mymodel.py' raised ValueError: no luck (line 2 of "),
        ("import sys\nsys.exit(3)", "script 'mymodel.py' raised SystemExit: 3 (line 2 of "),
        ("def f(:", "script 'mymodel.py' raised SyntaxError: "),
        (
            SCRIPT.replace("return nn.Linear(4, 3)", "return 1 / 0"),
            "get_model() in 'mymodel.py' raised ZeroDivisionError: division by zero (line 7",
        ),
        (
            SCRIPT.replace("return nn.Linear(4, 3)", "return nn.Linear"),
            "get_model() must return a torch.nn.Module, not type",
        ),
        (
            SCRIPT.replace("return nn.Linear(4, 3)", "return None"),
            "get_model() must return a torch.nn.Module, not NoneType",
        ),
        (SCRIPT.replace("torch.randn(2, 4),", "[1.0, 2.0],"), "get_args() must give tensors, but 'input' is list"),
        (SCRIPT.replace("(2, 4)", "(0, 4)"), "the example of input 'input' has shape [0, 4], which holds no value"),
        (SCRIPT.replace("(2, 4)", "(2, 5)"), "torch.export refuses the model: "),
        (shapes('{"inptu": {0: "batch"}}'), "there is no input 'inptu'; did you mean 'input'? known: input"),
        (
            shapes('{"input": {2: "batch"}}'),
            "axis 2 of 'input' is dynamic, but its example has shape [2, 4]",
        ),
        (
            shapes('{"input": {0: 7}}'),
            "get_dynamic_shapes() gives axis 0 of 'input' as 7; give a name or (name, min, max)",
        ),
        (
            shapes('{"input": {0: "batch"}}').replace("(2, 4)", "(1, 4)"),
            "axis 0 of 'input' is dynamic, but its example is 1 long, which torch.export takes for a constant; make it 2",
        ),
    ],
)
def test_script_that_cannot_be_captured_is_refused_in_words(text: str, message: str) -> None:
    assert message in raised_by(text)


@pytest.mark.parametrize(
    "body",
    [
        "3",
        '{"input": 3}',
        '{"input": {-1: "batch"}}',
        '{"input": ["batch"]}',
        '{"input": {"x": "batch"}}',
        '"input"',
        '{"input": {0: ("batch", "1", 8)}}',
    ],
)
def test_any_nonsense_as_dynamic_shapes_is_refused(body: str) -> None:
    message = raised_by(shapes(body))

    assert "get_dynamic_shapes()" in message or "of 'input' is dynamic, but its example has shape [2, 4]" in message


MULTILINE = SCRIPT.replace("return nn.Linear(4, 3)", 'raise RuntimeError("two keys are missing:\\n\\tone\\n\\ttwo")')


def test_error_of_a_script_is_one_line_and_leaves_no_artifact(edgeseq: CommandLine) -> None:
    answer = edgeseq("convert", written(MULTILINE), "--output", "out", "--format", "onnx", "--scheme", "fp32")

    assert "get_model() in 'mymodel.py' raised RuntimeError: two keys are missing:" in answer.line
    assert "one" in answer.line
    assert answer.code == 2
    assert leftovers() == []


@pytest.mark.parametrize(
    ("dim", "bounds"),
    [
        (torch.export.Dim("time", max=1000), (1, 1000)),
        (torch.export.Dim("time"), (1, 512)),
        (torch.export.Dim("time", min=600), (600, 1200)),
    ],
)
def test_bounds_of_torchs_dimensions_are_kept(dim: object, bounds: tuple[int, int]) -> None:
    found = _script.dynamic_shapes({"x": {0: dim}}, {"x": torch.ones(700, 2)})["x"][0]

    assert (found.min, found.max) == bounds


# A run folder.


def test_folder_that_is_no_run_is_refused(edgeseq: CommandLine) -> None:
    for verb in ("verify", "bench", "report"):
        Path("empty").mkdir(exist_ok=True)

        for folder in ("empty", "absent"):
            answer = edgeseq(verb, folder)

            assert f"'{folder}' is not a run folder: it has no request.json" in answer.line
            assert answer.code == 2
    assert not Path("absent").exists()
    assert list(Path("empty").iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "3"])
def test_damaged_request_is_refused(edgeseq: CommandLine, content: str) -> None:
    Path("out").mkdir()
    (Path("out") / "request.json").write_text(content)

    answer = edgeseq("verify", "out")

    assert "request.json" in answer.line
    assert answer.code == 2


def test_run_that_never_got_to_an_artifact_is_refused(edgeseq: CommandLine) -> None:
    Path("out").mkdir()
    (Path("out") / "request.json").write_text(json.dumps({"title": "t", "request": {}}))

    answer = edgeseq("verify", "out")

    assert "holds no artifacts yet" in answer.line
    assert answer.code == 2


@pytest.mark.parametrize(("option", "value"), [("--runs", "0"), ("--rounds", "-1")])
def test_bench_without_a_run_is_refused(edgeseq: CommandLine, option: str, value: str) -> None:
    answer = edgeseq("bench", "out", option, value)

    assert "--runs and --rounds must be at least 1" in answer.line
    assert answer.code == 2


@pytest.mark.parametrize(
    "arguments", [[], ["convert"], ["cnvert", "x.py"], ["convert", "x.py"], ["bench", "out", "--runs", "many"], ["run"]]
)
def test_command_that_cannot_be_read_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)

    assert caught.value.code == 2
    assert "edgeseq" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "options",
    [("--against", "other.onnx"), ("--range", "x=0:3"), ("--tolerance", "0"), ("--range", "x=0:3", "--second-engine")],
)
def test_options_for_a_model_file_are_refused_for_a_run_folder(edgeseq: CommandLine, options: tuple[str, ...]) -> None:
    answer = edgeseq("verify", "out", *options)

    assert answer.line.startswith(", ".join(option for option in options if option.startswith("--")))
    assert "cannot be used with 'out', which is not a model file" in answer.line
    assert answer.code == 2


def test_limits_are_refused_for_a_model_file(edgeseq: CommandLine) -> None:
    answer = edgeseq("verify", "mine.onnx", "--memory-limit", "4GB")

    assert "--memory-limit cannot be used with 'mine.onnx', which is not a run folder" in answer.line
    assert answer.code == 2


@pytest.mark.parametrize("verb", ["verify", "bench"])
def test_limits_reach_what_runs_again(edgeseq: CommandLine, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    def told(*arguments: object) -> object:
        raise RequestError(f"limits: {arguments[-1]}")

    monkeypatch.setattr(pipeline, verb, told)

    answer = edgeseq(verb, "out", "--memory-limit", "4GB", "--time-limit", "90s")

    assert answer.line == f"limits: {Limits(memory_bytes=4_000_000_000, time_s=90.0)}"


def test_converted_model_is_verified_and_refused_once_a_byte_of_it_changed(edgeseq: CommandLine) -> None:
    """One real conversion from beginning to end, and every way to ask for it again."""
    converted = edgeseq(
        "convert", written(SCRIPT), "--output", "out", "--format", "onnx", "--scheme", "fp16", "--json", "all.json"
    )
    artifact = Artifact.load(Path("out/artifacts/mymodel/onnx/fp16"))
    manifest = Path("out/manifest.json").read_text()
    verified = edgeseq("verify", "out")
    content = bytearray(artifact.path.read_bytes())
    content[len(content) // 2] ^= 1
    artifact.path.write_bytes(content)
    changed = edgeseq("verify", "out")

    assert (converted.code, verified.code) == (0, 0)
    assert Path("out/report.html").exists()
    assert json.loads(Path("all.json").read_text())
    assert json.loads(manifest)["files"].keys() == {"models/mymodel", "artifacts/mymodel/onnx", "parity/mymodel/onnx"}
    assert "mymodel.onnx' is not the file that the run wrote; repeat the command that began the run" in changed.line
    assert changed.code == 2
    assert Path("out/manifest.json").read_text() == manifest


def test_report_that_cannot_be_written_where_asked_is_refused(
    edgeseq: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(root: Path) -> object:
        raise RequestError(f"asked for {root}")

    monkeypatch.setattr(pipeline, "report", nothing)

    assert edgeseq("report", "somewhere").line == "asked for somewhere"


def test_interrupt_says_how_to_go_on(edgeseq: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(root: Path) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "report", interrupted)

    answer = edgeseq("report", "somewhere")

    assert answer.line == "interrupted; the same command goes on from here"
    assert answer.code == 130
