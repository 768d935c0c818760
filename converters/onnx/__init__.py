"""ONNX: torch's exporter for the graph, our own lowerings for our operators and for attention, and onnxscript's folding."""

import logging
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, RemoveUnusedNodesPass
from onnxscript import optimizer
from onnxscript.rewriter import RewriteRuleSet
from torch.export import ExportedProgram
from torch.fx import Node
from torch.onnx._internal.exporter._registration import ONNXRegistry

from edgeseq import lookup, onnx_file, operators
from edgeseq.capture import CapturedModel
from edgeseq.converters import Converter, NoOptions
from edgeseq.converters.onnx import _recurrence, attention, dimensions, metadata, products, rotary, tables
from edgeseq.errors import UnsupportedError
from edgeseq.module_paths import lacking
from edgeseq.signature import Signature

OPSET = 20  # the first with Gelu as one operator; torch writes it with IR 10, which onnxruntime reads from 1.18 on
OPSET_OF_ATTENTION = 23  # the first with Attention as one operator; onnxruntime runs it from 1.23 on
SDPA = torch.ops.aten.scaled_dot_product_attention.default
FUSIONS = RewriteRuleSet([*attention.RULES, *products.RULES])
UNLIMITED = 2**31  # bytes of a constant that is folded: reordered weights are as large as the weights


class OnnxConverter(Converter):
    suffix = ".onnx"

    def convert(self, model: CapturedModel, target: Path, options: NoOptions) -> None:
        """Write the program as a file; its graph, at any batch and length, serves every signature that is a case of it.

        Weights above 2 GB lie in a file beside it. Several programs become a folder of files that share their weights.
        """
        del options
        graphs = {name: lowered(program, model.signature_of(name)) for name, program in model.programs.items()}
        if len(graphs) == 1:
            onnx_file.save(next(iter(graphs.values())), target)
        else:
            onnx_file.save_programs(graphs, target)


def lowered(program: ExportedProgram, signature: Signature) -> ir.Model:
    """One program as a graph, in the form that onnxruntime computes fastest."""
    graph = export(program, signature)
    _recurrence.drop_zero_states(graph)
    attention.drop_caches(graph)
    optimizer.optimize_ir(
        graph, input_size_limit=UNLIMITED, output_size_limit=UNLIMITED, should_fold=tables.should_fold
    )
    fuse(graph)
    metadata.keep_module_paths(graph)
    dimensions.name_dimensions(graph, signature)
    return graph


def fuse(graph: ir.Model) -> None:
    """Rewrite what onnxruntime computes faster as other operators of the standard."""
    FUSIONS.apply_to_model(graph)
    attention.give_masks_every_query(graph)
    rotary.give_angles_every_row(graph)
    CommonSubexpressionEliminationPass()(graph)
    RemoveUnusedNodesPass()(graph)


def has_whole_attention(program: ExportedProgram) -> bool:
    """Whether the program attends, and each time in a way that the standard's operator can say."""
    calls = [node for node in program.graph.nodes if node.target == SDPA]
    return bool(calls) and all(attention.fits(node) for node in calls)


def export(program: ExportedProgram, signature: Signature) -> ir.Model:
    """A captured program as an ONNX graph.

    Raises:
        UnsupportedError: torch's exporter lacks an operator.
    """
    whole_attention = has_whole_attention(program)
    lowerings = {**own_operators(), **({SDPA: attention.lower_attention} if whole_attention else {})}
    for logger in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    try:
        # Without no_grad, a mask with learned biases (T5) has torch choose another attention kernel than at the capture, whose
        # output lies in memory in another way than the program relies on.
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.onnx.export(
                program,
                dynamo=True,
                custom_translation_table=lowerings,
                input_names=[spec.name for spec in signature.inputs],
                output_names=[spec.name for spec in signature.outputs],
                opset_version=OPSET_OF_ATTENTION if whole_attention else OPSET,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        missing = untranslated(program)
        if missing:
            raise lacking("onnx", missing) from error
        raise UnsupportedError(f"format 'onnx' cannot express the model: {reason(error)}") from error
    assert exported is not None
    return exported.model


def own_operators() -> Mapping[Any, Callable[..., Any]]:
    """Our operators, each with its file's function in onnxscript."""
    package = sys.modules[__name__]
    names = lookup.names(package, "LOWERING")
    operators.load_all()
    return {getattr(torch.ops.edgeseq, name).default: lookup.get(package, name, "LOWERING") for name in names}


def untranslated(program: ExportedProgram) -> list[Node]:
    """The nodes that torch's exporter neither translates nor takes apart."""
    ours = own_operators()
    known = ONNXRegistry.from_torchlib(opset_version=OPSET)
    table = torch.export.default_decompositions()

    def is_known(node: Node) -> bool:
        target = node.target
        return not isinstance(target, torch._ops.OpOverload) or known.is_registered(target) or target in table

    plain = program.run_decompositions({})  # without what torch takes apart by itself
    calls = (node for node in plain.graph.nodes if node.op == "call_function" and "_assert" not in str(node.target))
    return [node for node in calls if not is_known(node) and node.target not in ours]


def reason(error: Exception) -> str:
    """The innermost cause's first line, which names the operator."""
    while error.__cause__ is not None:
        error = error.__cause__  # type: ignore[assignment]  # exporters chain exceptions only
    return str(error).strip().splitlines()[0]


CONVERTER = OnnxConverter()
