"""A recurrent layer as WHILE loops, whatever its gates: `lstm.py` and others say what one step computes.

The input half of all gates is one matrix product outside the loops. Both directions of a layer run in one loop, as rows
of the same tensors, so that a step costs few operators; states are carried from step to step and start as given.

What a round of a WHILE changes is copied twice, what its body hands back untouched is not. Outputs of all steps therefore
grow in an inner loop over a short block first: in one loop they would cost O(T²). Counters are vectors of one element,
which GATHER and DYNAMIC_UPDATE_SLICE take as they are.

Letters: T time, B batch, D directions (1 or 2), H hidden width, G numbers that a step's gates need of its input, S steps
a block, N blocks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import sympy

from edgeseq.converters.tflite import _emit
from edgeseq.converters.tflite._emit import binary, gather, reshape, transpose
from edgeseq.converters.tflite._graph import FLOAT32, INT32, Graph, Size, Value, constant, options
from edgeseq.converters.tflite._loop import while_loop
from edgeseq.converters.tflite.matmul import fully_connected

BLOCK = 16  # S

Step = Callable[[Graph, Value, list[Value]], list[Value]]
"""Input half of the gates (D*B, G), states, each (D*B, H) -> new states, of which the first is the step's output."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer: its input product and its step."""

    directions: int
    width: int
    input_weight: Value  # (D*G, I)
    bias: Value  # (D*G,)
    step: Step


def run_layer(
    graph: Graph, layer: Layer, x: Value, states: Sequence[Value], lengths: Value | None, *, needs_outputs: bool
) -> tuple[Value, list[Value]]:
    """X (B, T, I), states, each (D, B, H) -> y (B, T, D*H), states. Without need, y is x.

    Steps from a row's length on change no state, and their outputs are zero; the backward direction starts at the row's
    last valid step. Lengths (B,) are for a batch of 1 only.
    """
    d, width = layer.directions, layer.width
    batch, time = x.shape[0], x.shape[1]
    assert isinstance(batch, int), "the file's batch is fixed"
    gates = fully_connected(graph, transpose(graph, x, (1, 0, 2)), layer.input_weight, layer.bias)  # (T, B, D*G)
    n_gates = int(layer.input_weight.shape[0]) // d
    gates = transpose(graph, reshape(graph, gates, (time, batch, d, n_gates)), (0, 2, 1, 3))  # (T, D, B, G)
    carried = [reshape(graph, state, (d * batch, width)) for state in states]
    if time == 1:
        carried = layer.step(graph, reshape(graph, gates, (d * batch, n_gates)), carried)
        outputs = reshape(graph, carried[0], (1, d, batch, width))
    else:
        loop = _Loop(graph=graph, layer=layer, time=time, batch=batch, n_gates=n_gates, lengths=lengths)
        rows = reshape(graph, gates, (time * d, batch * n_gates))
        outputs, carried = loop.collect(rows, carried) if needs_outputs else (x, loop.fold(rows, carried))
    if needs_outputs:
        outputs = reshape(graph, transpose(graph, outputs, (2, 0, 1, 3)), (batch, time, d * width))
    return (outputs if needs_outputs else x), [reshape(graph, state, (d, batch, width)) for state in carried]


