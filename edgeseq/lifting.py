"""Lifting: what a program computes step by step, in nodes that differ in the step alone, computed of all steps at once.

A loop over time is exported as one node per step and operation. Where each takes its step of one tensor, the same
operation of the whole tensor gives all of them, stacked at axis 1.
"""

import operator
import sys
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
    aten.sub.Tensor: (0, 1),
    aten.mul.Tensor: (0, 1),
    aten.div.Tensor: (0, 1),
    aten.neg.default: (0,),
    aten.dropout.default: (0,),
    aten.relu.default: (0,),
    aten.tanh.default: (0,),
    aten.sigmoid.default: (0,),
    aten.gelu.default: (0,),
    aten.silu.default: (0,),
    aten.unsqueeze.default: (0,),
    aten.squeeze.dim: (0,),
}
_WHOLE = (0, 0, sys.maxsize, 1)  # what a slice takes: axis, begin, end, step
_MORE_AXES = {
    aten.embedding.default: 1,
    aten.unsqueeze.default: 1,
    aten.squeeze.dim: -1,
}  # of the result than of the steps


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
    if any(other[:2] != (source, axis) for other in taken):
        return None
    indices = [index % length for _, _, index in taken]
    begin = taken[0][2] % length
    if indices == list(range(begin, length)):
        whole = _time_second(source, axis, graph)
        return (
            whole if begin == 0 or whole is None else new_node(graph, aten.slice.Tensor, whole, 1, begin, sys.maxsize)
        )
    if indices == list(reversed(range(length))) and (whole := _time_second(source, axis, graph)) is not None:
        return new_node(graph, aten.flip.default, whole, [1])
    return None


def _time_second(source: Value, axis: int, graph: Graph) -> Value | None:
    """The tensor (B, T, …), if its steps were taken along one of its first two axes."""
    return source if axis == 1 else new_node(graph, aten.transpose.int, source, 0, 1) if axis == 0 else None


def _taken(step: Any) -> tuple[Value, int, int] | None:
    """The tensor, axis and index of a step that is taken from a tensor."""
    step = _without_whole_slices(step)
    target = getattr(step, "target", None)
    if target == aten.select.int:
        source, axis, index = step.args
    elif target is operator.getitem and step.args[0].target == aten.unbind.int:
        unbound, index = step.args
        source, axis = (*unbound.args, 0)[:2]
    elif target == aten.squeeze.dim and (piece := _piece(step.args[0])) is not None:
        source, axis, index = piece
        if axis % source.meta["val"].dim() != step.args[1] % source.meta["val"].dim():
            return None
    else:
        return None
    return (whole := _without_whole_slices(source)), axis % whole.meta["val"].dim(), index


def _piece(value: Value) -> tuple[Value, int, int] | None:
    """The tensor, axis and index of a part of it that is 1 long: of `x.split(1, axis)` or `x[:, 2:3]`."""
    if value.target is operator.getitem and value.args[0].target == aten.split.Tensor:
        source, size, axis = (*value.args[0].args, 0)[:3]
        return (source, axis, value.args[1]) if size == 1 else None
    if value.target == aten.slice.Tensor and len(value.args) == 4 and value.args[3] == value.args[2] + 1:
        return value.args[0], value.args[1], value.args[2]
    return None


def _without_whole_slices(value: Value) -> Value:
    """What `x[:, 2]` takes its step from, where its first index is exported as a slice of everything."""
    while getattr(value, "target", None) == aten.slice.Tensor:
        given: list[Any] = [*value.args]
        source, _, begin, end, step = given + list(_WHOLE[len(given) - 1 :])
        if begin not in (None, 0) or end not in (None, sys.maxsize) or step != 1:
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
    rank = first.meta["val"].dim() - _MORE_AXES.get(first.target, 0)
    if first.meta["val"].dim() < 2:  # vectors of a step are not told from those of a batch
        return None
    arguments = []
    for position, argument in enumerate(first.args):
        column = [step.args[position] for step in steps]
        if all(other == argument for other in column):
            arguments.append(_shared(argument, rank, graph) if position in positions else argument)
        elif position in positions and all(_rank(step) == rank for step in column):
            arguments.append(lifted(column, graph))
        else:
            return None
    if None in arguments or (
        first.target in (aten.unsqueeze.default, aten.squeeze.dim) and not _moved(first, arguments)
    ):
        return None
    return new_node(graph, first.target, *arguments, like=first, **first.kwargs)


def _rank(value: Any) -> int | None:
    return value.meta["val"].dim() if isinstance(value, Node) else None


def _shared(argument: Any, rank: int, graph: Graph) -> Any:
    """What all steps of this rank share, for all of them at once: numbers and vectors as they are, (B, …) as (B, 1, …)."""
    own = _rank(argument)
    if own is None or own < 2:
        return argument
    return new_node(graph, aten.unsqueeze.default, argument, 1) if own == rank else None


def _moved(first: Value, arguments: list[Any]) -> bool:
    """Count the axis that is put in or taken out from the end, where stacking moves nothing; not possible of the first."""
    axes = max(_rank(first) or 0, _rank(first.args[0]) or 0)
    axis = first.args[1] % axes
    arguments[1] = axis - axes
    return axis > 0


def _joined(steps: Sequence[Value], graph: Graph) -> Value | None:
    """Steps that are joined at their last axis."""
    parts = [step.args[0] for step in steps]
    rank = steps[0].meta["val"].dim()
    axis = (*steps[0].args, 0)[1] % rank
    if axis != rank - 1 or any((*step.args, 0)[1] % rank != axis for step in steps) or len({*map(len, parts)}) > 1:
        return None
    columns = [lifted(column, graph) for column in zip(*parts, strict=True)]
    return None if None in columns else new_node(graph, aten.cat.default, columns, -1, like=steps[0])
