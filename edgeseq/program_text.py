"""The JSON of an exported program, checked: operators by name, sizes as arithmetic, and nothing that is evaluated."""

import ast
import json
import operator
import re
from collections.abc import Iterator
from typing import Any

import torch

from edgeseq.errors import RequestError

NAMESPACES = frozenset({"aten", "edgeseq", "prims", "quantized_decomposed"})
OPERATOR = re.compile(r"torch\.ops\.(\w+)\.(\w+)\.(\w+)")
OF_SIZES = re.compile(
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|getitem)"
    r"|torch\.(sym_(int|float|max|min|not|ite|sum)|_sym_sqrt)|math\.(ceil|floor|trunc)"
)
OF_GRAPHS = re.compile(
    r"torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast|cond|while_loop|scan)"
)
FUNCTIONS = frozenset({
    "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Mod", "Eq", "Ne", "Equality",
    "Unequality", "And", "Or", "Not", "true", "false", "StrictLessThan", "StrictGreaterThan", "LessThan",
    "GreaterThan", "Lt", "Le", "Gt", "Ge", "Piecewise", "ceiling", "floor", "FloorDiv", "ModularIndexing", "Where",
    "PythonMod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv", "LShift", "RShift", "PowByNatural", "FloatPow",
    "FloatTrueDiv", "IntTrueDiv", "IsNonOverlappingAndDenseIndicator", "TruncToFloat", "TruncToInt", "RoundToInt",
    "RoundDecimal", "ToFloat", "Identity", "BooleanTrue", "BooleanFalse", "NegativeOne", "Zero", "One",
})  # fmt: skip
SYMBOL = re.compile(r"[a-z]+\d+")
ARITHMETIC = (
    ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.BinOp, ast.UnaryOp, ast.Compare,
    ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip
_LEAF: Any = {"type": None, "context": None, "children_spec": []}


def checked_program(program: Any, name: str) -> Any:
    """The program's JSON without guards, traces and containers: flat positional inputs, flat outputs.

    Raises:
        RequestError: It holds text that would be evaluated and is not arithmetic, calls something that is no operator,
            or takes other things than tensors.
    """
    for key, value in _fields(program):
        if key == "expr_str":
            check_size(value, name)
        elif key in ("as_operator", "target") and isinstance(value, str):
            check_operator(value, name)
        elif key in ("as_custom_obj", "custom_obj_values") and value:
            raise RequestError(f"'{name}' holds a script object; export the model without")
        elif key == "nodes":
            for node in value:
                node["metadata"] = {k: v for k, v in node["metadata"].items() if k == "nn_module_stack"}
    module = program["graph_module"]
    _check_inputs(module["signature"]["input_specs"], name)
    module["module_call_graph"] = [_flat_call(module)]
    module["treespec_namedtuple_fields"], module["metadata"] = {}, {}
    program["guards_code"] = []
    return program


def check_size(text: str, name: str) -> None:
    """Refuse what is not arithmetic on symbols: sympy evaluates it as Python.

    Raises:
        RequestError: With the text.
    """
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise RequestError(f"'{name}' holds a size that cannot be read: {text[:80]!r}") from error
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        is_fine = isinstance(node, ARITHMETIC)
        if isinstance(node, ast.Call):
            is_fine = isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS
        elif isinstance(node, ast.Name) and id(node) not in called:
            is_fine = node.id in FUNCTIONS or bool(SYMBOL.fullmatch(node.id))
        elif isinstance(node, ast.Constant):
            is_fine = not isinstance(node.value, str | bytes) or bool(SYMBOL.fullmatch(str(node.value)))
        if not is_fine:
            raise RequestError(f"'{name}' holds a size that is no arithmetic: {text[:80]!r}; it is not read")


def check_operator(target: str, name: str) -> None:
    """Refuse a call of anything but an operator on tensors, or arithmetic on sizes.

    Raises:
        RequestError: With the function's name.
    """
    if OF_SIZES.fullmatch(target) or OF_GRAPHS.fullmatch(target):
        return
    parts = OPERATOR.fullmatch(target)
    if not parts:
        raise RequestError(f"'{name}' calls '{target}', which is no operator of torch; it is not read")
    if parts[1] not in NAMESPACES:
        raise RequestError(
            f"'{name}' calls '{target}', an operator of another package; export the model without it, or convert the "
            "script that defines it"
        )
    try:
        found = operator.attrgetter(target.removeprefix("torch.ops."))(torch.ops)
    except AttributeError as error:
        raise RequestError(f"'{name}' calls '{target}', which torch {torch.__version__} does not have") from error
    if not isinstance(found, torch._ops.OpOverload) or any("file" in a.name for a in found._schema.arguments):
        raise RequestError(f"'{name}' calls '{target}', which is no operator on tensors; it is not read")


def _check_inputs(specs: Any, name: str) -> None:
    """Refuse a program that is called with anything but tensors."""
    for argument in (spec["user_input"]["arg"] for spec in specs if "user_input" in spec):
        if "as_tensor" not in argument:
            raise RequestError(
                f"'{name}' takes an input that is no tensor: {argument}; make it a constant of the model"
            )


def _flat_call(module: Any) -> Any:
    """How the program is called: tensors by position -> a tuple of tensors, or a mapping where it gave one."""
    signature = module["signature"]
    inputs = [_LEAF for spec in signature["input_specs"] if "user_input" in spec]
    outputs = [_LEAF for spec in signature["output_specs"] if "user_output" in spec]
    keys = _output_keys(module, len(outputs))
    taken = _spec("tuple", None, [_spec("tuple", None, inputs), _spec("dict", [], [])])
    given = _spec("dict", keys, outputs) if keys else _spec("tuple", None, outputs)
    specs = {"in_spec": json.dumps([1, taken]), "out_spec": json.dumps([1, given])}
    return {"fqn": "", "signature": {"inputs": [], "outputs": [], **specs, "forward_arg_names": None}}


def _output_keys(module: Any, count: int) -> list[str]:
    """Names of the outputs, where the program gave a mapping from names to tensors; empty otherwise."""
    own = next(call for call in module["module_call_graph"] if call["fqn"] == "")["signature"]["out_spec"]
    spec = json.loads(own)[1]
    try:
        keys = json.loads(spec["context"])
    except (TypeError, ValueError):
        return []
    is_named = isinstance(keys, list) and len(keys) == count == len(spec["children_spec"])
    is_flat = all(child["type"] is None for child in spec["children_spec"])
    return keys if is_named and is_flat and all(isinstance(key, str) for key in keys) else []


def _spec(kind: str, context: Any, children: list[Any]) -> dict[str, Any]:
    return {"type": f"builtins.{kind}", "context": json.dumps(context), "children_spec": children}


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of every object in the JSON, nested graphs included."""
    pending = [value]
    while pending:
        current = pending.pop()
        if isinstance(current, dict):
            yield from current.items()
            pending.extend(current.values())
        elif isinstance(current, list):
            pending.extend(current)
