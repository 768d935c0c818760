"""Loading a saved .mlpackage, and evaluating its functions operator by operator."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from coremltools.converters.mil.frontend.milproto.load import load
from coremltools.converters.mil.mil import Block as MILBlock
from coremltools.converters.mil.mil import Function, ListVar, Operation, Var, types
from coremltools.proto.Model_pb2 import Model

from edgeseq.devices.runtimes._mil import (
    constexpr,
    convolution,
    elementwise,
    image,
    lists,
    matmul,
    recurrent,
    selection,
    shape,
)
from edgeseq.devices.runtimes._mil.control import (
    Apply,
    Block,
    Branch,
    Computation,
    Loop,
    Name,
    ReadState,
    Step,
    Values,
    WriteState,
    typed,
)
from edgeseq.devices.runtimes._mil.operator import Array, Operator
from edgeseq.devices.runtimes._mil.precision import Precision, as_evaluated, as_stored
from edgeseq.errors import UnavailableError

COMPUTING: Mapping[str, Operator] = {
    **elementwise.OPERATORS,
    **matmul.OPERATORS,
    **convolution.OPERATORS,
    **recurrent.OPERATORS,
    **image.COMPUTING,
}
MOVING: Mapping[str, Operator] = {**shape.OPERATORS, **selection.OPERATORS, **image.MOVING, **lists.OPERATORS}
# They move values, but put in some of their own.
MAKING = frozenset({"fill", "fill_like", "one_hot", "pad", "range_1d", "scatter", "scatter_along_axis", "scatter_nd"})
CONTROL = frozenset({"cond", "while_loop", "read_state", "coreml_update_state"})


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A function of the program, ready to be evaluated."""

    block: Block
    state_shapes: Mapping[str, tuple[int, ...]]
    precision: Precision = "declared"

    def __call__(self, feeds: Mapping[str, Array], states: Values | None = None) -> dict[str, Array]:
        """Outputs by name; `states` is what `new_states` made, and is changed. None: the function has none, or new ones."""
        given = {key: typed(value, as_evaluated(value.dtype, self.precision)) for key, value in feeds.items()}
        with np.errstate(all="ignore"):  # overflow and NaN are results here, to be compared
            results = self.block(given, self.new_states() if states is None else states)
        return dict(zip(self.block.outputs, results, strict=True))

    def new_states(self) -> Values:
        """The states of a new sequence: zeros."""
        return {name: np.zeros(sizes, np.float32) for name, sizes in self.state_shapes.items()}


def load_functions(package: Path, precision: Precision = "declared") -> dict[str, Evaluated]:
    """The functions of a saved package by name, to be evaluated in the types it declares or in one of its own.

    Raises:
        UnavailableError: The evaluator lacks operators of the program; all are listed. Or it is no ML program.
    """
    data = package / "Data" / "com.apple.CoreML"
    spec = Model.FromString((data / "model.mlmodel").read_bytes())
    if spec.WhichOneof("Type") != "mlProgram":
        raise UnavailableError(
            f"the Core ML evaluator runs ML programs, but '{package}' is of the type '{spec.WhichOneof('Type')}'; convert the "
            "model again for iOS 15 or newer"
        )
    _require_known(spec)
    program = load(spec, spec.specificationVersion, str(data / "weights"))
    for function in program.functions.values():
        _name_apart(function)
    return {name: _function(function, precision) for name, function in program.functions.items()}


def _require_known(spec: Any) -> None:
    """Checked on the file itself, since coremltools stops at the first operator that it does not know."""
    known = {*COMPUTING, *MOVING, *CONTROL, *constexpr.OPERATORS, "const", "write_state"}
    bodies = [f.block_specializations[f.opset] for f in spec.mlProgram.functions.values()]
    missing = {operation.type for body in bodies for operation in _nested(body)} - known
    if missing:
        raise UnavailableError(
            f"the Core ML evaluator has no operator {', '.join(sorted(missing))}; check this artifact on macOS with "
            "the runtime 'coreml', or add the operator to devices/runtimes/_mil"
        )


def _name_apart(function: Function) -> None:
    """Literals apart: coremltools 9.0 names them without a look at the file: `const_1` may be there twice."""
    seen: set[str] = set()
    for operation in _nested(function):
        for var in operation.outputs:
            if operation.op_type == "const" and var.name in seen:
                var.name = f"{var.name} {len(seen)}"  # no file's name has a space
            seen.add(var.name)


def _nested(block: Any) -> Iterator[Any]:
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from _nested(inner)