@dataclass(frozen=True, kw_only=True)
class _Loop:
    """The loops of one layer. Carried first: step (1,), its rows of (T*D) (D,), how many steps there are (1,)."""

    graph: Graph
    layer: Layer
    time: Size
    batch: int
    n_gates: int
    lengths: Value | None

    @property
    def size(self) -> int:
        """Numbers that one step puts out: D*B*H."""
        return self.layer.directions * self.batch * self.layer.width

    def start(self) -> list[Value]:
        """The step, its rows, and how many steps there are."""
        graph, zero = self.graph, constant([0], INT32)
        if self.lengths is None:
            limit = reshape(graph, _emit.size_value(graph, self.time), (1,))
        else:
            limit = reshape(graph, self.lengths, (1,))
        return [zero, reshape(graph, self.rows(zero, limit), (self.layer.directions,)), limit]

    def rows(self, steps: Value, limit: Value) -> Value:
        """Steps (n,) -> their rows (n, D). Backwards begins at the last valid step; invalid ones stay in place.

        The mapping is its own inverse: it also tells which step's row holds the output of a point in time.
        """
        graph, two, one = self.graph, constant(2, INT32), constant(1, INT32)
        if self.layer.directions == 1:
            return reshape(graph, steps, (*steps.shape, 1))
        backward = binary(graph, "SUB", binary(graph, "SUB", limit, one), steps)
        if self.lengths is not None:
            inputs = [binary(graph, "LESS", steps, limit), backward, steps]
            backward = graph.op("SELECT_V2", inputs, steps.shape, INT32, options("SelectV2Options"))
        pair = [binary(graph, "MUL", steps, two), binary(graph, "ADD", binary(graph, "MUL", backward, two), one)]
        return graph.op("PACK", pair, (*steps.shape, 2), INT32, options("PackOptions", valuesCount=2, axis=1))

    def advance(self, graph: Graph, step: Value, rows: Value) -> list[Value]:
        """The next step and its rows."""
        after = binary(graph, "ADD", step, constant([1], INT32))
        return [after, after if self.layer.directions == 1 else binary(graph, "ADD", rows, constant([2, -2], INT32))]

    def step(self, graph: Graph, gates: Value, rows: Value, states: list[Value]) -> list[Value]:
        """One step of the layer within a loop's body."""
        mine = reshape(graph, gather(graph, gates, rows), (self.layer.directions * self.batch, self.n_gates))
        return self.layer.step(graph, mine, states)

    def fold(self, gates: Value, states: list[Value]) -> list[Value]:
        """The states after all steps, where nobody needs the outputs: one loop suffices."""

        def run_step(body: Graph, carried: list[Value]) -> list[Value]:
            step, rows, limit, gates, *states = carried
            return [*self.advance(body, step, rows), limit, gates, *self.step(body, gates, rows, states)]

        start = [*self.start(), gates, *states]
        return while_loop(self.graph, "steps", _below_limit, run_step, start)[4:]

    def collect(self, gates: Value, states: list[Value]) -> tuple[Value, list[Value]]:
        """Gates (T*D, B*G), states -> outputs (T, D, B, H) in the order of time, states. The loop over blocks."""
        graph, d = self.graph, self.layer.directions
        n_blocks = (self.time + BLOCK - 1) // BLOCK if isinstance(self.time, int) else sympy.ceiling(self.time / BLOCK)

        def run_block(body: Graph, carried: list[Value]) -> list[Value]:
            step, rows, limit, place, gates, outputs, *states = carried
            end = binary(body, "MINIMUM", binary(body, "ADD", step, constant([BLOCK], INT32)), limit)
            step, rows, block, states = self._run_block(body, step, rows, end, gates, states)
            outputs = _write(body, outputs, block, place)
            after = binary(body, "ADD", place, constant([BLOCK * self.size], INT32))
            return [step, rows, limit, after, gates, outputs, *states]

        start = [*self.start(), constant([0], INT32), gates, self._zeros(n_blocks), *states]
        results = while_loop(graph, "blocks", _below_limit, run_block, start)
        by_step = reshape(graph, results[5], (n_blocks * BLOCK * d, self.size // d))
        if d == 1:
            ordered = self._first(by_step)
        else:
            ordered = gather(graph, by_step, self.rows(_emit.steps(graph, self.time), start[2]))
        return reshape(graph, ordered, (self.time, d, self.batch, self.layer.width)), results[6:]

    def _run_block(
        self, graph: Graph, step: Value, rows: Value, end: Value, gates: Value, states: list[Value]
    ) -> tuple[Value, Value, Value, list[Value]]:
        """Step, rows, end of the block, gates, states -> step, rows, outputs (S*D*B*H,), states. The inner loop."""

        def run_step(body: Graph, carried: list[Value]) -> list[Value]:
            step, rows, end, place, gates, outputs, *states = carried
            states = self.step(body, gates, rows, states)
            outputs = _write(body, outputs, reshape(body, states[0], (self.size,)), place)
            after = binary(body, "ADD", place, constant([self.size], INT32))
            return [*self.advance(body, step, rows), end, after, gates, outputs, *states]

        empty = _emit.fill_at_run_time(graph, (BLOCK * self.size,), constant(0.0))
        start = [step, rows, end, constant([0], INT32), gates, empty, *states]
        results = while_loop(graph, "steps", _below_limit, run_step, start)
        return results[0], results[1], results[5], results[6:]

    def _zeros(self, n_blocks: Size) -> Value:
        """Room for the outputs of all blocks (N*S*D*B*H,)."""
        graph, length = self.graph, BLOCK * self.size
        if isinstance(n_blocks, int):
            return _emit.fill_at_run_time(graph, (n_blocks * length,), constant(0.0))
        time = _emit.size_value(graph, self.time + BLOCK - 1)
        count = binary(graph, "FLOOR_DIV", reshape(graph, time, (1,)), constant([BLOCK], INT32))
        shape = binary(graph, "MUL", count, constant([length], INT32))
        return graph.op("FILL", [shape, constant(0.0)], (n_blocks * length,), FLOAT32, options("FillOptions"))

    def _first(self, rows: Value) -> Value:
        """The first T rows."""
        size = _emit.shape_vector(self.graph, (self.time, rows.shape[1]))
        inputs = [rows, constant([0, 0], INT32), size]
        return self.graph.op("SLICE", inputs, (self.time, rows.shape[1]), options=options("SliceOptions"))


def _below_limit(cond: Graph, carried: list[Value]) -> Value:
    return binary(cond, "LESS", carried[0], carried[2])


def _write(graph: Graph, everything: Value, part: Value, place: Value) -> Value:
    """A copy of a vector with a part of it replaced from a place (1,) on."""
    inputs = [everything, part, place]
    return graph.op("DYNAMIC_UPDATE_SLICE", inputs, everything.shape, FLOAT32, options("DynamicUpdateSliceOptions"))
