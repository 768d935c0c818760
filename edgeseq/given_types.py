"""The types that go into and come out of every file, whatever the model itself takes and gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

# What a model gives -> what every file of it gives, float32 or int32: mobile engines have no wider types as outputs, and
# Core ML no truth values.
GIVEN: Mapping[torch.dtype, torch.dtype] = {
    torch.bool: torch.int32,
    torch.uint8: torch.int32,
    torch.int8: torch.int32,
    torch.int16: torch.int32,
    torch.int64: torch.int32,
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float64: torch.float32,
}


@dataclass
class _Returned:
    """Names of a module's outputs, known once it was called; torch.export empties lists that a traced module changes."""

    names: tuple[str, ...] = ()


class Int32Interface(nn.Module):
    """Takes int32 where the model takes int64, and gives int32 and float32 whatever the model gives.

    Core ML and mobile runtimes have no 64-bit integer inputs. A program holds no type of the model's own package: it gives
    tensors alone.
    """

    def __init__(
        self,
        model: nn.Module,
        called: Callable[[nn.Module], Callable[..., Any]],
        is_int64: tuple[bool, ...],
        *,
        names: tuple[str, ...] | None,
    ):
        super().__init__()
        self.model = model
        self.called = called  # the model -> what is called: itself, or one of its methods
        self.is_int64 = is_int64  # each input
        self.names = names  # of the inputs, which are passed by them; None: by position
        self.returned = _Returned()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        values = [x.long() if wide else x for x, wide in zip(inputs, self.is_int64, strict=True)]
        called = self.called(self.model)
        result = called(*values) if self.names is None else called(**dict(zip(self.names, values, strict=True)))
        outputs = tensors_of(result)
        self.returned.names = tuple(name for name, _ in outputs)
        return tuple(as_given(value) for _, value in outputs)


def as_given(value: Tensor) -> Tensor:
    """An output in the type that every file gives it in."""
    wanted = GIVEN.get(value.dtype)
    return value if wanted is None else value.to(wanted)


def tensors_of(result: Any) -> list[tuple[str, Tensor]]:
    """Every tensor of what a model returns, in order, with its name: its key, or `logits` for the first and numbers."""
    named = result.items() if isinstance(result, Mapping) else [("", result)]
    leaves = [(key, leaf) for key, value in named for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
    keys = [key for key, _ in leaves]
    own = [isinstance(key, str) and key.isidentifier() and keys.count(key) == 1 for key in keys]
    return [
        (key if is_own else f"output_{i}" if i else "logits", leaf)
        for i, ((key, leaf), is_own) in enumerate(zip(leaves, own, strict=True))
    ]
