"""A model file is checked on random inputs, against another of the same model or alone, and what is wrong is found."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

if not all(find_spec(needed) for needed in ("onnx", "ai_edge_litert", "coremltools")):
    pytest.skip("it takes the packages of all three formats", allow_module_level=True)

from edgeseq import agreement, cli, converters, crosscheck, loaded, quantize
from edgeseq.artifact import Artifact
from edgeseq.capture import capture, capture_calls
from edgeseq.devices.runtimes import Session
from edgeseq.devices.runtimes._mil.precision import Precision
from edgeseq.errors import RequestError, UnavailableError
from edgeseq.inspection import NO_BOUND, random_inputs
from edgeseq.quantize import Scheme
from edgeseq.quiet_stderr import logged
from edgeseq.report.crosscheck import render
from edgeseq.signature import Dim, Signature, State, Tensors, TensorSpec
from tests.test_parity import Tagger, tagger_call

pytestmark = pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning", "ignore::FutureWarning")

FORMATS = converters.names()


@pytest.mark.parametrize("format", ["coreml", "tflite"])
def test_lone_files_of_one_model_agree(format: str, alone: Callable[[str], Path]) -> None:
    report = crosscheck.check(alone(format), alone("onnx"))

    assert report.failures == ()
    assert 0 < report.checks[0].differences[0].max_abs_error <= 1e-5
    lengths = {shapes["tokens"][1] for shapes in report.checks[0].trials}
    batches = {shapes["tokens"][0] for shapes in report.checks[0].trials}
    assert len(lengths) >= 4
    assert 64 in lengths
    assert (len(batches) >= 3) == (format == "coreml")  # a TFLite file has batch 1


def test_artifacts_with_records_are_checked_at_any_batch(artifacts: dict[str, Artifact]) -> None:
    report = crosscheck.check(artifacts["tflite"].path.parent, artifacts["coreml"].path)

    assert report.failures == ()
    assert len({shapes["tokens"][0] for shapes in report.checks[0].trials}) >= 3


def test_an_integer_scheme_is_judged_by_its_noise(artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    small = quantize.quantize(artifacts["onnx"], Scheme.parse("dynamic_wi8_afp32"), tmp_path)

    report = crosscheck.check(small.path, artifacts["coreml"].path)

    assert report.failures == ()
    assert report.checks[0].differences[0].limit == "SQNR ≥ 15 dB"
    assert report.checks[0].differences[0].max_abs_error > 1e-4


@pytest.mark.parametrize("format", ["coreml", "tflite"])
def test_a_changed_weight_is_found(format: str, artifacts: dict[str, Artifact], alone: Callable[[str], Path]) -> None:
    import onnx
    from onnx import numpy_helper

    file = alone("onnx")
    model = onnx.load(file)
    weight = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [32, 3])
    changed = numpy_helper.to_array(weight).copy()
    changed[0, 0] += 0.05
    weight.CopyFrom(numpy_helper.from_array(changed, weight.name))
    onnx.save(model, file)

    report = crosscheck.check(artifacts[format].path, file)

    assert len(report.failures) == 1
    assert "differ by" in report.failures[0]


def test_a_core_ml_package_alone_tells_what_float16_costs(artifacts: dict[str, Artifact]) -> None:
    report = crosscheck.check(artifacts["coreml"].path)

    (found,) = report.checks[0].differences
    assert report.failures == ()
    assert report.checks[0].outputs == {"logits": f"float32{[*report.checks[0].trials[-1]['tokens'], 3]}"}
    assert found.between == ("float16 arithmetic (evaluated)", "float32 arithmetic (evaluated)")
    assert 1e-5 < found.max_abs_error < 1e-2
    assert 40 < found.sqnr_db < 80


def test_outputs_that_are_not_finite_fail(tmp_path: Path) -> None:
    class Log(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.log()

    artifact = converters.convert(capture(Log(), {"x": torch.rand(2, 3)}), "onnx", tmp_path, model="log")

    report = crosscheck.check(artifact.path)

    assert report.failures == (f"{report.checks[0].not_finite} values are not finite",)


def test_other_inputs_are_refused(artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    other = converters.convert(capture(nn.Linear(2, 2), {"x": torch.rand(2, 2)}), "onnx", tmp_path, model="other")

    with pytest.raises(RequestError, match=r"'tiny.onnx' takes inputs \['tokens'\], but 'other.onnx' takes \['x'\]"):
        crosscheck.check(artifacts["onnx"].path, other.path)


def test_a_value_that_the_model_cannot_take_says_how_to_name_a_range(artifacts: dict[str, Artifact]) -> None:
    with pytest.raises(RequestError, match=r"onnxruntime .* refuses 'tiny.onnx' with tokens .*--range INPUT=LOW:HIGH"):
        crosscheck.check(artifacts["onnx"].path, ranges={"tokens": (5000, 6000)})


def test_a_range_of_an_unknown_input_is_refused(artifacts: dict[str, Artifact]) -> None:
    with pytest.raises(RequestError, match="there is no input 'token'; did you mean 'tokens'"):
        crosscheck.check(artifacts["onnx"].path, ranges={"token": (0, 3)})


@pytest.fixture(scope="module")
def stateful(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """An LSTM whose states are inputs and outputs, of any length and of one step, in every format."""
    captured = capture_calls(Tagger().eval(), [tagger_call()])
    root = tmp_path_factory.mktemp("stateful")
    return {f: converters.convert(captured, f, root / f, model="tagger") for f in FORMATS}


@pytest.mark.parametrize("format", ["coreml", "tflite"])
def test_every_signature_is_run_with_its_states_carried_on(format: str, stateful: dict[str, Artifact]) -> None:
    report = crosscheck.check(stateful[format].path, stateful["onnx"].path)

    assert report.failures == ()
    assert [check.signature for check in report.checks] == ["step", "forward"]
    step, whole = ([d.between[0] for d in check.differences] for check in report.checks)
    assert "4 calls from empty states" in step[1]
    assert whole[1].endswith("in chunks")


def test_a_file_alone_is_compared_with_itself_in_chunks(stateful: dict[str, Artifact]) -> None:
    report = crosscheck.check(stateful["onnx"].path)

    assert report.failures == ()
    assert [d.between[1] for check in report.checks for d in check.differences] == ["whole"]
    assert "in chunks against whole" in render(report)


def test_a_state_that_is_not_carried_on_is_found(stateful: dict[str, Artifact], tmp_path: Path) -> None:
    """Both calls are right by themselves, but the file says that its states go into each other's places."""
    artifact = stateful["onnx"]
    crossed = (State(input="h", output="cn"), State(input="c", output="hn"))
    shutil.copy(artifact.path, tmp_path / artifact.path.name)
    moved = replace(artifact, path=tmp_path / artifact.path.name)
    replace(moved, signatures=tuple(replace(s, states=crossed) for s in artifact.signatures)).save()

    report = crosscheck.check(moved.path)

    assert len(report.failures) == 1
    assert "in chunks and whole differ by" in report.failures[0]


