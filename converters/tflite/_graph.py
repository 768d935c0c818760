"""TFLite graphs while they are built: values, operators, subgraphs. `_flatbuffer.py` writes them.

Sizes are integers or sympy expressions of the dynamic dimensions; integers are 32 bits wide throughout.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import sympy

Size: TypeAlias = int | sympy.Expr
Shape: TypeAlias = tuple[Size, ...]
Setting = int | float | bool | list[int]

INT32 = np.dtype(np.int32)
FLOAT32 = np.dtype(np.float32)
BOOL = np.dtype(np.bool_)

# Stands for infinity in constants: exp(-1e4) is 0 in float32, two of them still fit in float16, and a row that is
# masked altogether gives finite numbers.
FINITE_INFINITY = 1e4


@dataclass(eq=False, kw_only=True)
class Value:
    """One tensor. `data` is set for constants; `name` begins with the PyTorch path that it comes from."""

    name: str
    shape: Shape
    dtype: np.dtype[Any]
    data: np.ndarray | None = None
    producer: "Operator | None" = None

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Builtin options: the schema's table name without its T, and its fields."""

    table: str
    fields: dict[str, Setting]


@dataclass(eq=False, kw_only=True)
class Operator:
    """One operator; an optional input that is absent is None."""

    code: str
    inputs: list[Value | None]
    outputs: list[Value]
    options: Options | None = None


@dataclass(eq=False, kw_only=True)
class Graph:
    """One subgraph. The list of the model's subgraphs is shared, so that loops can add their own."""

    name: str
    siblings: "list[Graph]"
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    scope: str = ""  # names of new values begin with it
    symbols: dict[sympy.Expr, tuple[Value, int]] = field(default_factory=dict)  # dynamic dimension -> input and axis

    def subgraph(self, name: str) -> "Graph":
        """A new, empty subgraph of the same model."""
        graph = Graph(name=f"{self.name}.{name}_{len(self.siblings)}", siblings=self.siblings, scope=self.scope)
        self.siblings.append(graph)
        return graph

    def index(self) -> int:
        """This subgraph's number in the file."""
        return next(i for i, graph in enumerate(self.siblings) if graph is self)

    def input(self, name: str, shape: Shape, dtype: np.dtype[Any]) -> Value:
        """A new input."""
        value = Value(name=name, shape=shape, dtype=dtype)
        self.inputs.append(value)
        return value

    def op(
        self,
        code: str,
        inputs: Sequence[Value | None],
        shape: Shape,
        dtype: np.dtype[Any] | None = None,
        options: Options | None = None,
    ) -> Value:
        """The result of a new operator; its dtype is the first input's where none is given."""
        return self.ops(code, inputs, [shape], dtype, options)[0]

    def ops(
        self,
        code: str,
        inputs: Sequence[Value | None],
        shapes: Sequence[Shape],
        dtype: np.dtype[Any] | None = None,
        options: Options | None = None,
    ) -> list[Value]:
        """The results, all of one dtype, of a new operator."""
        kind = dtype or next(value.dtype for value in inputs if value is not None)
        operator = Operator(code=code, inputs=list(inputs), outputs=[], options=options)
        name = f"{self.scope};{code.lower()}" if self.scope else code.lower()
        operator.outputs = [Value(name=name, shape=shape, dtype=kind, producer=operator) for shape in shapes]
        self.operators.append(operator)
        return operator.outputs


def constant(data: Any, dtype: np.dtype[Any] | None = None, *, name: str = "constant") -> Value:
    """A constant; wide numbers become 32 bits wide, infinities (and their finite stand-ins) finite."""
    array = np.asarray(data, dtype)
    if array.dtype == np.int64:
        info = np.iinfo(np.int32)
        array = array.clip(info.min, info.max).astype(np.int32)
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
        array = np.where(np.abs(array) > 3e38, np.copysign(np.float32(FINITE_INFINITY), array), array)
    return Value(name=name, shape=array.shape, dtype=array.dtype, data=np.ascontiguousarray(array).reshape(array.shape))


def options(table: str, **fields: Setting) -> Options:
    """Builtin options by the schema's names."""
    return Options(table=table, fields=fields)
