"""One operation of a model file, as far as a delegate looks at it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Operand:
    """A tensor that an operation reads or writes."""

    dtype: str  # empty: the file does not say
    shape: tuple[int, ...] | None  # -1: varies; None: even the rank is unknown
    is_constant: bool = False


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One operation."""

    kind: str  # the format's own name, such as "FULLY_CONNECTED"; "domain::Name" outside ONNX's own operators
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    module: str = ""  # path of the PyTorch module that it came from; empty: unknown
    is_nested: bool = False  # in the body of a loop or a branch
