"""What `inspect` says of a file is what engines and the formats' own readers say of it."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

if not all(find_spec(needed) for needed in ("onnx", "ai_edge_litert", "coremltools")):
    pytest.skip("it takes the packages of all three formats", allow_module_level=True)

from edgeseq import cli, converters, quantize
from edgeseq.artifact import Artifact
from edgeseq.capture import capture
from edgeseq.errors import RequestError
from edgeseq.inspection import Contents, Inspection, Stored, coreml, format_of, inspect, onnx
from edgeseq.inspection.delegates import Delegate, Rule
from edgeseq.inspection.operator import Operand, Operator
from edgeseq.report.inspection import render
from edgeseq.signature import Dim, TensorSpec
from tests import tiny

pytestmark = pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning", "ignore::FutureWarning")

FORMATS = converters.names()


def share(inspection: Inspection, delegate: str) -> tuple[Counter[str], Counter[str], Counter[str]]:
    found = next(s for s in inspection.shares if s.delegate == delegate)
    return Counter(found.takes), Counter(found.leaves), Counter(found.unknown)


@pytest.mark.parametrize("format", FORMATS)
def test_a_folder_and_its_file_are_one_artifact(format: str, artifacts: dict[str, Artifact]) -> None:
    artifact = artifacts[format]

    by_folder, by_file = inspect(artifact.path.parent), inspect(artifact.path)

    assert by_folder == by_file
    assert (by_file.format, by_file.scheme, by_file.size_bytes) == (format, "fp32", artifact.size_bytes)
    assert by_file.contents.signatures == artifact.signatures


def test_a_lone_onnx_file_has_the_signature_that_onnxruntime_sees(alone: Callable[[str], Path]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(alone("onnx"), providers=["CPUExecutionProvider"])

    (signature,) = inspect(alone("onnx")).contents.signatures

    types = {"tensor(int32)": "int32", "tensor(float)": "float32"}
    seen = [
        (value.name, types[value.type], tuple(value.shape)) for value in (*session.get_inputs(), *session.get_outputs())
    ]
    assert [(s.name, s.dtype, s.shape) for s in (*signature.inputs, *signature.outputs)] == seen


def test_a_lone_tflite_file_has_the_signature_and_operators_that_litert_sees(alone: Callable[[str], Path]) -> None:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    reference = interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    engine = interpreter.Interpreter(str(alone("tflite")), experimental_op_resolver_type=reference)

    inspection = inspect(alone("tflite"))

    details = engine.get_signature_runner("forward").get_input_details()["tokens"]
    assert inspection.contents.signatures[0].inputs == (TensorSpec(name="tokens", dtype="int32", shape=(1, "?")),)
    assert list(details["shape_signature"]) == [1, -1]
    main = Counter(operator.kind for operator in inspection.contents.operators if not operator.is_nested)
    assert main == Counter(operation["op_name"] for operation in engine._get_ops_details())


def test_a_lone_core_ml_package_has_the_operators_that_coremltools_sees(alone: Callable[[str], Path]) -> None:
    from edgeseq.devices.runtimes._mil.evaluate import load_functions

    functions = load_functions(alone("coreml"))

    inspection = inspect(alone("coreml"))

    (signature,) = inspection.contents.signatures
    assert signature.inputs == (TensorSpec(name="tokens", dtype="int32", shape=("1..8", "1..64")),)
    assert signature.dims == (Dim(name="1..8", min=1, max=8), Dim(name="1..64", min=1, max=64))
    assert len(inspection.contents.operators) == len(functions["main"].block.steps)
    assert inspection.operator_counts["lstm"] == 1


@pytest.mark.parametrize("format", FORMATS)
def test_constants_are_the_parameters(format: str, artifacts: dict[str, Artifact]) -> None:
    parameters = {name: 4 * value.numel() for name, value in tiny.model().named_parameters()}

    inspection = inspect(artifacts[format].path)

    floats = inspection.dtype_bytes["float32"]
    biases = parameters["lstm.bias_ih_l0"]  # of the two of a gate, most formats keep the sum
    assert sum(parameters.values()) - biases <= floats <= sum(parameters.values()) + 100
    assert sum(inspection.layer_bytes.values()) == sum(inspection.dtype_bytes.values()) <= inspection.size_bytes
    assert next(iter(inspection.layer_bytes.values())) == max(inspection.layer_bytes.values())


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_sizes_are_told_by_the_modules_of_the_model(format: str, artifacts: dict[str, Artifact]) -> None:
    layers = inspect(artifacts[format].path).layer_bytes

    assert list(layers)[:4] == ["lstm", "embedding", "up", "head"]
    assert 4 * 60 * 16 <= layers["embedding"] <= 4 * 60 * 16 + 8  # small shapes may come with it
    assert 4 * (32 * 3 + 3) <= layers["head"] <= 4 * (32 * 3 + 3) + 8


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("scheme", ["fp32", "dynamic_wi8_afp32"])
def test_the_rows_that_an_input_chooses_among_are_found(
    format: str, scheme: str, artifacts: dict[str, Artifact], tmp_path: Path
) -> None:
    artifact = artifacts[format]
    if scheme != "fp32":
        artifact = quantize.quantize(artifact, quantize.Scheme.parse(scheme), tmp_path)

    inspection = inspect(artifact.path)

    assert inspection.contents.table_rows == {"tokens": tiny.VOCABULARY}
    assert ("int8" in inspection.dtype_bytes) == (scheme != "fp32")


def test_what_must_run_a_file_at_least(artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    import onnx as library

    newer = library.load(artifacts["onnx"].path)
    newer.opset_import[0].version = 99
    library.save(newer, tmp_path / "newer.onnx")

    assert inspect(artifacts["onnx"].path).contents.requires[0] == "onnxruntime 1.17 (opset 20)"
    assert inspect(tmp_path / "newer.onnx").contents.requires[0].startswith("an onnxruntime newer than 1.23 (opset 99")
    assert inspect(artifacts["coreml"].path).contents.requires == (
        "iOS 16, macOS 13 (Core ML specification version 7)",
    )
    assert inspect(artifacts["tflite"].path).contents.requires == (
        "TensorFlow Lite 2.9.0 (DYNAMIC_UPDATE_SLICE version 1)",
    )


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "floats": lambda x: x + x * x,
    "softmax": lambda x: x.softmax(-1),
    "linear": lambda x: functional.linear(x, torch.ones(3, 8)),
    "reduction": lambda x: x.mean(1),
    "product": lambda x: x @ x.mT,
    "convolution": lambda x: functional.conv1d(x.mT, torch.ones(8, 8, 3), padding=1),
    "integers": lambda x: (x > 0).int() * 2,
    "choice": lambda x: torch.where(x > 0, x, 0.0),
    "power": lambda x: x**3.5,
    "flip": lambda x: x.flip(1),
    "sign": lambda x: x.sign(),
    "stack": lambda x: torch.stack([x, x.neg()]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_xnnpack_takes_something_where_it_is_said_to(name: str, tmp_path: Path) -> None:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")

    class Module(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return FUNCTIONS[name](x)

    path = converters.convert(capture(Module(), {"x": torch.randn(2, 6, 8)}), "tflite", tmp_path, model="m").path
    engine = interpreter.Interpreter(str(path))
    engine.allocate_tensors()

    takes, leaves, unknown = share(inspect(path), "xnnpack")

    assert ("DELEGATE" in {operation["op_name"] for operation in engine._get_ops_details()}) == bool(takes)
    assert takes + leaves + unknown == Counter(inspect(path).operator_counts)


def test_every_operator_of_a_delegates_data_exists() -> None:
    from onnx import defs

    from edgeseq.inspection import tflite
    from edgeseq.inspection._tflite_runtime import RUNTIME
    from edgeseq.inspection.delegates import coreml_provider, gpu, xnnpack

    assert {*gpu.DELEGATE.rules, *xnnpack.DELEGATE.rules} <= set(tflite.KINDS.values())
    schemas = {schema.name for schema in defs.get_all_schemas()}
    assert {kind for kind in coreml_provider.DELEGATE.rules if "::" not in kind} <= schemas
    assert set(RUNTIME) <= set(tflite.KINDS.values())


def test_the_neural_engine_takes_no_float32(artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    half = quantize.quantize(artifacts["coreml"], quantize.Scheme.parse("fp16"), tmp_path)

    _, leaves, _ = share(inspect(artifacts["coreml"].path), "neural_engine")
    takes, leaves_of_half, unknown = share(inspect(half.path), "neural_engine")

    assert leaves["linear"] == 2
    assert (takes, leaves_of_half["linear"], unknown["linear"]) == (Counter(), 0, 2)


@pytest.mark.parametrize(
    ("inputs", "verdict"),
    [
        ([("float32", (2, 3), False), ("int32", (2,), True)], "takes"),
        ([("float32", (2, 3), False), ("int32", (2,), False)], "leaves"),
        ([("int32", (2, 3), False), ("int32", (2,), True)], "leaves"),
        ([("", None, False), ("int32", (2,), True)], "unknown"),
        ([("float32", (2, 3, 4), False), ("int32", (2,), True)], "leaves"),
    ],
)
def test_a_rule_looks_at_types_constants_and_ranks(
    inputs: list[tuple[str, tuple[int, ...] | None, bool]], verdict: str
) -> None:
    rule = Rule(constant=(1,), ranks=(2,))
    delegate = Delegate(title="d", format="tflite", source="s", caveat="c", rules={"PAD": rule})
    operands = tuple(Operand(dtype=d, shape=s, is_constant=c) for d, s, c in inputs)

    assert delegate.judge(Operator(kind="PAD", inputs=operands, outputs=operands[:1])) == verdict


def test_external_weights_are_counted_and_named(artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    import onnx as library

    model = library.load(artifacts["onnx"].path)
    library.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="m.data")

    inspection = inspect(tmp_path / "m.onnx")

    assert inspection.layer_bytes == inspect(artifacts["onnx"].path).layer_bytes
    assert inspection.contents.notes == ("weights lie in files beside it, which must be shipped with it",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.onnx", b"no protobuf at all", "is not an ONNX file"),
        ("a.onnx", b"", "is not an ONNX file: it holds no graph"),
        ("a.tflite", b"no flatbuffer", "lacks the mark TFL3"),
        ("a.tflite", b"\xff\xff\xff\x00TFL3" + b"\xff" * 40, "is a damaged TFLite file"),
        ("a.bin", b"", "none of the formats coreml, onnx, tflite ends in '.bin'"),
    ],
)
def test_a_file_that_is_none_is_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(RequestError, match=message):
        inspect(tmp_path / name)


@pytest.mark.parametrize("seed", range(8))
def test_a_tflite_file_with_changed_bytes_is_read_or_refused(seed: int, alone: Callable[[str], Path]) -> None:
    file = alone("tflite")
    data, rng = bytearray(file.read_bytes()), np.random.default_rng(seed)
    for place in rng.integers(8, len(data), 40):
        data[place] = rng.integers(256)
    file.write_bytes(data)

    with contextlib.suppress(RequestError):
        inspect(file)


def test_constants_without_bytes_are_shown() -> None:
    stored = (Stored(layer="empty", dtype="float32", size_bytes=0),)
    contents = Contents(signatures=(), operators=(), stored=stored, requires=())
    found = Inspection(path=Path("m"), format="onnx", size_bytes=1, scheme=None, contents=contents, shares=())

    assert "0.0 %  empty" in render(found)


@pytest.mark.parametrize(("dtype", "bits"), [("float8e4m3fn", 8), ("float8e5m2", 8), ("uint4", 4), ("int32", 32)])
def test_bits_of_core_mls_types(dtype: str, bits: int) -> None:
    assert coreml._bits(dtype) == bits


def test_a_folder_that_is_no_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mlpackage").mkdir()

    with pytest.raises(RequestError, match="is not a Core ML package"):
        inspect(tmp_path / "a.mlpackage")
    with pytest.raises(RequestError, match="there is no file"):
        inspect(tmp_path / "absent.onnx")


def test_the_command_prints_what_it_writes(
    artifacts: dict[str, Artifact], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = cli.main(["inspect", str(artifacts["tflite"].path), "--json", str(tmp_path / "i.json")])

    out, written = capsys.readouterr().out, json.loads((tmp_path / "i.json").read_text())
    assert code == 0
    assert "signature forward\n  in   tokens: int32[batch, time], chooses among 60 rows" in out
    n_operators = sum(written["operators"].values())
    assert re.search(rf"XNNPACK \(processor\): by its documents it takes [1-9]\d* of {n_operators} operators", out)
    assert written["delegates"][1]["source"].startswith("tflite/delegates/xnnpack")


ALONE = """
import sys
from pathlib import Path
from edgeseq.inspection import inspect
for path in sys.argv[1:]:
    inspect(Path(path))
