"""A recurrent layer as `_recurrence.py` and `_wavefront.py` run it: its weights, and what one step computes of its products.

Rows are what runs side by side in one step: the directions of a layer, or two layers one upon another.

Letters: B batch, D rows (1 or 2), I input width, P output width, G gates' width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgeseq.converters.tflite._emit import binary, concatenate, split
from edgeseq.converters.tflite._graph import Graph, Value, constant
from edgeseq.converters.tflite.matmul import fully_connected

Weights = Sequence[Value]  # of one row, in the operator's order
Cell = Callable[[Graph, Sequence[Value], list[Value]], list[Value]]
"""Products of a step's input and of its last output, each (D*B, G), or their sum; states, each (D*B, its width) -> new
states, of which the first is the output (P)."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What one step of all rows needs."""

    width: int  # P
    inputs: Sequence[Value]  # of each row (G, I)
    biases: Sequence[Value]  # of each row (G,), added to the input's product
    recurrent: Sequence[Value]  # of each row (G, P), or fewer gates where the cell computes others itself
    inner_biases: Sequence[Value] | None = None  # of each row (G,), added to the last output's product
    takes_sum: bool  # whether the cell takes the sum of both products
    cell: Cell

    @property
    def rows(self) -> int:
        """D."""
        return len(self.recurrent)

    @property
    def n_gates(self) -> int:
        """G."""
        return int(self.inputs[0].shape[0])

    def step(self, graph: Graph, from_input: Value, states: list[Value]) -> list[Value]:
        """The input's product (D*B, G), states, each (D*B, its width) -> new states."""
        if self.takes_sum and is_zero(states[0]):
            return self.cell(graph, [from_input], states)
        from_output = products(graph, states[0], self.recurrent, self.inner_biases)
        if self.takes_sum:
            return self.cell(graph, [binary(graph, "ADD", from_output, from_input)], states)
        return self.cell(graph, [from_input, from_output], states)


def products(graph: Graph, h: Value, weights: Sequence[Value], biases: Sequence[Value] | None = None) -> Value:
    """H (D*B, P) times each row's weight (G, P) -> (D*B, G)."""
    parts = split(graph, h, 0, len(weights))
    added: Sequence[Value | None] = biases or [None] * len(weights)
    return concatenate(graph, [_product(graph, *inputs) for inputs in zip(parts, weights, added, strict=True)], 0)


def _product(graph: Graph, h: Value, weight: Value, bias: Value | None) -> Value:
    """One row's. That of a constant is constant; AI Edge Quantizer would quantize a product's constant input."""
    if h.data is None:
        return fully_connected(graph, h, weight, bias)
    return constant(h.data @ array(weight).T + (0 if bias is None else array(bias)))


def summed(first: Value, second: Value) -> Value:
    """The sum of two constant biases."""
    return constant(array(first) + array(second), name=first.name)


def is_zero(value: Value) -> bool:
    """Whether it is known to hold zeros only."""
    return value.data is not None and not value.data.any()


def array(weight: Value) -> np.ndarray:
    """The numbers of a weight."""
    assert weight.data is not None, "run_stack lets constants through only"
    return weight.data
