"""Core ML: the package's protobuf, an ML program (MIL)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from edgeseq.errors import RequestError
from edgeseq.inspection import NO_BOUND, Contents, Inspector, Stored
from edgeseq.inspection._coreml_proto import message_class
from edgeseq.inspection.operator import Operand, Operator
from edgeseq.signature import Dim, Signature, TensorSpec

MODEL = Path("Data/com.apple.CoreML/model.mlmodel")
# Specification version -> the first systems that load it (coremltools.target).
SYSTEMS = {
    1: "iOS 11, macOS 10.13", 2: "iOS 11.2, macOS 10.13.2", 3: "iOS 12, macOS 10.14", 4: "iOS 13, macOS 10.15",
    5: "iOS 14, macOS 11", 6: "iOS 15, macOS 12", 7: "iOS 16, macOS 13", 8: "iOS 17, macOS 14", 9: "iOS 18, macOS 15",
    10: "iOS 26, macOS 26",
}  # fmt: skip
FEATURES = {65568: "float32", 65600: "float64", 65552: "float16", 131104: "int32", 131080: "int8"}  # ArrayDataType
BITS = {
    "float16": 16,
    "float32": 32,
    "float64": 64,
    "bfloat16": 16,
    "bool": 8,
    "string": 0,
    "float8e4m3fn": 8,
    "float8e5m2": 8,
}
CONSTANT = ("const", "constexpr_")
PASSING_ON = frozenset({"cast", "identity", "reshape", "expand_dims", "squeeze", "transpose", "select", "add"})
UNLIMITED = -1  # an upper bound that is not one


class CoreMLInspector(Inspector):
    suffix = ".mlpackage"

    def read(self, path: Path) -> Contents:
        if not (path / MODEL).is_file():
            raise RequestError(f"'{path}' is not a Core ML package: it holds no {MODEL}")
        model = message_class()()
        try:
            model.ParseFromString((path / MODEL).read_bytes())
        except DecodeError as error:
            raise RequestError(f"'{path / MODEL}' is not a Core ML model: {error}") from error
        version = model.specificationVersion
        systems = SYSTEMS.get(version, f"systems newer than {SYSTEMS[max(SYSTEMS)]}")
        functions = [(name, _block(f)) for name, f in sorted(model.mlProgram.functions.items())]
        old = () if functions else ("it is no ML program but an older neural network: operators are not listed",)
        notes = (*old, *_kept_states(model.description))
        return Contents(
            signatures=tuple(_signatures(model.description)),
            operators=tuple(op for _, block in functions for op in _operators(block, nested=False)),
            stored=tuple(stored for _, block in functions for stored in _stored(block)),
            requires=(f"{systems} (Core ML specification version {version})",),
            table_rows={name: rows for _, block in functions for name, rows in _table_rows(block, model).items()},
            notes=notes,
        )


def _signatures(description: Any) -> Iterator[Signature]:
    several = description.functions
    for function in several if len(several) else (description,):
        inputs = [_spec(feature) for feature in function.input]
        dims = {dim.name: dim for _, found in inputs for dim in found}
        yield Signature(
            name=getattr(function, "name", "") or "main",
            inputs=tuple(spec for spec, _ in inputs),
            outputs=tuple(_spec(feature)[0] for feature in function.output),
            dims=tuple(dims.values()),
        )


def _kept_states(description: Any) -> Iterator[str]:
    """What the engine keeps from call to call: an app makes one object of it a sequence, and hands it to every call."""
    several = description.functions
    features = [state for function in (several if len(several) else (description,)) for state in function.state]
    arrays = {feature.name: feature.type.stateType.arrayType for feature in features}
    if arrays:
        listed = (f"{name} {FEATURES.get(array.dataType, '?')}{list(array.shape)}" for name, array in arrays.items())
        yield f"the engine keeps the states {', '.join(listed)}"


def _spec(feature: Any) -> tuple[TensorSpec, tuple[Dim, ...]]:
    """The tensor, and its flexible dimensions: they have bounds in a package but no names, so they are named by these."""
    array = feature.type.multiArrayType
    shape: list[int | str] = list(array.shape)
    dims = []
    for axis, size in enumerate(array.shapeRange.sizeRanges):
        if size.lowerBound != size.upperBound:
            high = NO_BOUND if size.upperBound == UNLIMITED else size.upperBound
            dims.append(
                Dim(name=f"{size.lowerBound}..{'' if high == NO_BOUND else high}", min=size.lowerBound, max=high)
            )
            shape[axis] = dims[-1].name
    known = tuple(shape) or ("?",)
    return TensorSpec(name=feature.name, dtype=FEATURES.get(array.dataType, "?"), shape=known), tuple(dims)


def _block(function: Any) -> Any:
    """The body: a function has one for each opset it is written for, and ours have one."""
    return function.block_specializations[function.opset]


def _operators(block: Any, *, nested: bool) -> Iterator[Operator]:
    values, constants = _values(block)
    for operation in block.operations:
        if not operation.type.startswith(CONSTANT):
            arguments = [
                binding.name
                for _, bound in sorted(operation.inputs.items(), key=_data_first)
                for binding in bound.arguments
            ]
            yield Operator(
                kind=operation.type,
                inputs=tuple(_operand(values[name], name in constants) for name in arguments if name in values),
                outputs=tuple(_operand(output.type, False) for output in operation.outputs),
                is_nested=nested,
            )
        for body in operation.blocks:
            yield from _operators(body, nested=True)


def _data_first(item: tuple[str, Any]) -> tuple[bool, str]:
    """MIL's inputs have names and no order; the data is called x, or values."""
    return item[0] not in ("x", "values"), item[0]


