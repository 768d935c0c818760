"""ONNX: the graph's protobuf, read without its external data."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from edgeseq.artifact import program_files
from edgeseq.errors import RequestError
from edgeseq.inspection import Contents, Inspector, Stored
from edgeseq.inspection.operator import Operand, Operator
from edgeseq.onnx_file import WEIGHTS
from edgeseq.signature import Signature, TensorSpec

# The first onnxruntime release with each opset and each version of the file format (its release notes and
# https://onnxruntime.ai/docs/reference/compatibility.html). What is newer than these tables is said to be so.
OPSET_RUNTIME = {
    **dict.fromkeys(range(1, 8), "1.0"),
    8: "1.0", 9: "1.0", 10: "1.0", 11: "1.0", 12: "1.3", 13: "1.6", 14: "1.8", 15: "1.9", 16: "1.11", 17: "1.12", 18: "1.14",
    19: "1.15", 20: "1.17", 21: "1.18", 22: "1.21", 23: "1.23",
}  # fmt: skip
IR_RUNTIME = {**dict.fromkeys(range(1, 8), "1.3"), 8: "1.11", 9: "1.15", 10: "1.18", 11: "1.22"}
BITS = {"int4": 4, "uint4": 4, "float4e2m1": 4, "int2": 2, "uint2": 2}
PASSING_ON = frozenset({"Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape", "Transpose"})


class OnnxInspector(Inspector):
    suffix = ".onnx"

    def read(self, path: Path) -> Contents:
        """A file, or a folder with a file a program."""
        if path.is_file():
            is_one_of_several = (path.parent / WEIGHTS).is_file()  # whose files are named after their signatures
            return _contents(_loaded(path), path.stem if is_one_of_several else "forward")
        models = {name: _loaded(file) for name, file in program_files(path).items()}
        if not models:
            raise RequestError(f"folder '{path}' holds no ONNX file")
        read = [_contents(model, name) for name, model in models.items()]
        return Contents(
            signatures=tuple(signature for contents in read for signature in contents.signatures),
            operators=tuple(operator for contents in read for operator in contents.operators),
            stored=tuple(_stored_once(models.values())),
            requires=tuple(dict.fromkeys(needed for contents in read for needed in contents.requires)),
            table_rows={name: rows for contents in read for name, rows in contents.table_rows.items()},
            notes=tuple(dict.fromkeys(note for contents in read for note in contents.notes)),
        )


def _loaded(path: Path) -> ModelProto:
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError) as error:
        raise RequestError(f"'{path}' is not an ONNX file: {error}") from error
    if not model.graph.node and not model.graph.output:
        raise RequestError(f"'{path}' is not an ONNX file: it holds no graph")
    return model


def _contents(model: ModelProto, name: str) -> Contents:
    operators = tuple(_operators(model.graph, nested=False))
    return Contents(
        signatures=(_signature(model.graph, name),),
        operators=operators,
        stored=tuple(_stored(model.graph)),
        requires=_requires(model),
        table_rows=_table_rows(model.graph),
        notes=_notes(model.graph, operators),
    )


def _stored_once(models: Iterable[ModelProto]) -> Iterator[Stored]:
    """The constants of several graphs; what lies at one place of the file beside them is one constant."""
    known: set[tuple[tuple[str, str], ...]] = set()
    for model in models:
        outside = {t.name: tuple((e.key, e.value) for e in t.external_data) for t in model.graph.initializer}
        graph = GraphProto()
        graph.CopyFrom(model.graph)
        del graph.initializer[:]
        graph.initializer.extend(
            t for t in model.graph.initializer if not outside[t.name] or outside[t.name] not in known
        )
        known |= {place for place in outside.values() if place}
        yield from _stored(graph)


def _signature(graph: GraphProto, name: str) -> Signature:
    constants = {tensor.name for tensor in graph.initializer}
    return Signature(
        name=name,
        inputs=tuple(_spec(value) for value in graph.input if value.name not in constants),
        outputs=tuple(_spec(value) for value in graph.output),
    )


def _spec(value: ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim)
    return TensorSpec(name=value.name, dtype=_dtype(tensor.elem_type), shape=shape)


def _operators(graph: GraphProto, *, nested: bool) -> Iterator[Operator]:
    values = {value.name: value for value in (*graph.input, *graph.output, *graph.value_info)}
    constants = {tensor.name: tensor for tensor in graph.initializer}

    def operand(name: str) -> Operand:
        if name in constants:
            tensor = constants[name]
            return Operand(dtype=_dtype(tensor.data_type), shape=tuple(tensor.dims), is_constant=True)
        if name not in values:
            return Operand(dtype="", shape=None)
        of_value = _spec(values[name])
        return Operand(
            dtype=of_value.dtype, shape=tuple(size if isinstance(size, int) else -1 for size in of_value.shape)
        )

    for node in graph.node:
        yield Operator(
            kind=f"{node.domain}::{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type,
            inputs=tuple(operand(name) for name in node.input),
            outputs=tuple(operand(name) for name in node.output),
            module=_module(node),
            is_nested=nested,
        )
        for body in _bodies(node):
            yield from _operators(body, nested=True)


def _bodies(node: NodeProto) -> list[GraphProto]:
    """The graphs of a loop or a branch."""
    return [graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs) if graph.node]


def _stored(graph: GraphProto) -> Iterator[Stored]:
    readers: dict[str, str] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, _module(node))
    for tensor in graph.initializer:
        name = tensor.name.removeprefix("model.")
        owner = name.rpartition(".")[0] or readers.get(tensor.name) or name
        yield Stored(layer=owner, dtype=_dtype(tensor.data_type), size_bytes=_size(tensor))
    for node in graph.node:
        if node.op_type == "Constant":
            tensors = [attribute.t for attribute in node.attribute if attribute.t.data_type]
            for tensor in tensors:
                yield Stored(layer=node.output[0], dtype=_dtype(tensor.data_type), size_bytes=_size(tensor))
        for body in _bodies(node):
            yield from _stored(body)


def _size(tensor: TensorProto) -> int:
    """Bytes, from the shape: the data may lie in another file."""
    count = 1
    for size in tensor.dims:
        count *= size
    dtype = _dtype(tensor.data_type)
    if dtype in BITS:
        return (count * BITS[dtype] + 7) // 8
    try:
        return count * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except KeyError:  # strings have no size of their own
        return int(tensor.ByteSize())


def _table_rows(graph: GraphProto) -> dict[str, int]:
    """Integer inputs that choose rows of a constant table, directly or through casts, with the fewest rows."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    origin = {value.name: value.name for value in graph.input if value.name not in constants}
    rows: dict[str, int] = {}
    for node in graph.node:
        if node.op_type in PASSING_ON and node.input and node.input[0] in origin:
            origin[node.output[0]] = origin[node.input[0]]
        is_first_axis = all(attribute.i == 0 for attribute in node.attribute if attribute.name == "axis")
        if node.op_type == "Gather" and is_first_axis and node.input[1] in origin and node.input[0] in constants:
            name, size = origin[node.input[1]], int(constants[node.input[0]].dims[0])
            rows[name] = min(size, rows.get(name, size))
        # A quantized table is dequantized as a whole or after the rows are chosen; either way it has the same rows.
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
    return rows


