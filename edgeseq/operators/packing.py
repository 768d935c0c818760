"""Packed sequences while a model is exported: a padded batch with its lengths stays one.

Torch packs the valid steps of all rows one after another, as many as the lengths add up to: a size that no format can
know beforehand, and an order that needs sorting. Our operators take lengths instead. So while a model is exported, a
`PackedSequence` holds the padded batch (B, T, …) in `data` and the rows' lengths (B,) in `batch_sizes`. What a model
does to `data` between packing and padding, step by step, still means the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence


@contextmanager
def padded_while_exporting() -> Iterator[None]:
    """While it lasts, `pack_padded_sequence` and `pad_packed_sequence` keep the padded form.

    Models import these functions by name, so it is the functions' own code that is exchanged.
    """
    functions: tuple[tuple[Any, Any], ...] = ((pack_padded_sequence, _pack), (pad_packed_sequence, _pad))
    originals = [function.__code__ for function, _ in functions]
    for function, replacement in functions:
        function.__code__ = replacement.__code__
    try:
        yield
    finally:
        for (function, _), code in zip(functions, originals, strict=True):
            function.__code__ = code


def packed(x: Tensor, lengths: Tensor | list[int], batch_first: bool) -> PackedSequence:
    """What stands for the packed form of x (B, T, …) or, unless batch first, (T, B, …)."""
    return PackedSequence(x if batch_first else x.transpose(0, 1), torch.as_tensor(lengths))


def padded(
    sequence: PackedSequence, batch_first: bool, padding_value: float, total_length: int | None
) -> tuple[Tensor, Tensor]:
    """The batch again, (B, T, …) or (T, B, …), and its lengths; beyond a row's length it holds `padding_value`.

    T is what was packed, where torch would cut the batch to its longest row.
    """
    y, lengths = sequence.data, sequence.batch_sizes
    is_valid = torch.arange(y.shape[1]) < lengths.unsqueeze(1)  # (B, T)
    y = torch.where(is_valid.reshape(*is_valid.shape, *(1,) * (y.dim() - 2)), y, padding_value)
    if total_length is not None and not statically_known_true(total_length == y.shape[1]):
        y = functional.pad(y, (*(0, 0) * (y.dim() - 2), 0, total_length - y.shape[1]), value=padding_value)
    return (y if batch_first else y.transpose(0, 1)), lengths


# These two run as the bodies of torch's functions, among the names of torch's file, hence what they import.


def _pack(input: Any, lengths: Any, batch_first: Any = False, enforce_sorted: Any = True) -> Any:
    from edgeseq.operators import packing

    return packing.packed(input, lengths, batch_first)


def _pad(sequence: Any, batch_first: Any = False, padding_value: Any = 0.0, total_length: Any = None) -> Any:
    from edgeseq.operators import packing

    return packing.padded(sequence, batch_first, padding_value, total_length)