def _values(block: Any) -> tuple[dict[str, Any], set[str]]:
    """Types of the values that a block makes, by name, and which of them are constants."""
    values = {output.name: output.type for operation in block.operations for output in operation.outputs}
    constants = {
        output.name
        for operation in block.operations
        if operation.type.startswith(CONSTANT)
        for output in operation.outputs
    }
    return values, constants


def _stored(block: Any) -> Iterator[Stored]:
    for operation in block.operations:
        if operation.type.startswith(CONSTANT):
            own = list(operation.attributes.values()) if operation.type == "const" else []
            bound = [
                b.value for argument in operation.inputs.values() for b in argument.arguments if b.HasField("value")
            ]
            embedded = [*own, *bound, *(operation.attributes.values() if operation.type != "const" else ())]
            for value in embedded:
                tensor = value.type.tensorType
                dtype = _dtype(tensor.dataType)
                count = 1
                for size in tensor.dimensions:
                    count *= size.constant.size
                if BITS.get(dtype, 1):
                    size_bytes = (count * _bits(dtype) + 7) // 8
                    yield Stored(layer=operation.outputs[0].name, dtype=dtype, size_bytes=size_bytes)
        for body in operation.blocks:
            yield from _stored(body)


def _table_rows(block: Any, model: Any) -> dict[str, int]:
    """Integer inputs that choose rows of a constant table, directly or through casts, with the fewest rows."""
    values, constants = _values(block)
    origin: dict[str, str] = {feature.name: feature.name for feature in model.description.input}
    rows: dict[str, int] = {}
    for operation in block.operations:
        inputs: Mapping[str, list[str]] = {
            key: [b.name for b in argument.arguments if b.name] for key, argument in operation.inputs.items()
        }
        chooser = [origin[name] for name in inputs.get("indices", []) if name in origin]
        tables = [values[name] for name in inputs.get("x", []) if name in constants]
        if operation.type == "gather" and chooser and tables:
            size = int(tables[0].tensorType.dimensions[0].constant.size)
            rows[chooser[0]] = min(size, rows.get(chooser[0], size))
        elif operation.type in PASSING_ON:
            origins = {origin[name] for key in ("x", "a", "b", "y") for name in inputs.get(key, []) if name in origin}
            if len(origins) == 1:
                origin[operation.outputs[0].name] = origins.pop()
    return rows


def _operand(value_type: Any, is_constant: bool) -> Operand:
    tensor = value_type.tensorType
    shape = tuple(
        int(size.constant.size) if size.WhichOneof("dimension") == "constant" else -1 for size in tensor.dimensions
    )
    return Operand(dtype=_dtype(tensor.dataType), shape=shape, is_constant=is_constant)


def _dtype(number: int) -> str:
    """MIL's DataType as numpy would say it."""
    from_name = message_class().DESCRIPTOR.file.pool.FindEnumTypeByName("CoreML.Specification.MILSpec.DataType")
    return str(from_name.values_by_number[number].name).lower()


def _bits(dtype: str) -> int:
    return BITS[dtype] if dtype in BITS else int("".join(c for c in dtype if c.isdigit()))


INSPECTOR = CoreMLInspector()
