"""A recurrent layer as WHILE loops, whatever its gates: `lstm.py` and others say what one step computes.

The input half of all gates is one matrix product outside the loops. Both directions of a layer run in one loop, as rows
of the same tensors, so that a step costs few operators; states are carried from step to step and start as given.

What a round of a WHILE changes is copied twice, what its body hands back untouched is not. Outputs of all steps therefore
grow in inner loops over short blocks first: in one loop they would cost O(T²). A round of the innermost loop runs one step:
XNNPACK packs the recurrent weights once for every step that it sees, and four a round took twice as long in float32 and no less
in int8. Counters are vectors of one element, which GATHER and DYNAMIC_UPDATE_SLICE take as they are.

Letters: T time, B batch, D directions (1 or 2), H hidden width, G numbers that a step's gates need of its input.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from edgeseq.converters.tflite import _emit
from edgeseq.converters.tflite._emit import binary, gather, reshape, transpose, unary
from edgeseq.converters.tflite._graph import FLOAT32, INT32, Graph, Size, Value, constant, options
from edgeseq.converters.tflite._loop import while_loop
from edgeseq.converters.tflite.matmul import fully_connected

BLOCKS = (64, 16)  # steps a round of the outer loops

Step = Callable[[Graph, Value, list[Value]], list[Value]]
"""Input half of the gates (D*B, G), states, each (D*B, its width) -> new states, of which the first is the output (H)."""


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
    """X (B, T, I), states, each (D, B, its width) -> y (B, T, D*H), states. Without need, y is x.

    Steps from a row's length on change no state, and their outputs are zero; the backward direction starts at the row's
    last valid step. Lengths (B,) are for a batch of 1 only.
    """
    d, width = layer.directions, layer.width
    batch, time = x.shape[0], x.shape[1]
    assert isinstance(batch, int), "the file's batch is fixed"
    gates = fully_connected(graph, transpose(graph, x, (1, 0, 2)), layer.input_weight, layer.bias)  # (T, B, D*G)
    n_gates = int(layer.input_weight.shape[0]) // d
    gates = transpose(graph, reshape(graph, gates, (time, batch, d, n_gates)), (0, 2, 1, 3))  # (T, D, B, G)
    carried = [reshape(graph, state, (d * batch, state.shape[2])) for state in states]
    if time == 1:
        carried = layer.step(graph, reshape(graph, gates, (d * batch, n_gates)), carried)
        outputs = reshape(graph, carried[0], (1, d, batch, width))
    else:
        loops = _Loops(layer=layer, time=time, batch=batch, n_gates=n_gates, lengths=lengths)
        start = loops.start(graph, reshape(graph, gates, (time * d, batch * n_gates)), carried)
        outputs, carried = loops.collect(graph, start) if needs_outputs else (x, loops.steps(graph, start).states)
    if needs_outputs:
        outputs = reshape(graph, transpose(graph, outputs, (2, 0, 1, 3)), (batch, time, d * width))
    final = [reshape(graph, state, (d, batch, state.shape[1])) for state in carried]
    return (outputs if needs_outputs else x), final


@dataclass(frozen=True, kw_only=True)
class _Carried:
    """What the loops of a layer carry."""

    step: Value  # (1,)
    rows: Value  # (D,) of the gates, for this step
    limit: Value  # (1,): the loop ends before this step
    gates: Value  # (T*D, B*G)
    # Where the next output goes (1,), and outputs so far (steps * D*B*H,); empty: unwanted.
    collected: tuple[Value, ...]
    states: list[Value]  # each (D*B, H)

    def values(self) -> list[Value]:
        """Everything in order."""
        return [self.step, self.rows, self.limit, self.gates, *self.collected, *self.states]

    def like(self, values: Sequence[Value]) -> Self:
        """The same from values in that order."""
        step, rows, limit, gates, *others = values
        n = len(self.collected)
        collected, states = tuple(others[:n]), others[n:]
        return replace(self, step=step, rows=rows, limit=limit, gates=gates, collected=collected, states=states)


@dataclass(frozen=True, kw_only=True)
class _Loops:
    """The loops of one layer."""

    layer: Layer
    time: Size
    batch: int
    n_gates: int
    lengths: Value | None

    @property
    def size(self) -> int:
        """Numbers that one step puts out: D*B*H."""
        return self.layer.directions * self.batch * self.layer.width

    def start(self, graph: Graph, gates: Value, states: list[Value]) -> _Carried:
        """Before the first step."""
        zero = constant([0], INT32)
        time = _emit.size_value(graph, self.time) if self.lengths is None else self.lengths
        limit = reshape(graph, time, (1,))
        rows = reshape(graph, self.rows(graph, zero, limit), (self.layer.directions,))
        return _Carried(step=zero, rows=rows, limit=limit, gates=gates, collected=(), states=states)

    def rows(self, graph: Graph, steps: Value, limit: Value) -> Value:
        """Steps (n,) -> their rows (n, D). Backwards begins at the last valid step; invalid ones stay in place.

        The mapping is its own inverse: it also tells which step's row holds the output of a point in time.
        """
        two, one = constant(2, INT32), constant(1, INT32)
        if self.layer.directions == 1:
            return reshape(graph, steps, (*steps.shape, 1))
        backward = binary(graph, "SUB", binary(graph, "SUB", limit, one), steps)
        if self.lengths is not None:
            inputs = [binary(graph, "LESS", steps, limit), backward, steps]
            backward = graph.op("SELECT_V2", inputs, steps.shape, INT32, options("SelectV2Options"))
        pair = [binary(graph, "MUL", steps, two), binary(graph, "ADD", binary(graph, "MUL", backward, two), one)]
        return graph.op("PACK", pair, (*steps.shape, 2), INT32, options("PackOptions", valuesCount=2, axis=1))

    def collect(self, graph: Graph, start: _Carried) -> tuple[Value, list[Value]]:
        """Outputs (T, D, B, H) in the order of time, and the states after all steps."""
        d = self.layer.directions
        room = self._room(graph, start.gates, BLOCKS[0])
        end = self._by_blocks(graph, BLOCKS, replace(start, collected=(constant([0], INT32), room)))
        by_step = reshape(graph, end.collected[1], ((self.time + BLOCKS[0]) * d, self.size // d))
        ordered = gather(graph, by_step, self.rows(graph, _emit.steps(graph, self.time), start.limit))
        return reshape(graph, ordered, (self.time, d, self.batch, self.layer.width)), end.states

    def _by_blocks(self, graph: Graph, blocks: Sequence[int], start: _Carried) -> _Carried:
        """A loop whose rounds run blocks[0] steps each, by loops of their own over smaller blocks."""
        if not blocks:
            return self.steps(graph, start)
        length = blocks[0]

        def run_block(body: Graph, carried: list[Value]) -> list[Value]:
            at = start.like(carried)
            end = binary(body, "MINIMUM", binary(body, "ADD", at.step, constant([length], INT32)), at.limit)
            empty = _emit.fill_at_run_time(body, (length * self.size,), constant(0.0))
            inner = replace(at, limit=end, collected=(constant([0], INT32), empty))
            after = self._by_blocks(body, blocks[1:], inner)
            collected = self._write(body, at, after.collected[1])
            return replace(after, limit=at.limit, gates=at.gates, collected=collected).values()

        return start.like(while_loop(graph, f"blocks_of_{length}", _below_limit, run_block, start.values()))

    def steps(self, graph: Graph, start: _Carried) -> _Carried:
        """All steps up to the limit, one a round."""
        d = self.layer.directions
        ahead = np.array([1] if d == 1 else [2, -2])  # rows from one step to the next

        def run_step(body: Graph, carried: list[Value]) -> list[Value]:
            at = start.like(carried)
            gates = reshape(body, gather(body, at.gates, at.rows), (d * self.batch, self.n_gates))
            states = self.layer.step(body, gates, at.states)
            step = binary(body, "ADD", at.step, constant([1], INT32))
            rows = step if d == 1 else binary(body, "ADD", at.rows, constant(ahead))
            collected = self._write(body, at, states[0]) if at.collected else ()
            return replace(at, step=step, rows=rows, collected=collected, states=states).values()

        return start.like(while_loop(graph, "steps", _below_limit, run_step, start.values()))

    def _write(self, graph: Graph, at: _Carried, part: Value) -> tuple[Value, Value]:
        """The outputs with those of further steps (any shape), and where the next ones go."""
        place, outputs = at.collected
        count = int(np.prod([int(size) for size in part.shape]))
        inputs = [outputs, reshape(graph, part, (count,)), place]
        settings = options("DynamicUpdateSliceOptions")
        outputs = graph.op("DYNAMIC_UPDATE_SLICE", inputs, outputs.shape, FLOAT32, settings)
        return binary(graph, "ADD", place, constant([count], INT32)), outputs

    def _room(self, graph: Graph, gates: Value, block: int) -> Value:
        """Zeros for the outputs of all steps and one block more, of a shape that follows from the gates'."""
        count = self.time * self.layer.directions
        like = _emit.slice_axis(graph, gates, 1, 0, self.batch * self.layer.width)
        zeros = unary(graph, "ZEROS_LIKE", like, options("ZerosLikeOptions"))
        more = constant([(0, block * self.layer.directions), (0, 0)], INT32)
        shape = (count + block * self.layer.directions, like.shape[1])
        room = graph.op("PAD", [zeros, more], shape, options=options("PadOptions"))
        return reshape(graph, room, ((self.time + block) * self.size,))


def _below_limit(cond: Graph, carried: list[Value]) -> Value:
    return binary(cond, "LESS", carried[0], carried[2])