def test_signatures_that_the_other_file_lacks_are_named(stateful: dict[str, Artifact], tmp_path: Path) -> None:
    artifact = stateful["onnx"]
    shutil.copy(artifact.path, tmp_path / artifact.path.name)
    forward = artifact.signature("forward")
    other = replace(artifact, path=tmp_path / artifact.path.name, signatures=(forward, replace(forward, name="again")))
    other.save()

    report = crosscheck.check(stateful["tflite"].path, other.path)

    assert [check.signature for check in report.checks] == ["forward"]
    assert report.not_run == ("step",)
    assert "not run, since the other file has nothing like it: step" in render(report)


def test_a_core_ml_program_in_float32_is_not_evaluated_twice(
    stateful: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def counting(file: loaded.Loaded, precision: Precision) -> loaded.Loaded:
        asked.append(precision)
        return loaded.in_precision(file, precision)

    monkeypatch.setattr(agreement, "in_precision", counting)
    crosscheck.check(stateful["coreml"].path)

    assert set(asked) == {"float16"}


def test_a_file_without_signatures_is_refused(alone: Callable[[str], Path]) -> None:
    from ai_edge_litert.tools import flatbuffer_utils

    file = alone("tflite")
    model = flatbuffer_utils.read_model(str(file))
    model.signatureDefs = []
    flatbuffer_utils.write_model(model, str(file))

    with pytest.raises(RequestError, match="has no signature, which names its inputs"):
        crosscheck.check(file)


@pytest.mark.parametrize(("error", "reason"), [(ValueError(), "ValueError"), (ValueError("no\nmore"), "no;")])
def test_an_engine_that_fails_is_quoted(artifacts: dict[str, Artifact], error: Exception, reason: str) -> None:
    class Failing(Session):
        def run(self, inputs: Tensors, signature: str = "forward") -> dict[str, np.ndarray]:
            raise error

    file = replace(loaded.load(artifacts["onnx"].path), session=Failing())
    trial = random_inputs.Trial(inputs={"tokens": np.ones((1, 2), np.int32)})

    with pytest.raises(RequestError, match=rf"refuses 'tiny\.onnx' with tokens \[1, 2\]: {reason}"):
        loaded.call(file, "forward", trial.inputs)


def test_a_type_that_numpy_lacks_is_refused_in_words(artifacts: dict[str, Artifact]) -> None:
    file = loaded.load(artifacts["onnx"].path)
    odd = Signature(inputs=(TensorSpec(name="tokens", dtype="?x", shape=(1,)),), outputs=())
    trial = random_inputs.Trial(inputs={"tokens": np.ones(1, np.int32)})

    with pytest.raises(RequestError, match=r"refuses 'tiny\.onnx' with tokens"):
        loaded.call(replace(file, signatures=(odd,)), "forward", trial.inputs)


def test_a_format_without_a_second_engine_says_so(artifacts: dict[str, Artifact]) -> None:
    with pytest.raises(UnavailableError, match="no second engine runs format 'onnx' here"):
        crosscheck.check(artifacts["onnx"].path, second_engine=True)


@pytest.mark.slow  # TensorFlow takes ten seconds to import
def test_tensorflow_agrees_with_litert(artifacts: dict[str, Artifact]) -> None:
    pytest.importorskip("tensorflow")

    report = crosscheck.check(artifacts["tflite"].path, second_engine=True)

    assert report.failures == ()
    assert "TensorFlow" in report.checks[0].differences[0].between[1]


def test_the_command_exits_with_1_where_something_is_wrong(
    artifacts: dict[str, Artifact], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, other, json_file = artifacts["onnx"].path, artifacts["coreml"].path, tmp_path / "check.json"

    passed = cli.main(["verify", str(path), "--against", str(other), "--json", str(json_file)])
    failed = cli.main(["verify", str(path), "--against", str(other), "--tolerance", "1e-12"])

    out, err = capsys.readouterr()
    assert (passed, failed) == (0, 1)
    assert json.loads(json_file.read_text())["passed"]
    assert "no values not finite" in out
    assert err.count("\n") == 1
    assert "is out of tolerance: tiny.onnx (onnxruntime" in err


def test_engines_say_nothing_on_the_terminal_unless_asked(artifacts: dict[str, Artifact]) -> None:
    def said(*options: str) -> str:
        command = [sys.executable, "-m", "edgeseq", "verify", str(artifacts["tflite"].path), *options]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr

    assert said() == ""
    assert "Created TensorFlow Lite XNNPACK delegate" in said("--verbose")


def test_a_library_that_fails_is_quoted(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="it broke") as broken, logged("engine"):
        os.write(2, b"the reason\n")
        raise ValueError("it broke")

    assert broken.value.__notes__ == ["engine said: the reason"]
    assert capfd.readouterr().err == ""


def signature(*inputs: tuple[str, tuple[int | str, ...]], dims: tuple[Dim, ...] = ()) -> Signature:
    specs = tuple(TensorSpec(name=name, dtype="int32", shape=shape) for name, shape in inputs)
    return Signature(inputs=specs, outputs=(), dims=dims)


def test_dimensions_of_several_files_are_brought_together() -> None:
    named = signature(("x", ("b", "t")), ("n", ("b",)))
    bounded = signature(
        ("x", ("1..8", "2..9")), ("n", ("1..8",)), dims=(Dim(name="1..8", min=1, max=8), Dim(name="2..9", min=2, max=9))
    )
    fixed = signature(("x", (1, "?")), ("n", (1,)))

    assert random_inputs.dimensions([named])[1] == {"b": (1, NO_BOUND), "t": (1, NO_BOUND)}
    assert random_inputs.dimensions([named, bounded]) == (
        {("n", 0): "b", ("x", 0): "b", ("x", 1): "t"},
        {"b": (1, 8), "t": (2, 9)},
    )
    assert set(random_inputs.dimensions([named, fixed])[0]) == {("x", 1)}
    shapes = {tuple(t.inputs["x"].shape) for t in random_inputs.trials([bounded, fixed], {}, {})}
    assert {batch for batch, _ in shapes} == {1}
    assert all(2 <= length <= 9 for _, length in shapes)


def test_dimensions_without_names_are_the_first_and_the_others() -> None:
    same = Dim(name="1..8", min=1, max=8)
    groups, bounds = random_inputs.dimensions([signature(("x", ("1..8", "1..8")), ("n", ("1..8",)), dims=(same,))])

    assert groups == {("n", 0): "1..8 first", ("x", 0): "1..8 first", ("x", 1): "1..8 inner"}
    assert set(bounds.values()) == {(1, 8)}


def test_integers_are_rows_lengths_or_masks_as_the_file_and_the_names_say() -> None:
    several = signature(("tokens", ("b", "t")), ("lengths", ("b",)), ("attention_mask", ("b", "t")), ("kind", ("b",)))

    trials = random_inputs.trials([several], {"tokens": 40}, {"kind": (7, 9)})

    for trial in trials:
        smallest = min(trial.inputs["tokens"].shape)
        assert trial.inputs["tokens"].max() < 40
        assert 1 <= trial.inputs["lengths"].min() <= trial.inputs["lengths"].max() <= smallest
        assert set(np.unique(trial.inputs["attention_mask"])) == {1}
        assert set(np.unique(trial.inputs["kind"])) <= {7, 8, 9}
    assert len({trial.inputs["tokens"].shape for trial in trials}) == len(trials)


@pytest.mark.parametrize("text", ["tokens", "tokens=3", "tokens=a:b", "=1:2", "tokens=3:1"])
def test_a_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="is no range; write INPUT=LOW:HIGH"):
        crosscheck.parsed_ranges([text])
    assert crosscheck.parsed_ranges(["a=1:2", "b c=-3:4"]) == {"a": (1, 2), "b c": (-3, 4)}
