"""The WHILE loops over the steps of a recurrent layer, with or without its outputs.

What a round of a WHILE changes is copied, what its body hands back untouched is not. Outputs of all steps therefore grow in
inner loops over short blocks first: in one loop they would cost O(T²). A round of the innermost loop runs one step: XNNPACK
packs the recurrent weights once for every step that it sees, and they no longer fit a processor's second cache. Counters
are vectors of one element, which GATHER and DYNAMIC_UPDATE_SLICE take as they are.

Letters: T time, B batch, D directions (1 or 2), N numbers that a step puts out, G numbers that it needs of its input.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from edgeseq.converters.tflite import _emit, _filled
from edgeseq.converters.tflite._emit import binary, gather, reshape, unary
from edgeseq.converters.tflite._graph import FLOAT32, INT32, Graph, Size, Value, constant, options
from edgeseq.converters.tflite._loop import while_loop

BLOCKS = (64, 16)  # steps a round of the outer loops

Round = Callable[[Graph, Value, list[Value]], tuple[list[Value], Value]]
"""A step's row or rows of the gates (D, G), states -> new states, and what it puts out (N numbers)."""


@dataclass(frozen=True, kw_only=True)
class Carried:
    """What the loops of a layer carry."""

    step: Value  # (1,)
    rows: Value  # (D,) of the gates, for this step
    limit: Value  # (1,): the loop ends before this step
    gates: Value  # (T*D, G)
    # Where the next output goes (1,), and outputs so far (steps * N,); empty: unwanted.
    collected: tuple[Value, ...]
    states: list[Value]

    def values(self) -> list[Value]:
        """Everything in order, the step once."""
        rows = [] if self.rows is self.step else [self.rows]
        return [self.step, self.limit, self.gates, *rows, *self.collected, *self.states]

    def like(self, values: Sequence[Value]) -> Self:
        """The same from values in that order."""
        step, limit, gates, *others = values
        rows = step if self.rows is self.step else others.pop(0)
        n = len(self.collected)
        collected, states = tuple(others[:n]), others[n:]
        return replace(self, step=step, rows=rows, limit=limit, gates=gates, collected=collected, states=states)


@dataclass(frozen=True, kw_only=True)
class Loops:
    """The loops of one layer, or of two that run side by side."""

    run_round: Round
    directions: int
    size: int  # N
    time: Size
    lengths: Value | None  # (1,): steps from there on are not run

    def start(self, graph: Graph, gates: Value, states: list[Value], first: int = 0) -> Carried:
        """Before the first step."""
        step = constant([first], INT32)
        time = _emit.size_value(graph, self.time) if self.lengths is None else self.lengths
        limit = reshape(graph, time, (1,))
        rows = step if self.directions == 1 else reshape(graph, self.rows(graph, step, limit), (self.directions,))
        return Carried(step=step, rows=rows, limit=limit, gates=gates, collected=(), states=states)

    def rows(self, graph: Graph, steps: Value, limit: Value) -> Value:
        """Steps (n,) -> their rows (n, D). Backwards begins at the last valid step; invalid ones stay in place.

        The mapping is its own inverse: it also tells which step's row holds the output of a point in time.
        """
        two, one = constant(2, INT32), constant(1, INT32)
        if self.directions == 1:
            return reshape(graph, steps, (*steps.shape, 1))
        backward = binary(graph, "SUB", binary(graph, "SUB", limit, one), steps)
        if self.lengths is not None:
            inputs = [binary(graph, "LESS", steps, limit), backward, steps]
            backward = graph.op("SELECT_V2", inputs, steps.shape, INT32, options("SelectV2Options"))
        pair = [binary(graph, "MUL", steps, two), binary(graph, "ADD", binary(graph, "MUL", backward, two), one)]
        return graph.op("PACK", pair, (*steps.shape, 2), INT32, options("PackOptions", valuesCount=2, axis=1))

    def collect(self, graph: Graph, start: Carried) -> Carried:
        """After all steps, their outputs collected one after another."""
        return self._by_blocks(
            graph, BLOCKS, replace(start, collected=(constant([0], INT32), self._room(graph, start)))
        )

    def in_order(self, graph: Graph, end: Carried) -> Value:
        """What was collected, in the order of time: (T, D, N/D)."""
        rows, width = (self.time + BLOCKS[0]) * self.directions, self.size // self.directions
        by_step = reshape(graph, end.collected[1], (rows, width))
        return gather(graph, by_step, self.rows(graph, _filled.steps(graph, self.time), end.limit))

    def _by_blocks(self, graph: Graph, blocks: Sequence[int], start: Carried) -> Carried:
        """A loop whose rounds run blocks[0] steps each, by loops of their own over smaller blocks."""
        if not blocks:
            return self.steps(graph, start)
        length = blocks[0]

        def run_block(body: Graph, carried: list[Value]) -> list[Value]:
            at = start.like(carried)
            end = binary(body, "MINIMUM", binary(body, "ADD", at.step, constant([length], INT32)), at.limit)
            empty = _filled.fill_at_run_time(body, (length * self.size,), constant(0.0))
            inner = replace(at, limit=end, collected=(constant([0], INT32), empty))
            after = self._by_blocks(body, blocks[1:], inner)
            collected = self.write(body, at, after.collected[1])
            return replace(after, limit=at.limit, gates=at.gates, collected=collected).values()

        return start.like(while_loop(graph, f"blocks_of_{length}", _below_limit, run_block, start.values()))

    def steps(self, graph: Graph, start: Carried) -> Carried:
        """All steps up to the limit, one a round."""
        ahead = constant([2, -2], INT32)  # rows from one step of two directions to the next

        def run_step(body: Graph, carried: list[Value]) -> list[Value]:
            at = start.like(carried)
            states, output = self.run_round(body, gather(body, at.gates, at.rows), at.states)
            step = binary(body, "ADD", at.step, constant([1], INT32))
            rows = step if self.directions == 1 else binary(body, "ADD", at.rows, ahead)
            collected = self.write(body, at, output) if at.collected else ()
            return replace(at, step=step, rows=rows, collected=collected, states=states).values()

        return start.like(while_loop(graph, "steps", _below_limit, run_step, start.values()))

    def write(self, graph: Graph, at: Carried, part: Value) -> tuple[Value, Value]:
        """The outputs with those of further steps (any shape), and where the next ones go."""
        place, outputs = at.collected
        count = int(np.prod([int(size) for size in part.shape]))
        inputs = [outputs, reshape(graph, part, (count,)), place]
        settings = options("DynamicUpdateSliceOptions")
        outputs = graph.op("DYNAMIC_UPDATE_SLICE", inputs, outputs.shape, FLOAT32, settings)
        return binary(graph, "ADD", place, constant([count], INT32)), outputs

    def write_last(self, graph: Graph, end: Carried, part: Value) -> Carried:
        """The output of a step after the loops, behind those of all steps but one."""
        steps = binary(graph, "SUB", end.limit, constant([1], INT32))
        place = binary(graph, "MUL", steps, constant([self.size], INT32))
        return replace(end, collected=self.write(graph, replace(end, collected=(place, end.collected[1])), part))

    def _room(self, graph: Graph, start: Carried) -> Value:
        """Zeros for the outputs of all steps and one block more, of a shape that follows from the gates'."""
        rows, more = self.time * self.directions, BLOCKS[0] * self.directions
        like = _emit.slice_axis(graph, start.gates, 1, 0, self.size // self.directions)
        zeros = unary(graph, "ZEROS_LIKE", like, options("ZerosLikeOptions"))
        borders = constant([(0, more), (0, 0)], INT32)
        room = graph.op("PAD", [zeros, borders], (rows + more, like.shape[1]), options=options("PadOptions"))
        return reshape(graph, room, ((self.time + BLOCKS[0]) * self.size,))


def _below_limit(cond: Graph, carried: list[Value]) -> Value:
    return binary(cond, "LESS", carried[0], carried[1])
