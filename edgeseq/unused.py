"""What a captured program computes for nothing, left out.

torch.export keeps what it takes for effects: checks of a tensor's type, which hold of every call, and writes in place into
tensors that nobody reads. A model called for a part of its results would keep all that leads to the others.
"""

import torch
from torch.export import ExportedProgram
from torch.fx import Node

CHECKS = (torch.ops.aten._assert_tensor_metadata.default,)


def drop_unused(program: ExportedProgram) -> None:
    """Erase what no output depends on; inputs stay."""
    graph = program.graph
    for node in reversed(graph.nodes):
        if node.target in CHECKS or (not node.users and _is_without_effect(node)):
            graph.erase_node(node)
    program.graph_module.recompile()


def _is_without_effect(node: Node) -> bool:
    """Whether nobody would notice if a node that nobody reads were not there."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    written = [
        value
        for argument, value in zip(node.target._schema.arguments, node.args, strict=False)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    return all(isinstance(value, Node) and _is_fresh(value, node) for value in written)


def _is_fresh(value: Node, writer: Node) -> bool:
    """Whether a tensor was made for this writer alone: by an operator that gives a new one."""
    is_new = (
        value.op == "call_function" and isinstance(value.target, torch._ops.OpOverload) and not value.target.is_view
    )
    return is_new and list(value.users) == [writer]
