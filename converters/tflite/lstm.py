"""`edgeseq::lstm` as two nested WHILE loops around one recurrent FULLY_CONNECTED a direction and step.

The input half of all gates is one matrix product outside the loops. Both directions of a layer run in one loop, as rows
of the same tensors, so that a step costs few operators. A round of a WHILE copies what the loop changes; what the body
hands back untouched is not copied. The outputs of all steps therefore grow in an inner loop over a short block first;
collecting them in one loop costs O(T²): 63 µs instead of 17 µs a step (T = 512, H = 128, both directions, int8). Longer
blocks copy more in the inner loop, shorter ones in the outer.

Letters: T time, B batch, D directions (1 or 2), H hidden width, W = 4H gates, N blocks, S steps a block.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sympy

from edgeseq.converters.tflite import _emit
from edgeseq.converters.tflite._emit import binary, gather, reshape, split, transpose, unary
from edgeseq.converters.tflite._graph import FLOAT32, INT32, Graph, Size, Value, constant, options
from edgeseq.converters.tflite._loop import while_loop
from edgeseq.converters.tflite._site import Site
from edgeseq.converters.tflite.matmul import fully_connected
from edgeseq.errors import UnsupportedError

BLOCK = 16  # S: the best of 8, 16 and 32 at T = 16 to 512 and H = 128 and 512


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """One layer's constants, its gates in the order i, f, o, g so that one LOGISTIC covers three of them."""

    input_weight: Value  # (D*W, I)
    bias: Value  # (D*W,)
    recurrent: tuple[Value, ...]  # D times (W, H)

    @property
    def directions(self) -> int:
        return len(self.recurrent)

    @property
    def width(self) -> int:
        assert self.recurrent[0].data is not None
        return int(self.recurrent[0].data.shape[1])


def lstm(
    site: Site,
    x: Value,
    h0: Value,
    c0: Value,
    lengths: Value | None,
    weights: Sequence[Value],
    num_layers: int,
    bidirectional: bool,
) -> list[Value]:
    """X (B, T, I), h0 and c0 (L*D, B, H) -> y (B, T, D*H), hn, cn (L*D, B, H)."""
    graph, d = site.graph, 2 if bidirectional else 1
    if lengths is not None and x.shape[0] != 1:
        raise UnsupportedError(
            f"converter 'tflite' lowers an LSTM with lengths for a batch of 1 only, not of {x.shape[0]}; make the "
            "batch a dynamic dimension: the file then holds a batch of 1"
        )
    hidden, cells = [], []
    for number in range(num_layers):
        layer = _layer(weights[4 * d * number : 4 * d * (number + 1)])
        h, c = (_emit.slice_axis(graph, state, 0, d * number, d) for state in (h0, c0))
        needs_outputs = number < num_layers - 1 or site.is_used[0]
        x, h, c = _run_layer(graph, layer, x, h, c, lengths, needs_outputs=needs_outputs)
        hidden.append(h)
        cells.append(c)
    return [x, _emit.concatenate(graph, hidden, 0), _emit.concatenate(graph, cells, 0)]


def _layer(weights: Sequence[Value]) -> _Layer:
    """w_ih, w_hh, b_ih, b_hh of each direction -> the layer's constants."""
    arrays = [value.data for value in weights if value.data is not None]
    if len(arrays) != len(weights):
        raise UnsupportedError(
            "converter 'tflite' lowers an LSTM with constant weights only; these are computed from inputs"
        )
    width = arrays[1].shape[1]
    order = np.r_[0 : 2 * width, 3 * width : 4 * width, 2 * width : 3 * width]
    inputs = np.concatenate([array[order] for array in arrays[0::4]])
    bias = np.concatenate([(b_ih + b_hh)[order] for b_ih, b_hh in zip(arrays[2::4], arrays[3::4], strict=True)])
    return _Layer(
        input_weight=constant(inputs, name=weights[0].name),
        bias=constant(bias, name=weights[2].name),
        recurrent=tuple(
            constant(array[order], name=value.name) for array, value in zip(arrays[1::4], weights[1::4], strict=True)
        ),
    )


