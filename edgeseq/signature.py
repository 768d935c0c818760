"""What a model takes and gives: named tensors with named dimensions.

The same names reach the ONNX graph, the TFLite signature and the Core ML function. One vocabulary of signatures serves
every architecture: `forward`; `encode`; `prefill`; `step`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from edgeseq.errors import RequestError

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Dim:
    """A dimension that varies from call to call, with the bounds (inclusive) that the capture proved it for."""

    name: str
    min: int
    max: int


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output. `shape` holds sizes, names of a `Dim`, or "?" for a size that follows from several."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True)
class Signature:
    """One way to call a model. `states` names the inputs that carry state from call to call."""

    name: str = "forward"
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dims: tuple[Dim, ...] = ()
    states: tuple[str, ...] = ()

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
            states=tuple(data["states"]),
        )