print([name for name in ("torch", "tensorflow", "onnxruntime", "coremltools") if name in sys.modules])
import edgeseq.quiet_coremltools
from coremltools.proto.Model_pb2 import Model
from edgeseq.inspection._coreml_proto import message_class
print(message_class() is Model)
"""


def test_nothing_heavy_is_loaded_and_coremltools_can_be_afterwards(artifacts: dict[str, Artifact]) -> None:
    paths = [str(artifact.path) for artifact in artifacts.values()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    done = subprocess.run(
        [sys.executable, "-c", ALONE, *paths], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.split("\n")[:2] == ["[]", "True"]


def test_loops_of_an_onnx_graph_are_counted(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Relu", ["x"], ["y"])],
        "body",
        [helper.make_tensor_value_info(n, t, []) for n, t in (("i", TensorProto.INT64), ("c", TensorProto.BOOL))]
        + [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [
            helper.make_tensor_value_info("d", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [2]),
        ],
    )
    loop = helper.make_node("Loop", ["n", "", "x0"], ["out"], body=body)
    inputs = [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [2])]
    count = helper.make_tensor("n", TensorProto.INT64, [], np.array(3, np.int64).tobytes(), raw=True)
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, [2])]
    graph = helper.make_graph([loop], "g", inputs, outputs, [count])
    save(helper.make_model(graph), tmp_path / "loop.onnx")

    operators = onnx.INSPECTOR.read(tmp_path / "loop.onnx").operators

    assert [(o.kind, o.is_nested) for o in operators] == [("Loop", False), ("Identity", True), ("Relu", True)]
    assert format_of(tmp_path / "loop.onnx") == "onnx"