def _run_layer(
    graph: Graph, layer: _Layer, x: Value, h: Value, c: Value, lengths: Value | None, *, needs_outputs: bool
) -> tuple[Value, Value, Value]:
    """X (B, T, I), h and c (D, B, H) -> y (B, T, D*H), h, c. Without need, y is x."""
    d, width = layer.directions, layer.width
    batch, time = x.shape[0], x.shape[1]
    assert isinstance(batch, int), "the file's batch is fixed"
    gates = fully_connected(graph, transpose(graph, x, (1, 0, 2)), layer.input_weight, layer.bias)  # (T, B, D*W)
    gates = transpose(graph, reshape(graph, gates, (time, batch, d, 4 * width)), (0, 2, 1, 3))  # (T, D, B, W)
    h, c = (reshape(graph, state, (d * batch, width)) for state in (h, c))
    if time == 1:
        h, c = _step(graph, layer, reshape(graph, gates, (d * batch, 4 * width)), h, c)
        y = reshape(graph, h, (1, d, batch, width))
    else:
        plan = _Plan(graph=graph, time=time, directions=d, lengths=lengths)
        rows = reshape(graph, gates, (time * d, batch * 4 * width))
        outputs, h, c = _collect(plan, layer, rows, h, c) if needs_outputs else _fold(plan, layer, rows, h, c)
        y = reshape(graph, outputs, (time, d, batch, width)) if needs_outputs else x
    if needs_outputs:
        y = reshape(graph, transpose(graph, y, (2, 0, 1, 3)), (batch, time, d * width))
    h, c = (reshape(graph, state, (d, batch, width)) for state in (h, c))
    return y, h, c


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Which rows of (T*D) a step reads and, since that mapping is its own inverse, where time's outputs are."""

    graph: Graph
    time: Size
    directions: int
    lengths: Value | None

    def limit(self) -> Value:
        """How many steps there are: T, or the row's length."""
        return (
            _emit.size_value(self.graph, self.time) if self.lengths is None else reshape(self.graph, self.lengths, ())
        )

    def blocks(self) -> Value:
        """The first step of every block, (N,)."""
        if isinstance(self.time, int):
            return constant(np.arange(0, self.time, BLOCK, dtype=np.int32))
        bounds = [constant(0, INT32), _emit.size_value(self.graph, self.time), constant(BLOCK, INT32)]
        return self.graph.op("RANGE", bounds, (sympy.ceiling(self.time / BLOCK),), INT32, options("RangeOptions"))

    def blocked_steps(self) -> Value:
        """Steps by block, (N, S). Those beyond T are never run; they read the last row."""
        blocks = self.blocks()
        own = constant(np.arange(BLOCK, dtype=np.int32)[None])
        positions = binary(self.graph, "ADD", reshape(self.graph, blocks, (*blocks.shape, 1)), own)
        last = binary(self.graph, "SUB", _emit.size_value(self.graph, self.time), constant(1, INT32))
        return binary(self.graph, "MINIMUM", positions, last)

    def rows(self, positions: Value) -> Value:
        """Steps (...) -> row numbers (..., D). Backwards starts at the last valid step; invalid ones stay in place."""
        if self.directions == 1:
            return positions
        graph, two, one = self.graph, constant(2, INT32), constant(1, INT32)
        limit = self.limit()
        backward = binary(graph, "SUB", binary(graph, "SUB", limit, one), positions)
        if self.lengths is not None:
            is_valid = binary(graph, "LESS", positions, limit)
            inputs = [is_valid, backward, positions]
            backward = graph.op("SELECT_V2", inputs, positions.shape, INT32, options("SelectV2Options"))
        pair = [binary(graph, "MUL", positions, two), binary(graph, "ADD", binary(graph, "MUL", backward, two), one)]
        settings = options("PackOptions", valuesCount=2, axis=positions.rank)
        return graph.op("PACK", pair, (*positions.shape, 2), INT32, settings)


