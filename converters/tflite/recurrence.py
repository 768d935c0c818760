"""A recurrent layer as WHILE loops, whatever its gates: `lstm.py` and others say what one step computes.

The input half of all gates is one matrix product outside the loops. Both directions of a layer run in one loop, as rows
of the same tensors, so that a step costs few operators; states are carried from step to step and start as given.

What a round of a WHILE changes is copied twice, what its body hands back untouched is not. Outputs of all steps therefore
grow in inner loops over short blocks first: in one loop they would cost O(T²). A round runs several steps where the
recurrent weights are small: XNNPACK packs them once for every step that it sees, so that large ones would leave the
processor's cache. Counters are vectors of one element, which GATHER and DYNAMIC_UPDATE_SLICE take as they are.

Letters: T time, B batch, D directions (1 or 2), H hidden width, G numbers that a step's gates need of its input.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from edgeseq.converters.tflite import _emit
from edgeseq.converters.tflite._emit import binary, gather, reshape, split, transpose, unary
from edgeseq.converters.tflite._graph import FLOAT32, INT32, Graph, Size, Value, constant, options
from edgeseq.converters.tflite._loop import while_loop
from edgeseq.converters.tflite.matmul import fully_connected

UNROLLED = 4  # steps a round of the innermost loop, where it runs several: XNNPACK splits into no more parts
MOST_UNROLLED = 2**19  # numbers in all copies of the recurrent weights: in int8, half of a usual second-level cache
BLOCKS = (64, 16)  # steps a round of the outer loops
BLOCKS_IF_UNROLLED = (32,)

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
    n_recurrent: int  # numbers in the weights that every step reads


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
    collected: tuple[
        Value, ...
    ]  # where the next output goes (1,), and outputs so far (steps * D*B*H,); empty: unwanted
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

    @property
    def rounds(self) -> tuple[int, ...]:
        """Steps a round of the innermost loops, which run one after the other: several while they last, then one."""
        return (UNROLLED, 1) if UNROLLED * self.layer.n_recurrent <= MOST_UNROLLED else (1,)

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
        blocks = BLOCKS if self.rounds == (1,) else BLOCKS_IF_UNROLLED
        room = self._room(graph, start.gates, blocks[0])
        end = self._by_blocks(graph, blocks, replace(start, collected=(constant([0], INT32), room)))
        by_step = reshape(graph, end.collected[1], ((self.time + blocks[0]) * d, self.size // d))
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
        """All steps up to the limit."""
        at = start
        for count in self.rounds:
            last = at.limit if count == 1 else binary(graph, "SUB", at.limit, constant([count - 1], INT32))
            body = self._round(at, count)
            values = replace(at, limit=last).values()
            at = replace(
                at.like(while_loop(graph, f"{count}_steps", _below_limit, body, values)),
                limit=start.limit,
                gates=start.gates,
            )
        return at

    def _round(self, start: _Carried, count: int) -> Callable[[Graph, list[Value]], list[Value]]:
        """The body of a loop of which each round runs that many steps."""
        d = self.layer.directions
        slopes = np.array([1] if d == 1 else [2, -2])  # rows from one step to the next

        def run(body: Graph, carried: list[Value]) -> list[Value]:
            at = start.like(carried)
            states, outputs = at.states, list[Value]()
            rows = at.rows if count == 1 else binary(body, "ADD", at.rows, constant(np.arange(count)[:, None] * slopes))
            gates = reshape(body, gather(body, at.gates, rows), (count, d * self.batch * self.n_gates))
            for part in split(body, gates, 0, count):
                mine = reshape(body, part, (d * self.batch, self.n_gates))
                states = self.layer.step(body, mine, states)
                outputs.append(states[0])
            step = binary(body, "ADD", at.step, constant([count], INT32))
            rows = step if d == 1 else binary(body, "ADD", at.rows, constant(count * slopes))
            collected = self._write(body, at, _emit.concatenate(body, outputs, 0)) if at.collected else ()
            return replace(at, step=step, rows=rows, collected=collected, states=states).values()

        return run

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
