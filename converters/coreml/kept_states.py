"""States that Core ML keeps from call to call (iOS 18): a captured program becomes one that changes buffers of its own.

Core ML holds states in float16 and in one shape, so that the batch is 1 and the capacity of a cache is fixed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim as ExportDim
from torch.export import ExportedProgram

from edgeseq.errors import RequestError, UnsupportedError
from edgeseq.model_checks import explained
from edgeseq.module_paths import WRAPPER
from edgeseq.operators import write_rows
from edgeseq.signature import Dim, Signature

KEPT_AS = "float16"


def kept(signature: Signature, capacity: int | None) -> Signature:
    """The signature with all its states kept by the engine.

    Raises:
        UnsupportedError: A state has a size that nothing fixes.
    """
    sizes = fixed_sizes(signature, capacity)
    dims = tuple(
        replace(dim, max=sizes[dim.name]) if dim.name in _capacities(signature) else dim for dim in signature.dims
    )
    return replace(signature, dims=dims, states=tuple(replace(state, kept_as=KEPT_AS) for state in signature.states))


def check_capacity(signatures: Sequence[Signature], capacity: int | None) -> None:
    """Refuse a capacity that no cache of the model can have; the smaller of several caches keep as many as they can.

    Raises:
        RequestError: No cache has rows to choose, or each has fewer at most.
    """
    if capacity is None:
        return
    most = [dim.max for s in signatures for dim in s.dims if dim.name in _capacities(s)]
    if not most:
        raise RequestError(
            f"format 'coreml' cannot keep {capacity} rows of each cache, for the model has no cache with a dynamic number "
            "of rows; leave the capacity out"
        )
    if capacity > max(most):
        raise RequestError(
            f"format 'coreml' cannot keep {capacity} rows of each cache, for the model can use {max(most)} at most; give 1 to "
            f"{max(most)}, or leave the capacity out"
        )


def fixed_sizes(signature: Signature, capacity: int | None) -> dict[str, int]:
    """The dimensions of states: 1 of the batch, and as many rows of a cache as the model, or the user, allows.

    Raises:
        UnsupportedError: A state has a size that nothing fixes.
    """
    bounds = {dim.name: dim for dim in signature.dims}
    rows, batch = _capacities(signature), signature.batch
    sizes: dict[str, int] = {}
    for state in signature.states:
        for size in signature.input(state.input).shape:
            if isinstance(size, int):
                continue
            if size not in rows and size != batch:
                raise UnsupportedError(
                    f"format 'coreml' cannot keep state '{state.input}' in the engine, for its dimension '{size}' is neither "
                    "the batch nor a capacity; leave the target out to have states as inputs and outputs"
                )
            most = bounds[size].max
            sizes[size] = min(most, capacity or most) if size in rows else 1
    return sizes


def keeping_states(
    program: ExportedProgram, signature: Signature, capacity: int | None
) -> tuple[ExportedProgram, Signature]:
    """The program with its states as buffers, which it changes, and the signature of what it still takes and gives.

    Raises:
        UnsupportedError: torch.export refuses it in these sizes.
    """
    sizes = fixed_sizes(signature, capacity)
    bounds = {dim.name: dim for dim in signature.dims}
    symbols: dict[str, Any] = {}
    examples, shapes = [], []
    for spec in signature.inputs:
        if spec.name in signature.state_inputs:
            continue
        free = {i: str(size) for i, size in enumerate(spec.shape) if isinstance(size, str) and size not in sizes}
        for name in free.values():
            symbols.setdefault(name, ExportDim(name, min=bounds[name].min, max=bounds[name].max))
        known = {**sizes, **{name: _example(bounds[name]) for name in free.values()}}
        shape = [size if isinstance(size, int) else known[size] for size in spec.shape]
        examples.append(torch.zeros(shape, dtype=getattr(torch, spec.dtype)))
        shapes.append({axis: symbols[name] for axis, name in free.items()})
    module = _Keeping(program, signature, sizes)
    try:
        with torch.no_grad():
            changed = torch.export.export(module, tuple(examples), dynamic_shapes=(tuple(shapes),))
    except Exception as error:  # torch.export raises many types of its own
        raise UnsupportedError(
            f"format 'coreml' cannot keep the states of signature '{signature.name}' in the engine: {explained(error)}; leave "
            "the target out to have them as inputs and outputs"
        ) from error
    inputs = tuple(spec for spec in signature.inputs if spec.name not in signature.state_inputs)
    outputs = tuple(spec for spec in signature.outputs if spec.name not in signature.state_outputs)
    return changed, replace(signature, inputs=inputs, outputs=outputs, states=())


class _Keeping(nn.Module):
    """Runs a program on buffers in place of its states."""

    def __init__(self, program: ExportedProgram, signature: Signature, sizes: Mapping[str, int]):
        super().__init__()
        setattr(self, WRAPPER, program.module())
        self.signature = signature
        for name in signature.state_inputs:
            shape = [size if isinstance(size, int) else sizes[size] for size in signature.input(name).shape]
            self.register_buffer(name, torch.zeros(shape, dtype=getattr(torch, KEPT_AS)))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        signature = self.signature
        states = {name: getattr(self, name) for name in signature.state_inputs}
        given = dict(zip((s.name for s in signature.inputs if s.name not in states), inputs, strict=True))
        values = [
            given[s.name] if s.name in given else states[s.name].to(getattr(torch, s.dtype)) for s in signature.inputs
        ]
        results = getattr(self, WRAPPER)(*values)
        outputs = dict(zip((spec.name for spec in signature.outputs), results, strict=True))
        for state in signature.states:
            buffer = states[state.input]
            new = outputs.pop(state.output).to(buffer.dtype)
            if state.axis is not None and state.position is not None:
                new = write_rows.write_rows(buffer, new, given[state.position], state.axis)
            buffer.copy_(new)
        return tuple(outputs.values())


def _capacities(signature: Signature) -> set[int | str]:
    """The dimensions along which caches have their rows."""
    return {signature.input(state.input).shape[state.axis] for state in signature.states if state.axis is not None}


def _example(dim: Dim) -> int:
    """A size that torch.export does not take for a constant."""
    return min(max(dim.min, 2) + 1, dim.max)
