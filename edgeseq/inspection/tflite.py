"""TFLite: the flatbuffer, read with the schema that comes with LiteRT."""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from edgeseq.errors import RequestError
from edgeseq.inspection import Contents, Inspector, Stored
from edgeseq.inspection._tflite_runtime import RUNTIME
from edgeseq.inspection.operator import Operand, Operator
from edgeseq.signature import Signature, TensorSpec

IDENTIFIER = b"TFL3"
MINIMUM = "min_runtime_version"  # metadata that TensorFlow's own converter writes
# What flatbuffers, and what looks numbers up in tables, raise on bytes that were cut short or changed.
DAMAGE = (struct.error, IndexError, KeyError, TypeError, AttributeError, ValueError)


def _numbers(enumeration: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if not name.startswith("_")}


TYPES = {number: name.lower() for number, name in _numbers(schema.TensorType).items()}
KINDS = _numbers(schema.BuiltinOperator)


class TFLiteInspector(Inspector):
    suffix = ".tflite"

    def read(self, path: Path) -> Contents:
        data = path.read_bytes()
        if data[4:8] != IDENTIFIER:
            raise RequestError(f"'{path}' is not a TFLite file: it lacks the mark TFL3")
        try:
            model = _Model(data)
            return Contents(
                signatures=tuple(model.signatures()),
                operators=tuple(model.operators()),
                stored=tuple(model.stored()),
                requires=model.requires(),
                table_rows=model.table_rows(),
            )
        except DAMAGE as error:
            raise RequestError(f"'{path}' is a damaged TFLite file: {error!r}") from error


