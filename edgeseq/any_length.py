"""Python loops over time, exported for any length.

torch.export fixes the length that a loop such as `for step in x.unbind(1)` runs over. Where rolling leaves nothing of the
loop, the program need not be of that length: one that is the same, operation by operation and number by number, when
captured at other lengths (one more, the least, the most) holds no trace of it, and is exported once more with the length
symbolic.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_arg

LONGEST = 64  # steps of a loop that is exported for comparison; artifacts are compared at more

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
    dimensions = list(dict.fromkeys(d for axes in shapes for d in axes.values()))
    for looped in [*([dimension] for dimension in dimensions), dimensions]:
        fixed = tuple({axis: d for axis, d in axes.items() if d not in looped} for axes in shapes)
        try:
            program = export(model, inputs, (fixed,))
            others = (_resized(inputs, shapes, looped, size) for size in (_next, _least, _most))
            if all(_operations(program) == _operations(export(model, other, (fixed,))) for other in others):
                return export(program.module(check_guards=False), inputs, shapes)
        except Exception:  # of the model's own code too: another dimension may be the loop's
            continue
    return None


def _resized(
    inputs: Sequence[Tensor], shapes: Sequence[Axes], looped: Sequence[Any], size: Callable[[Any, int], int]
) -> tuple[Tensor, ...]:
    """The examples with other sizes of the dimensions that are looped over, their entries repeated or left out."""
    resized = []
    for x, axes in zip(inputs, shapes, strict=True):
        for axis in (axis for axis, d in axes.items() if d in looped):
            have = x.shape[axis]
            x = x.index_select(axis, torch.arange(size(axes[axis], have)) % have)
        resized.append(x)
    return tuple(resized)


def _next(dimension: Any, have: int) -> int:
    return have + 1 if have < dimension.max else have


def _least(dimension: Any, have: int) -> int:
    """Loops of one step are no chains, and some begin with the second."""
    return min(max(dimension.min, 3), have)


def _most(dimension: Any, have: int) -> int:
    return max(min(dimension.max, LONGEST), have)


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
