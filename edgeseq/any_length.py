"""Python loops over time, exported for any length.

torch.export fixes the length that a loop such as `for step in x.unbind(1)` runs over. Where rolling leaves nothing of the
loop, the program need not be of that length: one that is the same, operation by operation and number by number, when
captured at another length holds no trace of it, and is exported once more with the length symbolic.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_arg

Axes = Mapping[int, Any]  # axis -> torch.export's dimension
Export = Callable[[nn.Module, tuple[Tensor, ...], Any], ExportedProgram]  # the last: as torch.export.export takes it


def exported(
    export: Export, model: nn.Module, inputs: tuple[Tensor, ...], shapes: tuple[Axes, ...]
) -> ExportedProgram | None:
    """The program with all of `shapes` symbolic although the model loops over one of them, or None if it depends on it.

    Args:
        export: Exports a module of these inputs, with loops around cells rolled.
        model: Takes `*inputs`.
        inputs: Examples; symbolic axes are at least 2 long.
        shapes: For each input, its symbolic axes.
    """
    for dimension in dict.fromkeys(d for axes in shapes for d in axes.values()):
        fixed = tuple({axis: d for axis, d in axes.items() if d is not dimension} for axes in shapes)
        longer = tuple(
            _longer(x, [a for a, d in axes.items() if d is dimension]) for x, axes in zip(inputs, shapes, strict=True)
        )
        try:
            program = export(model, inputs, (fixed,))
            if _operations(program) == _operations(export(model, longer, (fixed,))):
                return export(program.module(check_guards=False), inputs, shapes)
        except Exception:  # of the model's own code too: another dimension may be the loop's
            continue
    return None


def _longer(x: Tensor, axes: Sequence[int]) -> Tensor:
    """The input with its first step once more at the end of each axis."""
    for axis in axes:
        x = torch.cat([x, x.narrow(axis, 0, 1)], axis)
    return x


def _operations(program: ExportedProgram) -> list[Any]:
    """What a program computes, written without the names and shapes of its values."""
    numbers: dict[Node, str] = {}
    written: list[Any] = []
    for node in program.graph.nodes:
        arguments = map_arg((node.args, node.kwargs), lambda other: numbers[other])
        target = node.name if node.op == "placeholder" else str(node.target)
        written.append((node.op, target, str(arguments)))
        numbers[node] = f"%{len(numbers)}"
    constants = {name: value.tolist() for name, value in program.constants.items() if isinstance(value, Tensor)}
    return [*written, constants]
