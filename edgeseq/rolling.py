"""Rolling: loops around `nn.LSTMCell`, `nn.GRUCell` and `nn.RNNCell` become whole layers again.

torch.export unrolls a Python loop. A chain of cells of the same weights, each taking the states of the one before, is a
layer, if no input depends on the chain itself (as it does where a decoder feeds back what it said) and no cell state but
the last is used elsewhere. What reads its outputs step by step and stacks the results is lifted to all steps.
"""

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import Graph, Node

from edgeseq.lifting import Value, aten, lifted, new_node


@dataclass(frozen=True)
class _Layer:
    """The operator that a chain of cells becomes: its name, its gates, and what it takes after its weights."""

    operator: str
    gates: int
    options: tuple[Any, ...] = (1, False)  # layers, bidirectional


_LAYERS = {
    aten.lstm_cell.default: _Layer("lstm", 4),
    aten.gru_cell.default: _Layer("gru", 3),
    aten.rnn_tanh_cell.default: _Layer("rnn", 1, (1, False, "tanh")),
    aten.rnn_relu_cell.default: _Layer("rnn", 1, (1, False, "relu")),
}


def roll(program: ExportedProgram) -> ExportedProgram:
    """The program with every chain of at least two cells as one operator; it may be changed in place."""
    if not _chains(program.graph):
        return program
    if any(
        _writes(node) for node in program.graph.nodes
    ):  # what is read after a write would seem to be independent of it
        program = program.run_decompositions({})
    graph = program.graph
    rolled = [layer for chain in _chains(graph) if (layer := _roll(program, chain)) is not None]
    if not rolled:
        return program
    for node in list(graph.nodes):
        if node.target in (aten.stack.default, aten.cat.default, aten.select_scatter.default):
            _lift(program, node)
    for outputs, state in rolled:
        _read_last_steps_of_the_state(program, outputs, state)
    graph.eliminate_dead_code(lambda node: node.is_impure() and node.target != aten.dropout.default)  # not in training
    graph.lint()
    program.graph_module.recompile()
    return program


def _writes(node: Value) -> bool:
    """Whether a node changes a tensor in place."""
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def _chains(graph: Graph) -> list[list[Value]]:
    """Cells that follow each other: each takes all its states from the one before, and has its weights."""
    chains: list[list[Value]] = []
    for node in graph.nodes:
        if node.target not in _LAYERS:
            continue
        for chain in chains:
            last = chain[-1]
            if (last.target, last.args[2:]) == (node.target, node.args[2:]) and _states(node) == _results(last):
                chain.append(node)
                break
        else:
            chains.append([node])
    return [chain for chain in chains if len(chain) > 1]


def _states(cell: Value) -> list[Any]:
    return list(cell.args[1]) if cell.target == aten.lstm_cell.default else [cell.args[1]]


def _results(cell: Value) -> list[Any]:
    """The new states of a cell, None for one that nothing reads."""
    if cell.target != aten.lstm_cell.default:
        return [cell]
    by_index = {user.args[1]: user for user in cell.users}
    return [by_index.get(index) for index in range(2)]


def _roll(program: ExportedProgram, chain: list[Value]) -> tuple[Value, Value] | None:
    """Put one operator in a chain's place, if that is the same: its outputs and last hidden state."""
    graph, first, inputs = program.graph, chain[0], [cell.args[0] for cell in chain]
    if _descendants(first) & set(inputs) or any(_cell_state_is_read(cell) for cell in chain[:-1]):
        return None
    _hoist(graph, inputs, first)
    with graph.inserting_before(first):
        x = lifted(inputs, graph) or new_node(graph, aten.stack.default, inputs, 1)
        y, *final = _layer(graph, first, x)
        last = _results(chain[-1])
        for index, cell in enumerate(chain):
            h = _results(cell)[0]
            if h is not None:
                step = index if index < len(chain) - 1 else -1  # so that the last step is the last at any length
                _replace(program, h, new_node(graph, aten.select.int, y, 1, step, like=first))
        for old, state in list(zip(last, final, strict=True))[1:]:
            if old is not None:
                _replace(program, old, new_node(graph, aten.squeeze.dim, state, 0, like=first))
    return y, final[0]


def _read_last_steps_of_the_state(program: ExportedProgram, outputs: Value, state: Value) -> None:
    """Where the last step alone is read, no outputs need be kept; what was lifted reads them whole by now."""
    for node in list(outputs.users):
        if node.target == aten.select.int and node.args[1:] == (1, -1):
            with program.graph.inserting_before(node):
                _replace(program, node, new_node(program.graph, aten.squeeze.dim, state, 0, like=node))


def _replace(program: ExportedProgram, old: Value, new: Value) -> None:
    """Let a program's nodes and its outputs read a new node."""
    old.replace_all_uses_with(new)
    program.graph_signature.replace_all_uses(old.name, new.name)


