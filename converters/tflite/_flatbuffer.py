"""Writing graphs as a TFLite flatbuffer: constants once, tensors in order of use, one SignatureDef a signature."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import sympy
from ai_edge_litert import schema_py_generated as schema

from edgeseq import tflite_file
from edgeseq.converters.tflite._graph import Graph, Operator, Shape, Value
from edgeseq.errors import UnsupportedError

MOST = 2_000_000_000  # bytes: offsets in a flatbuffer are signed 32-bit
_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "int32": schema.TensorType.INT32,
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "bool": schema.TensorType.BOOL,
}
# The lowest version of an operator that has what we use of it; all others are version 1.
_VERSIONS = {
    "BROADCAST_TO": 2,
    "FULLY_CONNECTED": 5,
    "BATCH_MATMUL": 1,
    "GATHER": 4,
    "STRIDED_SLICE": 4,
    "SLICE": 2,
    "ARG_MAX": 2,
    "TRANSPOSE": 2,
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One signature of the file: a subgraph whose inputs and outputs have these names, in order."""

    name: str
    graph: Graph
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]


def serialize(graphs: Sequence[Graph], entries: Sequence[Entry], hints: Mapping[sympy.Expr, int]) -> bytes:
    """The file's bytes. `hints` gives the dynamic dimensions the size that the file has before it is resized."""
    writer = _Writer(hints=hints)
    model = schema.ModelT()
    model.version = 3
    model.description = "edgeseq"
    model.subgraphs = [writer.subgraph(graph) for graph in graphs]
    model.operatorCodes = writer.codes
    model.buffers = writer.buffers
    model.signatureDefs = [_signature(entry, model.subgraphs[entry.graph.index()]) for entry in entries]
    held = sum(buffer.data.nbytes for buffer in writer.buffers if buffer.data is not None)
    if held > MOST:
        raise UnsupportedError(
            f"format 'tflite' holds 2 GB in one file, but the model's weights take {held / 1e9:.1f} GB in float32; "
            "convert a smaller model, or to onnx or coreml"
        )
    return tflite_file.pack(model)


@dataclass
class _Writer:
    hints: Mapping[sympy.Expr, int]
    codes: list[schema.OperatorCodeT] = field(default_factory=list)
    buffers: list[schema.BufferT] = field(default_factory=lambda: [schema.BufferT()])
    names: dict[str, int] = field(default_factory=dict)
    code_numbers: dict[str, int] = field(default_factory=dict)
    buffer_numbers: dict[bytes, int] = field(default_factory=dict)

    def subgraph(self, graph: Graph) -> schema.SubGraphT:
        numbers: dict[Value, int] = {}
        result = schema.SubGraphT()
        result.name = graph.name
        used = [*graph.inputs]
        for operator in graph.operators:
            used += [value for value in [*operator.inputs, *operator.outputs] if value is not None]
        values = list(dict.fromkeys([*used, *graph.outputs]))
        constants: dict[tuple[int, Shape, str], int] = {}
        result.tensors = []
        for value in values:
            number = self.buffer(value)
            key = (number, value.shape, str(value.dtype))
            if number and key in constants:
                numbers[value] = constants[key]
                continue
            numbers[value] = constants[key] = len(result.tensors)
            result.tensors.append(self.tensor(value, number))
        result.inputs = [numbers[value] for value in graph.inputs]
        result.outputs = [numbers[value] for value in graph.outputs]
        result.operators = [self.operator(operator, numbers) for operator in graph.operators]
        return result

    def tensor(self, value: Value, buffer: int) -> schema.TensorT:
        tensor = schema.TensorT()
        tensor.name = self.unique(value.name)
        tensor.type = _TYPES[str(value.dtype)]
        tensor.buffer = buffer
        tensor.shape = [size if isinstance(size, int) else int(size.subs(self.hints)) for size in value.shape]
        tensor.hasRank = True
        if any(not isinstance(size, int) for size in value.shape):
            tensor.shapeSignature = [size if isinstance(size, int) else -1 for size in value.shape]
        return tensor

    def unique(self, name: str) -> str:
        # AI Edge Quantizer looks tensors up by name, across subgraphs.
        count = self.names[name] = self.names.get(name, 0) + 1
        return name if count == 1 else self.unique(f"{name}_{count - 1}")

    def buffer(self, value: Value) -> int:
        if value.data is None:
            return 0
        # The hash finds tied weights and repeated small constants.
        raw = value.data.reshape(-1).view(np.uint8)
        digest = hashlib.sha256(raw.data).digest()
        if digest not in self.buffer_numbers:
            buffer = schema.BufferT()
            buffer.data = raw
            self.buffer_numbers[digest] = len(self.buffers)
            self.buffers.append(buffer)
        return self.buffer_numbers[digest]

    def operator(self, operator: Operator, numbers: Mapping[Value, int]) -> schema.OperatorT:
        result = schema.OperatorT()
        result.opcodeIndex = self.code(operator.code)
        result.inputs = [-1 if value is None else numbers[value] for value in operator.inputs]
        result.outputs = [numbers[value] for value in operator.outputs]
        if operator.options is not None:
            result.builtinOptionsType = getattr(schema.BuiltinOptions, operator.options.table)
            result.builtinOptions = getattr(schema, f"{operator.options.table}T")()
            for name, setting in operator.options.fields.items():
                assert hasattr(result.builtinOptions, name), (operator.options.table, name)
                setattr(result.builtinOptions, name, setting)
        return result

    def code(self, name: str) -> int:
        if name not in self.code_numbers:
            code = schema.OperatorCodeT()
            code.builtinCode = getattr(schema.BuiltinOperator, name)
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            code.version = _VERSIONS.get(name, 1)
            self.code_numbers[name] = len(self.codes)
            self.codes.append(code)
        return self.code_numbers[name]


def _signature(entry: Entry, subgraph: schema.SubGraphT) -> schema.SignatureDefT:
    signature = schema.SignatureDefT()
    signature.signatureKey = entry.name
    signature.subgraphIndex = entry.graph.index()
    signature.inputs = [_tensor_map(*pair) for pair in zip(entry.input_names, subgraph.inputs, strict=True)]
    signature.outputs = [_tensor_map(*pair) for pair in zip(entry.output_names, subgraph.outputs, strict=True)]
    return signature


def _tensor_map(name: str, index: int) -> schema.TensorMapT:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry
