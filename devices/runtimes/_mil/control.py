"""What a loaded program is made of: operations one after another, some of which hold programs of their own.

Values are arrays by name. A state is an array by name too; it lives as long as its owner wants, and is replaced whole.
"""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgeseq.devices.runtimes._mil.operator import Array, Operator

Values = MutableMapping[str, Any]
Name = str | tuple[str, ...]  # of a value, or of those of a list


class Computation(Protocol):
    """What an operation does: from the values so far (and the states) -> its result, or a tuple of them."""

    def __call__(self, values: Values, states: Values) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operation, and what becomes of its results."""

    compute: Computation
    outputs: tuple[str, ...]
    dtypes: tuple[np.dtype[Any] | None, ...]  # that each output is rounded to; None: a list, which is left alone
    is_rounded: bool  # False: it only moves values that are rounded already
    frees: tuple[str, ...]  # values that nothing reads after this step


@dataclass(frozen=True, kw_only=True)
class Block:
    """Operations that see the values around them, and give some of their own."""

    inputs: tuple[str, ...]
    constants: Mapping[str, Any]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]

    def __call__(self, given: Mapping[str, Any], states: Values) -> tuple[Any, ...]:
        """The outputs, in order; `given` are the inputs, and for a nested block all values around it."""
        values: Values = {**given, **self.constants}
        for step in self.steps:
            results = step.compute(values, states)
            results = results if isinstance(results, tuple) else (results,)
            for name, dtype, result in zip(step.outputs, step.dtypes, results, strict=True):
                values[name] = result if dtype is None else typed(result, dtype, is_rounded=step.is_rounded)
            for name in step.frees:
                del values[name]
        return tuple(values[name] for name in self.outputs)


@dataclass(frozen=True, kw_only=True)
class Apply:
    """An operator on arrays."""

    operator: Operator
    constants: Mapping[str, Any]
    inputs: Mapping[str, Name]

    def __call__(self, values: Values, states: Values) -> Any:
        del states
        return self.operator(**self.constants, **{key: read(values, name) for key, name in self.inputs.items()})


@dataclass(frozen=True, kw_only=True)
class Branch:
    """MIL's `cond`: one block or the other."""

    condition: str
    if_true: Block
    if_false: Block

    def __call__(self, values: Values, states: Values) -> tuple[Any, ...]:
        return (self.if_true if bool(values[self.condition]) else self.if_false)(values, states)


@dataclass(frozen=True, kw_only=True)
class Loop:
    """MIL's `while_loop`: the body makes new variables of the old ones as long as the condition holds for them."""

    variables: tuple[str, ...]
    condition: Block
    body: Block

    def __call__(self, values: Values, states: Values) -> tuple[Any, ...]:
        current = tuple(values[name] for name in self.variables)
        while bool(self.condition({**values, **_named(self.condition, current)}, states)[0]):
            current = self.body({**values, **_named(self.body, current)}, states)
        return current


@dataclass(frozen=True, kw_only=True)
class ReadState:
    """What a state holds."""

    state: str

    def __call__(self, values: Values, states: Values) -> Array:
        del values
        return states[self.state]


@dataclass(frozen=True, kw_only=True)
class WriteState:
    """A state's new contents, which are the result too."""

    state: str
    value: str

    def __call__(self, values: Values, states: Values) -> Array:
        states[self.state] = values[self.value]
        return values[self.value]


def typed(value: Any, dtype: np.dtype[Any], *, is_rounded: bool = True) -> Array:
    """The value as the evaluator holds that type: float16 as float32 that float16 can express."""
    if dtype != np.float16:
        return np.asarray(value, dtype)
    held = np.asarray(value, np.float32)
    return held.astype(np.float16).astype(np.float32) if is_rounded else held


def read(values: Mapping[str, Any], name: Name) -> Any:
    """A value, or those of a list."""
    return values[name] if isinstance(name, str) else [values[n] for n in name]


def _named(block: Block, current: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(block.inputs, current, strict=True))