def _requires(model: ModelProto) -> tuple[str, ...]:
    found = []
    for imported in model.opset_import:
        if imported.domain in ("", "ai.onnx"):
            found.append(_since(OPSET_RUNTIME, imported.version, "opset"))
    found.append(_since(IR_RUNTIME, model.ir_version, "file format (IR)"))
    return tuple(found)


def _since(table: Mapping[int, str], version: int, what: str) -> str:
    if version in table:
        return f"onnxruntime {table[version]} ({what} {version})"
    return f"an onnxruntime newer than {table[max(table)]} ({what} {version} is newer than edgeseq's table)"


def _notes(graph: GraphProto, operators: tuple[Operator, ...]) -> tuple[str, ...]:
    notes = []
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in graph.initializer):
        notes.append("weights lie in files beside it, which must be shipped with it")
    own = sorted({operator.kind for operator in operators if operator.kind.startswith("com.microsoft")})
    if own:
        notes.append(f"only onnxruntime has {', '.join(own)}")
    return tuple(notes)


def _module(node: NodeProto) -> str:
    return next((entry.value for entry in node.metadata_props if entry.key == "module"), "")


def _dtype(number: int) -> str:
    """The name of an ONNX type as numpy would say it."""
    name = str(TensorProto.DataType.Name(number)).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


INSPECTOR = OnnxInspector()
