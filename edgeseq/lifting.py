"""Lifting: what a program computes step by step, in nodes that differ in the step alone, computed of all steps at once.

A loop over time is exported as one node per step and operation. Where each takes its step of one tensor, the same
operation of the whole tensor gives all of them, stacked at axis 1.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

aten = torch.ops.aten
Value = Any  # a node or a constant: torch types what a node holds as anything at all

# Operations that act on every step alike when steps are stacked at axis 1, and which of their arguments are steps.
_ON_STEPS: dict[Any, tuple[int, ...]] = {
    aten.linear.default: (0,),
    aten.embedding.default: (1,),
    aten.layer_norm.default: (0,),
    aten.add.Tensor: (0, 1),
    aten.mul.Tensor: (0, 1),
    aten.dropout.default: (0,),
    aten.relu.default: (0,),
    aten.tanh.default: (0,),
    aten.sigmoid.default: (0,),
    aten.gelu.default: (0,),
    aten.silu.default: (0,),
}


def lifted(steps: Sequence[Value], graph: Graph) -> Value | None:
    """A node of (B, T, …) that holds the T nodes `steps` (B, …) at axis 1, or None if they are not steps of one tensor.

    New nodes are put where the graph's insertion point is; all of `steps` need not be before it, only what they take
    their steps from.
    """
    sequence = _sequence(steps, graph)
    return sequence if sequence is not None else _same_operation(steps, graph)


def new_node(
    graph: Graph, target: Callable[..., Any], *arguments: Any, like: Value | None = None, **keywords: Any
) -> Value:
    """A call with the example value that torch.export would have given it, and the origin of `like`."""
    node = graph.call_function(target, arguments, keywords)
    values = map_arg((arguments, keywords), lambda argument: argument.meta["val"])
    node.meta["val"] = target(*values[0], **values[1])
    if like is not None:
        node.meta |= {key: like.meta[key] for key in ("nn_module_stack", "stack_trace") if key in like.meta}
    return node


def _sequence(steps: Sequence[Value], graph: Graph) -> Value | None:
    """The tensor whose steps, from first to last or from last to first, these are."""
    taken = [found for step in steps if (found := _taken(step)) is not None]
    if len(taken) < len(steps):
        return None
    source, axis, _ = taken[0]
    length = source.meta["val"].shape[axis]
    if any(other[:2] != (source, axis) for other in taken) or length != len(steps):
        return None
    indices = [index % len(steps) for _, _, index in taken]
    if indices not in (list(range(len(steps))), list(reversed(range(len(steps))))):
        return None
    sequence = source if axis == 1 else new_node(graph, aten.transpose.int, source, 0, 1) if axis == 0 else None
    if sequence is None or (len(steps) > 1 and indices[0] == 0):
        return sequence
    return new_node(graph, aten.flip.default, sequence, [1])


def _taken(step: Any) -> tuple[Value, int, int] | None:
    """The tensor, axis and index of a step that is taken from a tensor."""
    step = _without_whole_slices(step)
    target = getattr(step, "target", None)
    if target == aten.select.int:
        source, axis, index = step.args
    elif target is operator.getitem and step.args[0].target == aten.unbind.int:
        unbound, index = step.args
        source, axis = (*unbound.args, 0)[:2]
    else:
        return None
    return (whole := _without_whole_slices(source)), axis % whole.meta["val"].dim(), index


def _without_whole_slices(value: Value) -> Value:
    """What `x[:, 2]` takes its step from, where its first index is exported as a slice of everything."""
    while isinstance(value, Node) and value.target == aten.slice.Tensor:
        source: Value = value.args[0]
        if source.meta["val"].shape != value.meta["val"].shape:
            break
        value = source
    return value


def _same_operation(steps: Sequence[Value], graph: Graph) -> Value | None:
    """One operation of all steps, if each step is the same operation of what can be lifted."""
    first = steps[0]
    if not all(isinstance(s, Node) and s.target == first.target and s.kwargs == first.kwargs for s in steps):
        return None
    if first.target == aten.cat.default:
        return _joined(steps, graph)
    positions = _ON_STEPS.get(first.target)
    if positions is None or len({len(step.args) for step in steps}) > 1:
        return None
    arguments = []
    for position, argument in enumerate(first.args):
        column = [step.args[position] for step in steps]
        if all(other == argument for other in column) and _acts_alike(argument, position, positions):
            arguments.append(argument)
        elif position in positions and (whole := lifted(column, graph)) is not None:
            arguments.append(whole)
        else:
            return None
    if first.target in (aten.add.Tensor, aten.mul.Tensor) and not _same_rank(first.args):
        return None
    return new_node(graph, first.target, *arguments, like=first, **first.kwargs)


def _acts_alike(argument: Any, position: int, positions: tuple[int, ...]) -> bool:
    """Whether an argument that all steps share means the same for the stacked steps: a weight, a number, a vector."""
    return position not in positions or not isinstance(argument, Node) or argument.meta["val"].dim() <= 1


def _same_rank(arguments: Sequence[Value]) -> bool:
    """Whether the tensors of a binary operation, vectors and numbers aside, have one rank: broadcasting needs care else."""
    ranks = {a.meta["val"].dim() for a in arguments if isinstance(a, Node) and a.meta["val"].dim() > 1}
    return len(ranks) == 1


def _joined(steps: Sequence[Value], graph: Graph) -> Value | None:
    """Steps that are joined at their last axis."""
    parts = [step.args[0] for step in steps]
    rank = steps[0].meta["val"].dim()
    axis = (*steps[0].args, 0)[1] % rank
    if axis != rank - 1 or any((*step.args, 0)[1] % rank != axis for step in steps) or len({*map(len, parts)}) > 1:
        return None
    columns = [lifted(column, graph) for column in zip(*parts, strict=True)]
    return None if None in columns else new_node(graph, aten.cat.default, columns, -1, like=steps[0])
