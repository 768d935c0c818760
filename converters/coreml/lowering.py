"""One captured program becomes one Core ML model, through coremltools' torch.export front end."""

import operator
import re
from collections.abc import Iterable
from typing import Any

import coremltools as ct
import torch
from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY as REGISTRY
from coremltools.converters.mil.frontend.torch.utils import sanitize_op_kind
from torch.export import ExportedProgram
from torch.fx import Node

from edgeseq.converters.coreml.lstm import USES_CELL
from edgeseq.converters.coreml.operators import registered
from edgeseq.errors import ConversionError, UnsupportedError
from edgeseq.module_paths import has_size_of_values, lacking
from edgeseq.quiet_coremltools import quietly
from edgeseq.signature import Signature

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# It puts writes to states right behind what they write, and fails where they are already there (coremltools 9.0).
FAILING_PASS = "common::canonicalize_inplace_pattern"


@registered()
def lower(program: ExportedProgram, signature: Signature, target: ct.target) -> ct.models.MLModel:
    """The program in float32, with the signature's names.

    Raises:
        UnsupportedError: Core ML lacks operators of the program; all are listed.
        ConversionError: coremltools fails on an operator that it knows.
    """
    sized_by_values = [node for node in _calls(program) if has_size_of_values(node)]
    if sized_by_values:
        raise lacking("coreml", sized_by_values)
    with quietly():
        program = decomposed(program)
    unsupported = untranslated(program)
    if unsupported:
        raise lacking("coreml", unsupported)
    _check_outputs(program, signature)
    _mark_used_cells(program)
    try:
        with quietly():
            return ct.convert(
                program,
                inputs=[ct.TensorType(name=spec.name) for spec in signature.inputs],
                outputs=[ct.TensorType(name=spec.name) for spec in signature.outputs],
                minimum_deployment_target=target,
                pass_pipeline=_passes(),
                compute_precision=ct.precision.FLOAT32,
                skip_model_load=True,
            )
    except Exception as error:  # coremltools raises whatever its translations happen to run into
        raise ConversionError(f"coremltools {ct.__version__} fails on signature '{signature.name}': {error}") from error


def _passes() -> ct.PassPipeline:
    pipeline = ct.PassPipeline.DEFAULT
    pipeline.remove_passes({FAILING_PASS})
    return pipeline


def decomposed(program: ExportedProgram) -> ExportedProgram:
    """The program in inference operators, with torch's own decompositions of those that have no translation."""
    program = program.run_decompositions({})
    missing = {node.target for node in untranslated(program)}
    if not missing:
        return program
    rules: Any = torch.export.default_decompositions()
    table = {target: rule for target, rule in dict(rules).items() if target in missing}
    further: ExportedProgram = program.run_decompositions(table)
    return further


def untranslated(program: ExportedProgram) -> list[Node]:
    """The nodes that coremltools cannot translate with what is registered at the moment."""
    return [node for node in _calls(program) if REGISTRY.get_func(_kind(node)) is None]


def check_names(signature: Signature) -> None:
    """Refuse names that coremltools would change without a word; apps would look for them in vain.

    Raises:
        UnsupportedError: With one such name.
    """
    for spec in (*signature.inputs, *signature.outputs):
        if not NAME.fullmatch(spec.name):
            raise UnsupportedError(
                f"format 'coreml' has names of ASCII letters, digits and '_', but one is '{spec.name}'; rename it in the "
                "model's forward"
            )


def _check_outputs(program: ExportedProgram, signature: Signature) -> None:
    """A value of a Core ML function has one name."""
    taken = dict(zip(program.graph_signature.user_inputs, (spec.name for spec in signature.inputs), strict=True))
    for name, spec in zip(program.graph_signature.user_outputs, signature.outputs, strict=True):
        if name in taken:
            raise UnsupportedError(
                f"format 'coreml' cannot give one tensor two names, but output '{spec.name}' is '{taken[name]}'; "
                "drop one of them from what the model takes or returns"
            )
        taken[name] = spec.name


def _mark_used_cells(program: ExportedProgram) -> None:
    """Final cell states of padded rows cost an input feature, so the lowering must know whether anything reads them."""
    for node in _calls(program):
        if node.target is torch.ops.edgeseq.lstm.default:
            node.meta[USES_CELL] = any(user.target is operator.getitem and user.args[1] == 2 for user in node.users)


def _kind(node: Node) -> str:
    """The name under which coremltools looks an operator up."""
    target: Any = node.target
    is_aten = isinstance(node.target, torch._ops.OpOverload)
    return str(sanitize_op_kind(target.name() if is_aten else target.__name__))


def _calls(program: ExportedProgram) -> Iterable[Node]:
    return (node for node in program.graph.nodes if node.op == "call_function")
