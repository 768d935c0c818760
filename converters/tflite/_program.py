"""A torch.export program made ready for lowering: few operators, batch 1, int32, constants named by module path."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy
import torch
from torch.export import ExportedProgram
from torch.fx import Node

from edgeseq.converters.tflite._coverage import unsupported
from edgeseq.converters.tflite._graph import Shape, Size
from edgeseq.module_paths import stripped
from edgeseq.signature import Signature

# Composite operators that have lowerings of their own; torch.export's decompositions would take them apart.
_KEPT_WHOLE = frozenset({"linear", "matmul", "layer_norm", "scaled_dot_product_attention", "log_softmax", "softmax"})
_DTYPES = {torch.float32: np.float32, torch.float16: np.float32, torch.float64: np.float32, torch.bool: np.bool_}


@dataclass(frozen=True, kw_only=True)
class Program:
    """One signature's program."""

    signature: Signature
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]  # names of the placeholder nodes, in the signature's order
    outputs: tuple[Any, ...]  # nodes, in the signature's order
    constants: Mapping[str, tuple[str, torch.Tensor]]  # placeholder name -> path and value
    sizes: Mapping[sympy.Expr, sympy.Integer]  # dimensions that are fixed here: the batch, to 1, and those of a case
    hints: Mapping[sympy.Expr, sympy.Integer]  # sizes of the dynamic dimensions until they are resized

    def size(self, size: Any) -> Size:
        """A torch size as an integer or an expression of the dynamic dimensions."""
        if isinstance(size, int):
            return size
        expression = (size.node.expr if isinstance(size, torch.SymInt) else sympy.sympify(size)).xreplace(self.sizes)
        return int(expression) if expression.is_Integer else expression

    def shape(self, value: torch.Tensor) -> Shape:
        """A tensor's shape."""
        return tuple(self.size(size) for size in value.shape)


def prepare(program: ExportedProgram, signature: Signature) -> Program:
    """Decompose, and find inputs, constants and dimensions."""
    if unsupported(program.graph.nodes, foldable(program.graph.nodes, _stored(program))):
        program = _decompose(program)
    names = program.graph_signature
    stored = _stored(program)
    everything = {**program.state_dict, **program.constants}
    nodes = tuple(program.graph.nodes)
    values = {node.name: node.meta["val"] for node in nodes if "val" in node.meta}
    inputs = tuple(names.user_inputs)
    outputs = tuple(nodes[-1].args[0])
    first = len(names.output_specs) - len(names.user_outputs)
    batch = batch_dimensions(signature)
    sizes: dict[sympy.Expr, sympy.Integer] = {}
    hints: dict[sympy.Expr, sympy.Integer] = {}
    bounds = {dim.name: dim for dim in signature.dims}
    for spec, name in zip(signature.inputs, inputs, strict=True):
        for dim, size in zip(spec.shape, values[name].shape, strict=True):
            if isinstance(dim, str) and dim in bounds and isinstance(size, torch.SymInt):
                target = sizes if dim in batch else hints
                target[size.node.expr] = sympy.Integer(1 if dim in batch else max(bounds[dim].min, 1))
            elif isinstance(dim, int) and isinstance(size, torch.SymInt):  # the signature is a case of the program
                sizes[size.node.expr] = sympy.Integer(dim)
    return Program(
        signature=signature,
        nodes=nodes[:-1],
        inputs=inputs,
        outputs=tuple(node for node in outputs[first:] if isinstance(node, Node))[: len(signature.outputs)],
        constants={name: (stripped(path), everything[path].detach()) for name, path in stored.items()},
        sizes=sizes,
        hints=hints,
    )


def _stored(program: ExportedProgram) -> dict[str, str]:
    """Placeholders of parameters, buffers and constants -> their paths."""
    names = program.graph_signature
    return {**names.inputs_to_parameters, **names.inputs_to_buffers, **names.inputs_to_lifted_tensor_constants}


def _decompose(program: ExportedProgram) -> ExportedProgram:
    """Fewer kinds of operators, without writes in place. Takes seconds, hence only where it is needed."""
    table = torch.export.default_decompositions()
    for operator in list(table):
        if str(operator).split(".")[1] in _KEPT_WHOLE:
            del table[operator]
    decomposed: ExportedProgram = program.run_decompositions(table)
    return decomposed


def foldable(nodes: Iterable[Node], constants: Container[str]) -> frozenset[Node]:
    """Nodes that depend on no input and on no dynamic size."""
    folded: set[Node] = set()
    for node in nodes:
        is_constant = node.op == "placeholder" and node.name in constants
        if is_constant or (node.op == "call_function" and all(arg in folded for arg in node.all_input_nodes)):
            folded.add(node)
    return frozenset(folded)


def batch_dimensions(signature: Signature) -> frozenset[str]:
    """Dimensions that are the first axis, and no other, of every input that has them; states may have them anywhere."""
    inputs = [spec.shape for spec in signature.inputs if spec.name not in signature.state_inputs]
    first = {shape[0] for shape in inputs if shape and isinstance(shape[0], str)}
    inner = {size for shape in inputs for size in shape[1:]}
    return frozenset(str(name) for name in first - inner)


def numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    """The dtype in the file: integers are 32 bits wide."""
    return np.dtype(_DTYPES.get(dtype, np.int32))
