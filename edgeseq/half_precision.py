"""Models in half precision, captured in float32, which holds every float16 and bfloat16 number exactly.

Files are made in float32 and then quantized; `--scheme fp16` stores the same float16 weights again.
"""

import copy
from collections.abc import Mapping
from itertools import chain

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node

from edgeseq.errors import UnsupportedError
from edgeseq.module_paths import module_path

HALVES = (torch.float16, torch.bfloat16)
CASTS = (torch.ops.aten.to.dtype, torch.ops.aten._to_copy.default)


def types_of(model: nn.Module) -> list[str]:
    """The half-precision types that a model's weights have; none for most models."""
    found = {tensor.dtype for tensor in chain(model.parameters(), model.buffers())} & set(HALVES)
    return sorted(str(dtype).removeprefix("torch.") for dtype in found)


def in_float32(model: nn.Module) -> nn.Module:
    """The model itself, or a copy with its half-precision weights widened."""
    if not types_of(model):
        return model
    widened = copy.deepcopy(model)
    for tensor in chain(widened.parameters(), widened.buffers()):
        if tensor.dtype in HALVES:
            tensor.data = tensor.data.float()
    return widened


def widened_examples(examples: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Example inputs, those of half precision in float32."""
    return {name: value.float() if value.dtype in HALVES else value for name, value in examples.items()}


def require_float32(program: ExportedProgram) -> None:
    """Refuse a program that computes in half precision whatever the types of its weights are; it may round to it.

    Raises:
        UnsupportedError: With the first place.
    """
    for node in program.graph.nodes:
        half = _half_type(node)
        if half is not None:
            path = module_path(node)
            place = f"module '{path}'" if path else "the model itself"
            raise UnsupportedError(
                f"{place} computes in "
                f"{str(half).removeprefix('torch.')} whatever its weights are ({node.target}); files are made in "
                "float32 and then quantized: take the cast out, and ask for --scheme fp16"
            )


def _half_type(node: Node) -> torch.dtype | None:
    """The half-precision type that an operation gives or takes; None: it has none, or is a cast.

    What it takes counts too: a product of a float16 input and a float32 weight, which no engine has, is said to give float32.
    """
    if node.target in CASTS or node.op == "output" or node.meta.get("val") is None:
        return None
    values = [other.meta.get("val") for other in (node, *node.all_input_nodes)]
    types = [value.dtype for value in values if isinstance(value, Tensor) and value.dtype in HALVES]
    return types[0] if types else None