class _Model:
    """Read by offsets: weights are not copied."""

    def __init__(self, data: bytes):
        self.data = data
        self.model = schema.Model.GetRootAs(data)
        self.graphs = [self.model.Subgraphs(i) for i in range(self.model.SubgraphsLength())]
        self.codes = [self.model.OperatorCodes(i) for i in range(self.model.OperatorCodesLength())]

    def signatures(self) -> Iterator[Signature]:
        for i in range(self.model.SignatureDefsLength()):
            entry = self.model.SignatureDefs(i)
            graph = self.graphs[entry.SubgraphIndex()]
            yield Signature(
                name=entry.SignatureKey().decode(),
                inputs=tuple(self.spec(graph, entry.Inputs(k)) for k in range(entry.InputsLength())),
                outputs=tuple(self.spec(graph, entry.Outputs(k)) for k in range(entry.OutputsLength())),
            )

    def spec(self, graph: Any, entry: Any) -> TensorSpec:
        tensor = graph.Tensors(entry.TensorIndex())
        shape = tuple("?" if size < 0 else size for size in _shape(tensor))
        return TensorSpec(name=entry.Name().decode(), dtype=TYPES[tensor.Type()], shape=shape)

    def kind(self, operator: Any) -> str:
        code = self.codes[operator.OpcodeIndex()]
        builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        return f"custom::{code.CustomCode().decode()}" if KINDS[builtin] == "CUSTOM" else KINDS[builtin]

    def operators(self) -> Iterator[Operator]:
        signatures = {self.model.SignatureDefs(i).SubgraphIndex() for i in range(self.model.SignatureDefsLength())}
        for number, graph in enumerate(self.graphs):
            for operator in _operators(graph):
                name = graph.Tensors(operator.Outputs(0)).Name() if operator.OutputsLength() else b""
                yield Operator(
                    kind=self.kind(operator),
                    inputs=tuple(
                        self.operand(graph, operator.Inputs(k))
                        for k in range(operator.InputsLength())
                        if operator.Inputs(k) >= 0
                    ),
                    outputs=tuple(self.operand(graph, operator.Outputs(k)) for k in range(operator.OutputsLength())),
                    module=_module((name or b"").decode()),
                    is_nested=number not in (signatures or {0}),
                )

    def operand(self, graph: Any, index: int) -> Operand:
        tensor = graph.Tensors(index)
        return Operand(dtype=TYPES[tensor.Type()], shape=_shape(tensor), is_constant=self.size(tensor) > 0)

    def size(self, tensor: Any) -> int:
        """Bytes of a constant's data; 0: it is computed. Large buffers lie behind the flatbuffer, at an offset."""
        buffer = self.model.Buffers(tensor.Buffer())
        return int(buffer.DataLength() or (buffer.Size() if buffer.Offset() > 1 else 0))

    def stored(self) -> Iterator[Stored]:
        """Each buffer once, under its own module path, or else that of the first operator that reads it."""
        counted = set()
        for graph in self.graphs:
            readers: dict[int, str] = {}
            for operator in _operators(graph):
                module = _module((graph.Tensors(operator.Outputs(0)).Name() or b"").decode())
                for k in range(operator.InputsLength()):
                    readers.setdefault(operator.Inputs(k), module)
            for i in range(graph.TensorsLength()):
                tensor = graph.Tensors(i)
                size = self.size(tensor)
                if size and tensor.Buffer() not in counted:
                    counted.add(tensor.Buffer())
                    name = (tensor.Name() or b"").decode()
                    layer = name.rpartition(".")[0] or _module(name) or readers.get(i) or name
                    yield Stored(layer=layer, dtype=TYPES[tensor.Type()], size_bytes=size)

    def table_rows(self) -> dict[str, int]:
        """Integer inputs that choose rows of a constant table, directly or reshaped, with the fewest rows."""
        rows: dict[str, int] = {}
        for i in range(self.model.SignatureDefsLength()):
            entry = self.model.SignatureDefs(i)
            graph = self.graphs[entry.SubgraphIndex()]
            inputs = (entry.Inputs(k) for k in range(entry.InputsLength()))
            origin = {item.TensorIndex(): item.Name().decode() for item in inputs}
            for operator in _operators(graph):
                table, chooser = {"EMBEDDING_LOOKUP": (1, 0), "GATHER": (0, 1)}.get(self.kind(operator), (None, None))
                if table is None:
                    if (
                        self.kind(operator) in ("RESHAPE", "CAST", "SQUEEZE", "EXPAND_DIMS")
                        and operator.Inputs(0) in origin
                    ):
                        origin[operator.Outputs(0)] = origin[operator.Inputs(0)]
                    continue
                tensor, name = graph.Tensors(operator.Inputs(table)), origin.get(operator.Inputs(chooser))
                if name is not None and self.size(tensor):
                    rows[name] = min(_shape(tensor)[0], rows.get(name, _shape(tensor)[0]))
        return rows

    def requires(self) -> tuple[str, ...]:
        """The runtime of the newest operator version; what the file itself says comes first."""
        declared = self.metadata().get(MINIMUM)
        since: Mapping[str, str] = {
            f"{KINDS[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]} version {code.Version()}": _since(code)
            for code in self.codes
        }
        newest = max((v for v in since.values() if v), key=_ordered, default="")
        found = [f"TensorFlow Lite {declared} (the file says so)"] if declared else []
        if newest:
            causes = [name for name, version in since.items() if version == newest]
            found.append(f"TensorFlow Lite {newest} ({', '.join(sorted(causes))})")
        unknown = sorted(name for name, version in since.items() if not version)
        if unknown:
            found.append(f"not known to edgeseq's table: {', '.join(unknown)}")
        return tuple(found)

    def metadata(self) -> dict[str, str]:
        found = {}
        for i in range(self.model.MetadataLength()):
            entry = self.model.Metadata(i)
            data = self.model.Buffers(entry.Buffer()).DataAsNumpy()
            if entry.Name() and entry.Name().decode() == MINIMUM:
                found[MINIMUM] = bytes(data).rstrip(b"\0").decode(errors="replace")
        return found


def _operators(graph: Any) -> Iterator[Any]:
    return (graph.Operators(i) for i in range(graph.OperatorsLength()))


def _shape(tensor: Any) -> tuple[int, ...]:
    """With -1 for sizes that vary."""
    if tensor.ShapeSignatureLength():
        return tuple(int(tensor.ShapeSignature(i)) for i in range(tensor.ShapeSignatureLength()))
    return tuple(int(tensor.Shape(i)) for i in range(tensor.ShapeLength()))


def _module(name: str) -> str:
    """Our tensors are called 'module.path;operator'."""
    return name.partition(";")[0] if ";" in name else ""


def _since(code: Any) -> str:
    kind = KINDS[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
    versions = RUNTIME.get(kind, "").split()
    known = code.Version() <= len(versions) and versions[code.Version() - 1] != "-"
    return versions[code.Version() - 1] if known else ""


def _ordered(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


INSPECTOR = TFLiteInspector()
