"""Two layers one upon another in one loop: while the first computes a step, the second computes the step before it.

A round of the loop so serves both layers, and what the first puts out is read in the next round instead of being collected.
That pays as long as all weights of a round stay in a processor's second cache: the second layer's input product, elsewhere
one product of all steps, runs step by step here. 2×128 in int8 takes 0.6 of the time of one loop a layer, 2×512 1.7 of it.

Letters: T time, I input width, P output width, G gates' width. The batch is 1; row 0 is the first layer, row 1 the second.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeseq.converters.tflite._emit import binary, concatenate, reshape, slice_axis
from edgeseq.converters.tflite._graph import INT32, Graph, Value, constant, options
from edgeseq.converters.tflite._layer import Layer, array, is_zero
from edgeseq.converters.tflite._loops import Loops
from edgeseq.converters.tflite.matmul import fully_connected

MOST_WEIGHTS = 1 << 20  # bytes in float32


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two layers of one kind and width, alone and as the rows of one."""

    first: Layer
    second: Layer
    both: Layer

    def pays(self) -> bool:
        """Whether all weights of a round are few enough."""
        held = [*self.both.recurrent, *self.second.inputs]
        return sum(array(weight).nbytes for weight in held) <= MOST_WEIGHTS

    def run(
        self, graph: Graph, x: Value, states: Sequence[Value], lengths: Value | None, *, needs_outputs: bool
    ) -> tuple[Value, list[Value]]:
        """X (1, T, I), states, each (2, 1, its width) -> y (1, T, P), states. Without need, y is x.

        Steps from the length on change no state, and their outputs are zero.
        """
        gates = fully_connected(graph, reshape(graph, x, x.shape[1:]), self.first.inputs[0], self.first.biases[0])
        before = [reshape(graph, state, (2, state.shape[2])) for state in states]
        ahead, behind = ([slice_axis(graph, state, 0, row, 1) for state in before] for row in (0, 1))
        ahead = self.first.step(graph, slice_axis(graph, gates, 0, 0, 1), ahead)
        if x.shape[1] == 1:  # the loop's products without a loop: signatures of one step and of many share weights
            behind = self._follow(graph, _upon(graph, ahead[0], behind[0]), behind)
            x = reshape(graph, behind[0], (1, 1, self.both.width)) if needs_outputs else x
            return x, self._final(graph, ahead, behind)
        loops = Loops(run_round=self._round, directions=1, size=self.both.width, time=x.shape[1], lengths=lengths)
        start = loops.start(graph, gates, _rows(graph, ahead, behind), first=1)
        end = loops.collect(graph, start) if needs_outputs else loops.steps(graph, start)
        ahead, behind = ([slice_axis(graph, state, 0, row, 1) for state in end.states] for row in (0, 1))
        behind = self._follow(graph, end.states[0], behind)
        if needs_outputs:
            outputs = loops.in_order(graph, loops.write_last(graph, end, behind[0]))
            x = reshape(graph, outputs, (1, x.shape[1], self.both.width))
        return x, self._final(graph, ahead, behind)

    def _final(self, graph: Graph, ahead: Sequence[Value], behind: Sequence[Value]) -> list[Value]:
        """The states after all steps, each (2, 1, its width)."""
        return [reshape(graph, state, (2, 1, state.shape[1])) for state in _rows(graph, ahead, behind)]

    def _round(self, graph: Graph, gates: Value, states: list[Value]) -> tuple[list[Value], Value]:
        """The first layer's gates (1, G) of a step, states, each (2, its width) -> new states; what the second puts out."""
        h = states[0]
        if self.both.takes_sum:
            product = fully_connected(graph, slice_axis(graph, h, 0, 0, 1), self.first.recurrent[0], None)
            sums = [binary(graph, "ADD", product, gates), self._second_sum(graph, h)]
            after = self.both.cell(graph, [concatenate(graph, sums, 0)], states)
        else:
            after = self.both.step(graph, concatenate(graph, [gates, self._second_input(graph, h)], 0), states)
        return after, slice_axis(graph, after[0], 0, 1, 1)

    def _follow(self, graph: Graph, h: Value, behind: list[Value]) -> list[Value]:
        """The second layer's states after its last step, which reads h (2, P)."""
        if self.both.takes_sum:
            return self.second.cell(graph, [self._second_sum(graph, h)], behind)
        return self.second.step(graph, self._second_input(graph, h), behind)

    def _second_sum(self, graph: Graph, h: Value) -> Value:
        """Both products of the second layer as one: h (2, P) -> (1, G)."""
        inputs, recurrent = self.second.inputs[0], self.second.recurrent[0]
        weight = constant(np.concatenate([array(inputs), array(recurrent)], axis=1), name=inputs.name)
        return fully_connected(graph, reshape(graph, h, (1, 2 * self.both.width)), weight, self.second.biases[0])

    def _second_input(self, graph: Graph, h: Value) -> Value:
        """The second layer's input product: h (2, P) -> (1, G)."""
        return fully_connected(graph, slice_axis(graph, h, 0, 0, 1), self.second.inputs[0], self.second.biases[0])


def _rows(graph: Graph, ahead: Sequence[Value], behind: Sequence[Value]) -> list[Value]:
    """Each state of both layers, (1, its width) -> (2, its width)."""
    return [_upon(graph, *parts) for parts in zip(ahead, behind, strict=True)]


def _upon(graph: Graph, ahead: Value, behind: Value) -> Value:
    """Two rows as one value; zeros take no room in the file."""
    if not is_zero(behind):
        return concatenate(graph, [ahead, behind], 0)
    borders = constant([(0, 1), (0, 0)], INT32)
    return graph.op("PAD", [ahead, borders], (2, ahead.shape[1]), options=options("PadOptions"))