def _function(function: Function, precision: Precision) -> Evaluated:
    states = {name: var for name, var in function.inputs.items() if types.is_state(var.sym_type)}
    return Evaluated(
        block=_block(function, {}, precision),
        state_shapes={name: tuple(var.sym_type.wrapped_type().get_shape()) for name, var in states.items()},
        precision=precision,
    )


def _block(block: MILBlock, around: Mapping[str, Any], precision: Precision) -> Block:
    """One block; `around` are the constants that it sees."""
    constants: dict[str, Any] = {}
    operations: list[Operation] = []
    for operation in block.operations:
        if operation.op_type == "const" or operation.op_type in constexpr.OPERATORS:
            constants |= _constants(operation, {**around, **constants}, precision)
        else:
            operations.append(operation)
    outputs = tuple(var.name for var in block.outputs)
    last_readers = {name: operation for operation in operations for name in _names(operation)}
    made = {var.name for operation in operations for var in operation.outputs}
    steps = []
    for operation in operations:
        frees = tuple(n for n in _names(operation) if last_readers[n] is operation and n in made and n not in outputs)
        steps.append(
            Step(
                compute=_computation(operation, {**around, **constants}, precision),
                outputs=tuple(var.name for var in operation.outputs),
                dtypes=tuple(_evaluated_dtype(var, precision) for var in operation.outputs),
                is_rounded=operation.op_type not in MOVING or operation.op_type in MAKING,
                frees=frees,
            )
        )
    inputs = block.inputs if isinstance(block.inputs, Mapping) else [var.name for var in block.inputs]
    return Block(inputs=tuple(inputs), constants=constants, steps=tuple(steps), outputs=outputs)


def _constants(operation: Operation, known: Mapping[str, Any], precision: Precision) -> dict[str, Any]:
    """What a `const` or `constexpr_*` operation holds, by name."""
    if operation.op_type == "const":
        results: Any = (operation.outputs[0].val,)
    else:
        given = {key: var for key, var in operation.inputs.items() if var is not None}
        arguments = {key: known[var.name] for key, var in given.items()}
        results = constexpr.OPERATORS[operation.op_type](**arguments)
        results = results if isinstance(results, tuple) else (results,)
    found: dict[str, Any] = {}
    for var, result in zip(operation.outputs, results, strict=True):
        if var.dtype == types.str:
            found[var.name] = str(result)
        else:
            stored = as_stored(_dtype(var), np.size(result), precision)
            found[var.name] = np.array(typed(result, stored))  # writeable
    return found


def _computation(operation: Operation, constants: Mapping[str, Any], precision: Precision) -> Computation:
    inputs = operation.inputs
    if operation.op_type == "cond":
        if_true, if_false = (_block(block, constants, precision) for block in operation.blocks)
        return Branch(condition=inputs["pred"].name, if_true=if_true, if_false=if_false)
    if operation.op_type == "while_loop":
        condition, body = (_block(block, constants, precision) for block in operation.blocks)
        variables = tuple(var.name for var in inputs["loop_vars"])
        return Loop(variables=variables, condition=condition, body=body)
    if operation.op_type == "read_state":
        return ReadState(state=inputs["input"].name)
    if operation.op_type == "coreml_update_state":
        return WriteState(state=inputs["state"].name, value=inputs["value"].name)
    fixed: dict[str, Any] = {}
    named: dict[str, Name] = {}
    for parameter, value in inputs.items():
        if isinstance(value, (list, tuple)):
            named[parameter] = tuple(var.name for var in value)
        elif value is not None and value.name in constants:
            fixed[parameter] = constants[value.name]
        elif value is not None:
            named[parameter] = value.name
    operator = COMPUTING.get(operation.op_type) or MOVING[operation.op_type]
    return Apply(operator=operator, constants=fixed, inputs=named)


def _names(operation: Operation) -> dict[str, None]:
    """Names of the values that an operation reads, its blocks included, in order."""
    read: dict[str, None] = {}
    for value in operation.inputs.values():
        for var in value if isinstance(value, (list, tuple)) else (value,):
            if var is not None:
                read[var.name] = None
    for block in operation.blocks:
        for inner in block.operations:
            read |= _names(inner)
        read |= {var.name: None for var in block.outputs}
    return read


def _evaluated_dtype(var: Var, precision: Precision) -> np.dtype[Any] | None:
    return None if isinstance(var, ListVar) else as_evaluated(_dtype(var), precision)


def _dtype(var: Var) -> np.dtype[Any]:
    return np.dtype(types.nptype_from_builtin(var.dtype))