def _layer(graph: Graph, first: Value, x: Value) -> list[Value]:
    """The outputs (B, T, H) and final states (1, B, H) of a layer with the first cell's weights and states."""
    layer = _LAYERS[first.target]
    w_ih, w_hh, *biases = first.args[2:]
    zeros = [new_node(graph, aten.new_zeros.default, w_ih, [w_ih.meta["val"].shape[0]]) for _ in range(2)]
    weights = [w_ih, w_hh, *(bias or zero for bias, zero in zip((*biases, None, None), zeros, strict=False))]
    states = [new_node(graph, aten.unsqueeze.default, state, 0) for state in _states(first)]
    whole = new_node(graph, _operator(layer), x, *states, None, weights, *layer.options, like=first)
    return [new_node(graph, operator.getitem, whole, index) for index in range(1 + len(states))]


def _operator(layer: _Layer) -> Any:
    return getattr(torch.ops.edgeseq, layer.operator).default


def _cell_state_is_read(cell: Value) -> bool:
    """Whether an LSTM's cell state between two steps goes elsewhere too: a layer gives only the last one."""
    return any(state is not None and len(state.users) > 1 for state in _results(cell)[1:])


def _descendants(node: Value) -> set[Value]:
    found, waiting = set(), list(node.users)
    while waiting:
        user = waiting.pop()
        if user not in found:
            found.add(user)
            waiting += user.users
    return found


def _hoist(graph: Graph, nodes: Iterable[Any], before: Value) -> None:
    """Move what `nodes` are computed from, and them, in front of a node they do not depend on."""
    needed, waiting = set(), [node for node in nodes if isinstance(node, Node)]
    while waiting:
        node = waiting.pop()
        if node.op != "placeholder" and node not in needed:
            needed.add(node)
            waiting += node.all_input_nodes
    order = {node: index for index, node in enumerate(graph.nodes)}
    for node in sorted((n for n in needed if order[n] > order[before]), key=order.__getitem__):
        before.prepend(node)


def _lift(program: ExportedProgram, joined: Value) -> None:
    """Replace steps that are stacked, or given an axis each and joined there, by what all steps give at once."""
    steps, axis = _stacked(joined)
    if axis > 1 or not (steps and _comes_of_a_layer(steps[0])):
        return
    graph = program.graph
    with graph.inserting_before(joined):
        whole = lifted(steps, graph)
        if whole is None:
            return
        result = whole if axis == 1 else new_node(graph, aten.transpose.int, whole, 0, 1, like=joined)
        if result.meta["val"].dim() > joined.meta["val"].dim():  # each step was one number of a row already
            result = new_node(graph, aten.squeeze.dim, result, -1, like=joined)
    _replace(program, joined, result)


def _stacked(node: Value) -> tuple[Sequence[Any], int]:
    """The steps that a node stacks, and the axis, counted from the front; none if it does not stack."""
    if node.target == aten.select_scatter.default:
        return _written(node), node.args[2] % node.meta["val"].dim()
    parts, axis = (*node.args, 0)[:2]
    axis %= node.meta["val"].dim()
    if node.target == aten.stack.default:
        return parts, axis
    if all(part.target == aten.unsqueeze.default and part.args[1] % (axis + 1) == axis for part in parts):
        return [part.args[0] for part in parts], axis
    is_column = axis == 1 and all(part.meta["val"].dim() == 2 and part.meta["val"].shape[1] == 1 for part in parts)
    return (parts if is_column else []), axis


def _written(node: Value) -> list[Any]:
    """The steps that were written into a tensor one after another until nothing else was left of it; else none."""
    axis: int = node.args[2]
    steps: dict[int, Value] = {}
    size = node.meta["val"].shape[axis]
    if any(user.target == node.target and user.args[0] is node for user in node.users):
        return []
    while getattr(node, "target", None) == aten.select_scatter.default and node.args[2] == axis:
        target, step, _, index = node.args
        is_copy = step.target == aten.copy.default and step.meta["val"].dtype == step.args[1].meta["val"].dtype
        source = step.args[1] if is_copy and step.args[1].meta["val"].shape == step.meta["val"].shape else step
        steps.setdefault(index % size, source)
        node = target
    return [steps[index] for index in range(size)] if len(steps) == size else []


def _comes_of_a_layer(step: Value) -> bool:
    """Whether a step is computed from a step of a rolled layer's outputs."""
    layers = {_operator(layer) for layer in _LAYERS.values()}
    waiting, seen = [step], set()
    while waiting:
        node = waiting.pop()
        if node.target in layers:
            return True
        seen.add(node)
        waiting += [source for source in node.all_input_nodes if source not in seen]
    return False
