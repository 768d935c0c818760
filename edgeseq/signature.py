"""What a model takes and gives: named tensors with named dimensions.

The same names reach the ONNX graph, the TFLite signature and the Core ML function. One vocabulary of signatures serves
every architecture: `forward`; `encode`; `prefill`; `step`.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np

from edgeseq.errors import RequestError
from edgeseq.lookup import unknown

Tensors = Mapping[str, np.ndarray]
Run = Callable[[Tensors, str], dict[str, np.ndarray]]  # (inputs, signature) -> outputs


@dataclass(frozen=True, kw_only=True)
class Dim:
    """A dimension that varies from call to call, with the bounds (inclusive) that the capture proved it for."""

    name: str
    min: int
    max: int


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output, in the type that every file takes or gives: outputs are float32 or int32.

    `shape` holds sizes, names of a `Dim`, or "?" for a size that follows from several.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True)
class State:
    """An input that carries what earlier calls computed, and the output that continues it.

    An LSTM's output takes the input's place. A cache has a capacity, and its output holds the new rows only, which belong
    into the input along `axis`, from `position` on: no engine then copies what did not change.

    A state that an engine keeps (`kept_as`) is neither fed nor returned by the file: it begins as zeros, in a state object
    that the app makes once a sequence and hands to every call. Its batch is 1 and its capacity the largest there is.
    """

    input: str
    output: str
    axis: int | None = None  # None: the output replaces the input
    position: str | None = None  # the input (B,) that counts the rows in use
    kept_as: str | None = None  # the type in which the engine keeps it between calls; None: the app keeps it


@dataclass(frozen=True, kw_only=True)
class Signature:
    """One way to call a model."""

    name: str = "forward"
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dims: tuple[Dim, ...] = ()
    states: tuple[State, ...] = ()
    case_of: str | None = None  # the signature whose program computes it, some dimensions fixed; None: it has its own

    def __post_init__(self) -> None:
        """Refuse states that name no input or no output.

        Raises:
            RequestError: With the names there are.
        """
        inputs, outputs = ([spec.name for spec in specs] for specs in (self.inputs, self.outputs))
        for state in self.states:
            named = [(state.input, inputs), (state.output, outputs)]
            for name, known in [*named, (state.position or state.input, inputs)]:
                if name not in known:
                    raise RequestError(f"a state of signature '{self.name}' names '{name}', which is none of {known}")

    @property
    def program(self) -> str:
        """The name of the program that computes it."""
        return self.case_of or self.name

    @property
    def state_inputs(self) -> tuple[str, ...]:
        """The inputs that carry state from call to call."""
        return tuple(state.input for state in self.states)

    @property
    def state_outputs(self) -> tuple[str, ...]:
        """The outputs that continue states."""
        return tuple(state.output for state in self.states)

    @property
    def batch(self) -> str | None:
        """The dimension of the sequences: what the first input that is no state begins with; None: that is fixed."""
        first = next((spec.shape[0] for spec in self.inputs if spec.name not in self.state_inputs and spec.shape), 1)
        return first if isinstance(first, str) else None

    @property
    def keeps_states(self) -> bool:
        """Whether the engine keeps any of its states."""
        return any(state.kept_as for state in self.states)

    def input(self, name: str) -> TensorSpec:
        """The input of that name."""
        return next(spec for spec in self.inputs if spec.name == name)

    def case(self, name: str, sizes: Mapping[str, int]) -> "Signature":
        """The same program with some dimensions fixed, such as a `step`, which is a `prefill` of one token.

        Raises:
            RequestError: There is no such dimension, or it has no such size.
        """
        bounds = {dim.name: dim for dim in self.dims}
        for dim, size in sizes.items():
            if dim not in bounds:
                raise unknown(f"dimension of '{self.name}' called", dim, bounds)
            if not bounds[dim].min <= size <= bounds[dim].max:
                raise RequestError(
                    f"signature '{name}' fixes dimension '{dim}' at {size}, but it runs from {bounds[dim].min} to "
                    f"{bounds[dim].max}"
                )

        def fixed(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
            return tuple(replace(s, shape=tuple(sizes.get(str(size), size) for size in s.shape)) for s in specs)

        return replace(
            self,
            name=name,
            inputs=fixed(self.inputs),
            outputs=fixed(self.outputs),
            dims=tuple(dim for dim in self.dims if dim.name not in sizes),
            case_of=self.program,
        )

    def check(self, feeds: Tensors) -> None:
        """Refuse feeds whose names, dtypes, ranks or fixed sizes differ from the inputs'.

        Raises:
            RequestError: With both sides of the mismatch.
        """
        expected = [spec.name for spec in self.inputs]
        if sorted(feeds) != sorted(expected):
            raise RequestError(f"signature '{self.name}' takes inputs {expected}, but was given {sorted(feeds)}")
        for spec in self.inputs:
            array = feeds[spec.name]
            sizes_match = len(array.shape) == len(spec.shape) and all(
                isinstance(want, str) or want == have for want, have in zip(spec.shape, array.shape, strict=True)
            )
            if array.dtype != np.dtype(spec.dtype) or not sizes_match:
                raise RequestError(
                    f"input '{spec.name}' is {spec.dtype}{list(spec.shape)}, but was given {array.dtype}{list(array.shape)}"
                )

    def to_json(self) -> dict[str, Any]:
        """Plain data for a manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The signature that `to_json` wrote."""

        def tensors(specs: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
            return tuple(TensorSpec(name=s["name"], dtype=s["dtype"], shape=tuple(s["shape"])) for s in specs)

        return cls(
            name=data["name"],
            inputs=tensors(data["inputs"]),
            outputs=tensors(data["outputs"]),
            dims=tuple(Dim(**dim) for dim in data["dims"]),
            states=tuple(State(**state) for state in data["states"]),
            case_of=data["case_of"],
        )
