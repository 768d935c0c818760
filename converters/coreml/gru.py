"""`edgeseq::gru` in MIL: one `gru` op per layer and direction, or a loop where that op computes another form.

MIL's `gru` multiplies by r before the recurrent product: coremltools' own tests on Core ML expect R (r * h), whatever its
documentation says, and its torch front end writes a loop for `nn.GRU`. From iOS 18 on `reset_after` makes it torch's.

Letters: B batch, T time, D directions (1 or 2), H hidden width, I input width, L layers.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.frontend.torch import ops as torch_ops
from coremltools.converters.mil.mil import Var
from coremltools.converters.mil.mil.block import is_current_opset_version_compatible_with

from edgeseq.converters.coreml import _recurrence
from edgeseq.converters.coreml._recurrence import Result, initial


def lower(context: Any, node: Any) -> None:
    """Translate one `edgeseq::gru` node; the signature and its meaning are in edgeseq/operators/gru.py."""
    inputs = torch_ops._get_inputs(context, node, min_expected=6)
    x, h0, lengths, weights, num_layers, bidirectional, *reset_after = inputs
    x = _recurrence.time_first(x)
    padding = _recurrence.padding_of(x, lengths)
    run = _run(reset_after=not reset_after or bool(reset_after[0].val))

    def layer(x: Var, rows: Sequence[int]) -> Result:
        runs = [
            partial(run, h=initial(x, h0, row), weights=[w.val for w in weights[4 * row : 4 * row + 4]]) for row in rows
        ]
        return _recurrence.run_directions(x, runs, padding)

    _recurrence.lower_layers(context, node, layer, x, num_layers.val, 2 if bidirectional.val else 1)


def _run(*, reset_after: bool) -> Callable[..., tuple[Var, Var]]:
    """What computes a direction: x (T, B, I), h (B, H), weights -> y (T, B, H), h (B, H)."""
    if not reset_after:
        return _fused_reset_before
    return _fused_reset_after if is_current_opset_version_compatible_with(ct.target.iOS18) else _loop


def _fused_reset_before(x: Var, h: Var, weights: Sequence[np.ndarray]) -> tuple[Var, Var]:
    w_ih, w_hh, b_ih, b_hh = (_roz(weight) for weight in weights)
    y, h = mb.gru(x=x, initial_h=h, weight_ih=w_ih, weight_hh=w_hh, bias=b_ih + b_hh, output_sequence=True)
    return y, h


def _fused_reset_after(x: Var, h: Var, weights: Sequence[np.ndarray]) -> tuple[Var, Var]:
    w_ih, w_hh, b_ih, b_hh = (_roz(weight) for weight in weights)
    y, h = mb.gru(
        x=x,
        initial_h=h,
        weight_ih=w_ih,
        weight_hh=w_hh,
        input_bias=b_ih,
        bias=b_hh,
        reset_after=True,
        output_sequence=True,
    )
    return y, h


def _loop(x: Var, h: Var, weights: Sequence[np.ndarray]) -> tuple[Var, Var]:
    """The input half of all steps is one product; a round of the loop is a step."""
    w_ih, w_hh, b_ih, b_hh = weights
    width = w_hh.shape[1]
    gates = mb.linear(x=x, weight=w_ih, bias=b_ih)  # (T, B, 3H)
    sizes = mb.slice_by_size(x=mb.shape(x=x), begin=[0], size=[2])
    y = mb.fill(shape=mb.concat(values=[sizes, [width]], axis=0), value=np.float32(0))  # (T, B, H)
    total = mb.slice_by_size(x=sizes, begin=[0], size=[1])  # (1,)
    recurrent = mb.const(val=w_hh)  # outside the loop's block, where schemes look for weights

    def is_within(t: Var, h: Var, y: Var) -> Var:
        del h, y
        return mb.squeeze(x=mb.less(x=t, y=total))

    def step(t: Var, h: Var, y: Var) -> tuple[Var, Var, Var]:
        from_input = mb.squeeze(x=mb.gather(x=gates, indices=t, axis=0), axes=[0])  # (B, 3H)
        h = _next(h, from_input, mb.linear(x=h, weight=recurrent, bias=b_hh))
        y = mb.scatter(data=y, indices=t, updates=mb.expand_dims(x=h, axes=[0]), axis=0, mode="update")
        return mb.add(x=t, y=np.int32(1)), h, y

    _, h, y = mb.while_loop(_cond=is_within, _body=step, loop_vars=(np.array([0], np.int32), h, y))
    return y, h


def _next(h: Var, from_input: Var, from_output: Var) -> Var:
    """Both products (B, 3H), gates in torch's order r, z, n -> the next h (B, H)."""
    r_x, z_x, n_x = mb.split(x=from_input, num_splits=3, axis=1)
    r_h, z_h, n_h = mb.split(x=from_output, num_splits=3, axis=1)
    r, z = mb.sigmoid(x=mb.add(x=r_x, y=r_h)), mb.sigmoid(x=mb.add(x=z_x, y=z_h))
    n = mb.tanh(x=mb.add(x=n_x, y=mb.mul(x=r, y=n_h)))
    return mb.add(x=n, y=mb.mul(x=z, y=mb.sub(x=h, y=n)))


def _roz(weight: np.ndarray) -> np.ndarray:
    """The gates along the first axis from torch's order r, z, n to MIL's r, o, z; its o is torch's n."""
    r, z, n = np.split(weight, 3)
    return np.concatenate([r, n, z])


LOWERING = lower