def _collect(plan: _Plan, layer: _Layer, rows: Value, h: Value, c: Value) -> tuple[Value, Value, Value]:
    """Rows of gates (T*D, B*W), states (D*B, H) -> outputs (T*D, B*H) in the order of time, states. The outer loop."""
    graph, zero = plan.graph, constant(0, INT32)
    picked = gather(graph, rows, plan.rows(plan.blocked_steps()))  # (N, S, D, B*W)
    n_blocks, length = picked.shape[0], BLOCK * h.shape[0] * h.shape[1]
    gates = reshape(graph, picked, (n_blocks, 4 * length))
    outputs = _zeros(graph, plan.blocks(), length)

    def keep_going(cond: Graph, carried: list[Value]) -> Value:
        block, limit = carried[:2]
        return binary(cond, "LESS", binary(cond, "MUL", block, constant(BLOCK, INT32)), limit)

    def run_block(body: Graph, carried: list[Value]) -> list[Value]:
        block, limit, gates, outputs, h, c = carried
        mine = reshape(body, gather(body, gates, block), (BLOCK, h.shape[0] * h.shape[1] * 4))
        left = binary(body, "SUB", limit, binary(body, "MUL", block, constant(BLOCK, INT32)))
        left = binary(body, "MINIMUM", left, constant(BLOCK, INT32))
        empty = _emit.fill_at_run_time(body, (BLOCK, length // BLOCK), constant(0.0))
        collected, new_h, new_c = _steps(body, layer, mine, left, empty, h, c)
        outputs = _write_row(body, outputs, reshape(body, collected, (1, length)), block)
        return [binary(body, "ADD", block, constant(1, INT32)), limit, gates, outputs, new_h, new_c]

    results = while_loop(graph, "blocks", keep_going, run_block, [zero, plan.limit(), gates, outputs, h, c])
    by_step = reshape(graph, results[3], (n_blocks * BLOCK * layer.directions, length // BLOCK // layer.directions))
    in_time = plan.rows(_emit.steps(graph, plan.time))  # (T, D)
    return gather(graph, by_step, in_time), results[4], results[5]


def _steps(
    graph: Graph, layer: _Layer, gates: Value, limit: Value, outputs: Value, h: Value, c: Value
) -> tuple[Value, Value, Value]:
    """The inner loop: gates (S, D*B*W), outputs (S, D*B*H), of which `limit` rows are written, states."""

    def run_step(body: Graph, carried: list[Value]) -> list[Value]:
        step, limit, gates, outputs, h, c = carried
        mine = reshape(body, gather(body, gates, step), (h.shape[0], 4 * h.shape[1]))
        new_h, new_c = _step(body, layer, mine, h, c)
        outputs = _write_row(body, outputs, reshape(body, new_h, (1, outputs.shape[1])), step)
        return [binary(body, "ADD", step, constant(1, INT32)), limit, gates, outputs, new_h, new_c]

    results = while_loop(graph, "steps", _below_limit, run_step, [constant(0, INT32), limit, gates, outputs, h, c])
    return results[3], results[4], results[5]


def _fold(plan: _Plan, layer: _Layer, rows: Value, h: Value, c: Value) -> tuple[Value, Value, Value]:
    """The states after all steps, where nobody needs the outputs (h stands for them): one loop suffices."""
    graph = plan.graph
    gates = gather(graph, rows, plan.rows(_emit.steps(graph, plan.time)))
    gates = reshape(graph, gates, (plan.time, h.shape[0] * h.shape[1] * 4))

    def run_step(body: Graph, carried: list[Value]) -> list[Value]:
        step, limit, gates, h, c = carried
        new_h, new_c = _step(body, layer, reshape(body, gather(body, gates, step), (h.shape[0], 4 * h.shape[1])), h, c)
        return [binary(body, "ADD", step, constant(1, INT32)), limit, gates, new_h, new_c]

    results = while_loop(graph, "steps", _below_limit, run_step, [constant(0, INT32), plan.limit(), gates, h, c])
    return results[3], results[3], results[4]


def _step(graph: Graph, layer: _Layer, gates: Value, h: Value, c: Value) -> tuple[Value, Value]:
    """Input half of the gates (D*B, W), states (D*B, H) -> states."""
    d, width = layer.directions, layer.width
    products = [
        fully_connected(graph, part, w, None) for part, w in zip(split(graph, h, 0, d), layer.recurrent, strict=True)
    ]
    gates = binary(graph, "ADD", _emit.concatenate(graph, products, 0), gates)
    squashed = unary(graph, "LOGISTIC", _emit.slice_axis(graph, gates, 1, 0, 3 * width))
    i, f, o = split(graph, squashed, 1, 3)
    g = unary(graph, "TANH", _emit.slice_axis(graph, gates, 1, 3 * width, width))
    c = binary(graph, "ADD", binary(graph, "MUL", f, c), binary(graph, "MUL", i, g))
    return binary(graph, "MUL", o, unary(graph, "TANH", c)), c


def _below_limit(cond: Graph, carried: list[Value]) -> Value:
    return binary(cond, "LESS", carried[0], carried[1])


def _write_row(graph: Graph, rows: Value, row: Value, number: Value) -> Value:
    """A copy of `rows` with one row replaced."""
    start = graph.op("PACK", [number, constant(0, INT32)], (2,), INT32, options("PackOptions", valuesCount=2))
    return graph.op(
        "DYNAMIC_UPDATE_SLICE", [rows, row, start], rows.shape, FLOAT32, options("DynamicUpdateSliceOptions")
    )


def _zeros(graph: Graph, blocks: Value, width: Size) -> Value:
    """As many rows of zeros as there are blocks."""
    count = graph.op("SHAPE", [blocks], (1,), INT32, options("ShapeOptions", outType=2))
    shape = _emit.concatenate(graph, [count, constant([width], INT32)], 0)
    return graph.op("FILL", [shape, constant(0.0)], (blocks.shape[0], width), FLOAT32, options("FillOptions"))
