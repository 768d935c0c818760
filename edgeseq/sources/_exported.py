"""An exported program as a module that is captured anew: with int32 inputs, whole recurrent layers and named dimensions."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import sympy
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from edgeseq import program_file
from edgeseq.capture import Call, DynamicShapes
from edgeseq.errors import RequestError
from edgeseq.signature import Dim
from edgeseq.sources import Loaded, _drawing, _usage
from edgeseq.sources._recurrent import whole_gru, whole_lstm, whole_rnn_relu, whole_rnn_tanh
from edgeseq.sources._usage import Draw, Sizes, Usage

MAX_DIM = 512  # the least bound of a dimension that the program leaves open
EXAMPLE = {"batch": 2}  # of each other dimension a dozen
WHOLE: Mapping[Any, Callable[..., Any]] = {
    torch.ops.aten.lstm.input: whole_lstm,
    torch.ops.aten.gru.input: whole_gru,
    torch.ops.aten.rnn_tanh.input: whole_rnn_tanh,
    torch.ops.aten.rnn_relu.input: whole_rnn_relu,
}


def load(path: Path) -> Loaded:
    """The program, captured."""
    program = program_file.read(path)
    nodes = {node.name: node for node in program.graph.nodes}
    inputs = {name: nodes[name] for name in program.graph_signature.user_inputs}
    shapes = dynamic_shapes(program, inputs)
    draw = drawing(inputs, shapes)
    example = {dim.name: min(max(EXAMPLE.get(dim.name, 12), dim.min), dim.max) for dim in _drawing.dims_of(shapes)}
    usage = Usage(
        module=module_of(program),
        call=Call(examples=draw(example, np.random.default_rng(0)), dynamic_shapes=shapes),
        draw=draw,
        unseen=_drawing.unseen_sizes(shapes),
        bench={**example, **_drawing.single(shapes)},
    )
    return _usage.load([usage], values="random values in the range that the program takes")


def module_of(program: ExportedProgram) -> nn.Module:
    """The program as a module, its recurrent layers as one operator each: torch's own specialise the length."""
    module = program.module(check_guards=False)
    for node in module.graph.nodes:
        node.target = WHOLE.get(node.target, node.target)
    return GraphModule(module, module.graph)  # without torch's refusal of eval() and its checks of the inputs


def dynamic_shapes(program: ExportedProgram, inputs: Mapping[str, Node]) -> DynamicShapes:
    """The dimensions that the program left open, named by where they first stand."""
    dims: dict[Any, Dim] = {}
    shapes: dict[str, dict[int, Dim]] = {}
    for name, node in inputs.items():
        sizes = enumerate(node.meta["val"].shape)
        open_axes = {axis: size.node.expr for axis, size in sizes if isinstance(size, torch.SymInt)}
        for axis, symbol in open_axes.items():
            if not isinstance(symbol, sympy.Symbol):
                raise RequestError(
                    f"axis {axis} of input '{name}' has the size '{symbol}', which follows from others; export the "
                    "model with each dynamic axis a dimension of its own"
                )
            if symbol not in dims:
                batch_is_free = all(dim.name != "batch" for dim in dims.values())
                called = "batch" if axis == 0 and batch_is_free else f"{name}_axis_{axis}"
                dims[symbol] = _dim(called, program.range_constraints.get(symbol))
        shapes[name] = {axis: dims[symbol] for axis, symbol in open_axes.items()}
    return shapes


def _dim(name: str, bounds: Any) -> Dim:
    low = max(int(bounds.lower), 1) if bounds is not None else 1
    is_bounded = bounds is not None and isinstance(bounds.upper, sympy.Integer)  # else it is infinite
    return Dim(name=name, min=low, max=int(bounds.upper) if is_bounded else max(MAX_DIM, 2 * low))


def drawing(inputs: Mapping[str, Node], shapes: DynamicShapes) -> Draw:
    """Draws floats from a normal distribution and integers that the tables they are looked up in have."""

    def draw(sizes: Sizes, rng: np.random.Generator) -> dict[str, Tensor]:
        return {
            name: _random(node, _drawing.shape_at(node.meta["val"], shapes.get(name, {}), sizes), rng)
            for name, node in inputs.items()
        }

    return draw


def _random(node: Node, shape: list[int], rng: np.random.Generator) -> Tensor:
    value: Tensor = node.meta["val"]
    if value.is_floating_point():
        return torch.from_numpy(rng.standard_normal(shape)).to(value.dtype)
    rows = table_rows(node)
    if rows is not None and value.dtype != torch.bool:
        return torch.from_numpy(rng.integers(0, rows, shape)).to(value.dtype)
    switches = rng.integers(0, 2, shape)
    if len(shape) < 2:  # lengths, for which 0 would be none
        switches = np.ones(shape, np.int64)
    elif math.prod(shape):
        switches[..., 0] = 1  # a mask that hides a whole row leaves nothing to compare
    return torch.from_numpy(switches).to(value.dtype)


def table_rows(node: Node) -> int | None:
    """Rows of the smallest table that integers of this node are looked up in; None: they are looked up in none."""
    found: list[int] = []
    pending, seen = [node], {node}
    while pending:
        current = pending.pop()
        for user in current.users:
            value = user.meta.get("val")
            if user.target is torch.ops.aten.embedding.default and user.args[1] is current:
                found.append(int(user.args[0].meta["val"].shape[0]))  # type: ignore[union-attr]  # the table is a node
            elif user not in seen and isinstance(value, Tensor) and value.dtype in (torch.int64, torch.int32):
                seen.add(user)
                pending.append(user)
    return min(found, default=None)
