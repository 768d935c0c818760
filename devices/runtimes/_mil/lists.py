"""MIL's lists of tensors, which loops collect their results in; an element is None until it is written."""

from typing import Any

import numpy as np

from edgeseq.devices.runtimes._mil.operator import Array, Operator, ints

List = list[Any]


def _make(init_length: Any = 1, dynamic_length: Any = True, elem_shape: Any = (), dtype: Any = "fp32") -> List:
    del dynamic_length, elem_shape, dtype
    return [None] * int(init_length)


def _write(ls: List, index: Any, value: Array) -> List:
    longer = [*ls, *[None] * (int(index) + 1 - len(ls))]
    longer[int(index)] = value
    return longer


def _read(ls: List, index: Any) -> Array:
    return ls[int(index)]


def _gather(ls: List, indices: Array) -> Array:
    return np.stack([ls[index] for index in ints(indices)])


def _scatter(ls: List, indices: Array, value: Array) -> List:
    for index, element in zip(ints(indices), value, strict=True):
        ls = _write(ls, index, element)
    return ls


def _length(ls: List) -> Array:
    return np.int32(len(ls))


OPERATORS: dict[str, Operator] = {
    "make_list": _make,
    "list_write": _write,
    "list_read": _read,
    "list_gather": _gather,
    "list_scatter": _scatter,
    "list_length": _length,
}
