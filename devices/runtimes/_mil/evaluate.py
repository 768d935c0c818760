"""Loading a saved .mlpackage, and evaluating its functions operator by operator."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.frontend.milproto.load import load
from coremltools.converters.mil.mil import Function, ListVar, Operation, Var, types
from coremltools.proto.Model_pb2 import Model

from edgeseq.devices.runtimes._mil import constexpr, elementwise, matmul, recurrent, shape
from edgeseq.devices.runtimes._mil.operator import Array, Operator
from edgeseq.devices.runtimes._mil.precision import Precision, as_evaluated, as_stored
from edgeseq.errors import UnavailableError

COMPUTING: Mapping[str, Operator] = {**elementwise.OPERATORS, **matmul.OPERATORS, **recurrent.OPERATORS}
MOVING: Mapping[str, Operator] = shape.OPERATORS
MAKING = frozenset({"fill", "fill_like", "one_hot", "pad", "range_1d"})  # they move values, but put in one of their own


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operation: which function on which values gives which others."""

    operator: Operator
    constants: Mapping[str, Any]
    inputs: Mapping[str, str | tuple[str, ...]]  # parameter -> the value's name, or those of a list
    outputs: tuple[str, ...]
    dtypes: tuple[np.dtype[Any], ...]  # that each output is rounded to
    is_rounded: bool  # False: it only moves values that are rounded already
    frees: tuple[str, ...]  # values that nothing reads after this step


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A function of the program, ready to be evaluated."""

    constants: Mapping[str, Array]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    precision: Precision = "declared"

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name."""
        given = {key: typed(value, as_evaluated(value.dtype, self.precision)) for key, value in feeds.items()}
        values: dict[str, Any] = {**self.constants, **given}
        with np.errstate(all="ignore"):  # overflow and NaN are results here, to be compared
            for step in self.steps:
                inputs = {key: _read(values, name) for key, name in step.inputs.items()}
                results = step.operator(**step.constants, **inputs)
                results = results if isinstance(results, tuple) else (results,)
                for name, dtype, result in zip(step.outputs, step.dtypes, results, strict=True):
                    values[name] = typed(result, dtype, is_rounded=step.is_rounded)
                for name in step.frees:
                    del values[name]
        return {name: values[name] for name in self.outputs}


def load_functions(package: Path, precision: Precision = "declared") -> dict[str, Evaluated]:
    """The functions of a saved package by name, to be evaluated in the types it declares or in one of its own.

    Raises:
        UnavailableError: The evaluator lacks operators of the program; all are listed.
    """
    data = package / "Data" / "com.apple.CoreML"
    spec = Model.FromString((data / "model.mlmodel").read_bytes())
    program = load(spec, spec.specificationVersion, str(data / "weights"))
    missing = {op.op_type for function in program.functions.values() for op in function.operations if not _is_known(op)}
    if missing:
        raise UnavailableError(
            f"the Core ML evaluator has no operator {', '.join(sorted(missing))}; check this artifact on macOS with "
            "the runtime 'coreml', or add the operator to devices/runtimes/_mil"
        )
    return {name: _prepare(function, precision) for name, function in program.functions.items()}


def typed(value: Any, dtype: np.dtype[Any], *, is_rounded: bool = True) -> Array:
    """The value as the evaluator holds that type: float16 as float32 that float16 can express."""
    if dtype != np.float16:
        return np.asarray(value, dtype)
    held = np.asarray(value, np.float32)
    return held.astype(np.float16).astype(np.float32) if is_rounded else held


def _prepare(function: Function, precision: Precision) -> Evaluated:
    constants: dict[str, Array] = {}
    operations: list[Operation] = []
    for operation in function.operations:
        if operation.op_type == "const":
            results: tuple[Any, ...] = (operation.outputs[0].val,)
        elif operation.op_type.startswith("constexpr_"):
            results = constexpr.expand(operation)
        else:
            operations.append(operation)
            continue
        for var, result in zip(operation.outputs, results, strict=True):
            if var.dtype == types.str:
                constants[var.name] = str(result)
            else:
                stored = as_stored(_dtype(var), np.size(result), precision)
                constants[var.name] = np.array(typed(result, stored))  # writeable
    outputs = tuple(var.name for var in function.outputs)
    last_readers = {name: op for op in operations for name in _names(op)}
    steps = []
    for operation in operations:
        made_and_read = [name for name in {**_names(operation)} if last_readers[name] is operation]
        frees = tuple(name for name in made_and_read if name not in constants and name not in outputs)
        steps.append(_step(operation, constants, frees, precision))
    return Evaluated(constants=constants, steps=tuple(steps), outputs=outputs, precision=precision)


def _step(operation: Operation, constants: Mapping[str, Array], frees: tuple[str, ...], precision: Precision) -> Step:
    fixed: dict[str, Any] = {}
    inputs: dict[str, str | tuple[str, ...]] = {}
    for parameter, value in operation.inputs.items():
        if value is None:
            continue
        if isinstance(value, (list, tuple)):
            inputs[parameter] = tuple(var.name for var in value)
        elif value.name in constants:
            fixed[parameter] = constants[value.name]
        else:
            inputs[parameter] = value.name
    ours = COMPUTING.get(operation.op_type) or MOVING.get(operation.op_type)
    return Step(
        operator=ours or _inferred(operation),
        constants=fixed,
        inputs=inputs,
        outputs=tuple(var.name for var in operation.outputs),
        dtypes=tuple(as_evaluated(_dtype(var), precision) for var in operation.outputs),
        is_rounded=operation.op_type not in MOVING or operation.op_type in MAKING,
        frees=frees,
    )


def _inferred(operation: Operation) -> Operator:
    """Coremltools' own constant folding of an operator that this evaluator has no function for: slow, but there."""
    half = {key for key, value in operation.inputs.items() if isinstance(value, Var) and value.dtype == types.fp16}
    version = operation.enclosing_block.opset_version if hasattr(operation.enclosing_block, "opset_version") else None

    def infer(**inputs: Any) -> tuple[Array, ...]:
        given = {key: value.astype(np.float16) if key in half else value for key, value in inputs.items()}
        given = {
            key: value[()] if isinstance(value, np.ndarray) else value for key, value in given.items()
        }  # no 0-d arrays
        with Function({}, opset_version=version or ct.target.iOS16):
            results = getattr(mb, operation.op_type)(**given)
        results = results if isinstance(results, (list, tuple)) else (results,)
        return tuple(result.val for result in results)

    return infer


def _is_known(operation: Operation) -> bool:
    op_type = operation.op_type
    if op_type == "const" or op_type.startswith("constexpr_") or op_type in COMPUTING or op_type in MOVING:
        return True
    return not operation.blocks and type(operation).value_inference is not Operation.value_inference


def _names(operation: Operation) -> dict[str, None]:
    """Names of the values that an operation reads, in order."""
    read: dict[str, None] = {}
    for value in operation.inputs.values():
        for var in value if isinstance(value, (list, tuple)) else (value,):
            if var is not None:
                read[var.name] = None
    return read


def _read(values: Mapping[str, Any], name: str | tuple[str, ...]) -> Any:
    return values[name] if isinstance(name, str) else [values[n] for n in name]


def _dtype(var: Var) -> Any:
    if isinstance(var, ListVar):
        raise UnavailableError(f"the Core ML evaluator has no lists, but '{var.name}' is one")
    return np.dtype(types.nptype_from_builtin(var.dtype))
