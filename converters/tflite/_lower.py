"""From a prepared program to a graph: constants are folded by torch, everything else by the table of lowerings."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from edgeseq.converters.tflite._coverage import ASSERTIONS, unsupported
from edgeseq.converters.tflite._graph import Graph, Value, constant
from edgeseq.converters.tflite._program import Program, foldable, numpy_dtype
from edgeseq.converters.tflite._site import Site
from edgeseq.converters.tflite._table import BROADCASTING, LOWERINGS
from edgeseq.module_paths import lacking, module_path

_IGNORED = frozenset({"layout", "device", "pin_memory", "memory_format", "non_blocking"})


def check(programs: list[Program]) -> None:
    """Refuse programs with operators that no lowering covers.

    Raises:
        UnsupportedError: With every such operator and the module paths that use it.
    """
    missing = [node for p in programs for node in unsupported(p.nodes, foldable(p.nodes, p.constants))]
    if missing:
        raise lacking("tflite", missing)


def lower(program: Program, siblings: list[Graph]) -> Graph:
    """One signature as a new subgraph."""
    graph = Graph(name=program.signature.name, siblings=siblings)
    siblings.append(graph)
    walk = _Walk(program=program, graph=graph, folded=foldable(program.nodes, program.constants), environment={})
    for node in program.nodes:
        walk.visit(node)
    graph.scope = ""
    graph.outputs = [walk.value(node) for node in program.outputs]
    return graph


@dataclass(kw_only=True)
class _Walk:
    program: Program
    graph: Graph
    folded: frozenset[Node]
    environment: dict[Node, Any]  # Value, list of them, torch.Tensor (a constant), or a size

    def visit(self, node: Node) -> None:
        if node.op == "placeholder":
            self.environment[node] = self.placeholder(node)
        elif str(node.target) in ASSERTIONS:
            return
        elif node in self.folded:
            self.environment[node] = self.fold(node)
        elif node.target is operator.getitem:
            self.environment[node] = self.environment[node.args[0]][node.args[1]]  # type: ignore[index]  # args are (node, index)
        elif isinstance(node.meta["val"], torch.Tensor | tuple | list):
            self.environment[node] = self.emit(node)
        else:
            self.environment[node] = self.program.size(node.meta["val"])

    def placeholder(self, node: Node) -> Any:
        if node.name in self.program.constants:
            return self.program.constants[node.name][1]
        spec = self.program.signature.inputs[self.program.inputs.index(node.name)]
        tensor = node.meta["val"]
        value = self.graph.input(spec.name, self.program.shape(tensor), numpy_dtype(tensor.dtype))
        for axis, size in enumerate(value.shape):
            if not isinstance(size, int):
                self.graph.symbols.setdefault(size, (value, axis))
        return value

    def fold(self, node: Node) -> Any:
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), self.environment.__getitem__)
        with torch.no_grad():
            return node.target(*args, **kwargs)  # type: ignore[operator]  # call_function targets are callables

    def emit(self, node: Node) -> Any:
        lowering: Callable[..., Any] = LOWERINGS[str(node.target)]
        self.graph.scope = module_path(node)
        results = node.meta["val"] if isinstance(node.meta["val"], tuple | list) else (node.meta["val"],)
        site = Site(
            graph=self.graph,
            shapes=tuple(self.program.shape(result) for result in results),
            dtypes=tuple(numpy_dtype(result.dtype) for result in results),
            is_broadcast_later=all(str(user.target) in BROADCASTING for user in node.users),
            is_used=tuple(_is_used(node, index) for index in range(len(results))),
        )
        return lowering(site, *self.arguments(node))

    def arguments(self, node: Node) -> list[Any]:
        """Every argument of the operator's schema in order, with its default where the node gives none."""
        arguments = []
        for index, parameter in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]  # it is an OpOverload
            if parameter.name in _IGNORED:
                continue
            given = (
                node.args[index] if index < len(node.args) else node.kwargs.get(parameter.name, parameter.default_value)
            )
            arguments.append(self.argument(given))
        return arguments

    def argument(self, given: Any) -> Any:
        if isinstance(given, list | tuple):
            return [self.argument(item) for item in given]
        if not isinstance(given, Node):
            return given
        known = self.environment[given]
        return self.value(given) if isinstance(known, torch.Tensor) else known

    def value(self, node: Node) -> Value:
        """A node's tensor in the graph."""
        known = self.environment[node]
        if isinstance(known, torch.Tensor):
            path = self.program.constants[node.name][0] if node.name in self.program.constants else module_path(node)
            known = self.environment[node] = constant(known.numpy(), name=path or "constant")
        assert isinstance(known, Value), node
        return known


def _is_used(node: Node, index: int) -> bool:
    if not isinstance(node.meta["val"], tuple | list):
        return True
    return any(user.target is not operator.getitem or (user.args[1] == index and user.users) for user in node.users)
