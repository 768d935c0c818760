"""What the lowerings of recurrent operators to MIL share: layers one after another, directions, rows that end early.

Letters: B batch, T time, D directions (1 or 2), H hidden width, I input width, L layers. MIL's own layout is (T, B, I).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Var

Run = Callable[[Var], tuple[Var, ...]]  # one direction, forwards: x (T, B, I) -> y (T, B, H) and final states (B, H)
Result = tuple[Var, list[tuple[Var, ...]]]  # y (T, B, D*H), and the final states of each direction


@dataclass(frozen=True, kw_only=True)
class Padding:
    """Where the rows of a padded batch end."""

    lengths: Var  # (B,)
    last: Var  # (1, B) each row's last valid step
    is_valid: Var  # (T, B, 1) of booleans


def time_first(x: Var) -> Var:
    """(B, T, I) -> (T, B, I)."""
    return mb.transpose(x=x, perm=[1, 0, 2])


def lower_layers(
    context: Any, node: Any, layer: Callable[[Var, Sequence[int]], Result], x: Var, num_layers: int, directions: int
) -> None:
    """Add what a node gives to the context: y (B, T, D*H) and the states (L*D, B, H) after all layers.

    `layer` takes x (T, B, I) and the rows that it has in the states (L*D, B, H).
    """
    states: list[tuple[Var, ...]] = []
    for first in range(0, num_layers * directions, directions):
        x, final = layer(x, range(first, first + directions))
        states += final
    y = mb.transpose(x=x, perm=[1, 0, 2], name=f"{node.name}_y")  # (T, B, D*H) -> (B, T, D*H)
    stacked = (mb.stack(values=list(state), axis=0) for state in zip(*states, strict=True))  # each (L*D, B, H)
    context.add((y, *stacked), torch_name=node.name)


def run_directions(x: Var, runs: Sequence[Run], padding: Padding | None) -> Result:
    """Every direction runs forwards, the second over the (valid) steps in reverse order.

    With padding the first state is the last valid output; a run sees to the other states itself.
    """
    outputs, states = [], []
    for offset, run in enumerate(runs):
        y, *final = run(x if offset == 0 else _reverse(x, padding))
        if padding is not None:
            final[0] = mb.squeeze(x=_gather_steps(y, padding.last), axes=[0])  # (1, B, H) -> (B, H)
        outputs.append(y if offset == 0 else _reverse(y, padding))
        states.append(tuple(final))
    y = outputs[0] if len(outputs) == 1 else mb.concat(values=outputs, axis=-1)
    return (y if padding is None else mb.select(cond=padding.is_valid, a=y, b=np.float32(0))), states


def initial(x: Var, state: Var, row: int) -> Var:
    """(L*D, B, H) -> (B, H) of one row; zeros that the model made itself are made anew, with no slicing."""
    return filled(x, state.shape[-1]) if is_zero(state) else mb.gather(x=state, indices=row, axis=0)


def is_zero(state: Var) -> bool:
    """Whether the model itself made the state, of zeros."""
    return state.op is not None and state.op.op_type == "fill" and state.op.value.val == 0


def filled(x: Var, width: int, value: float = 0.0) -> Var:
    """(B, width) of one number, for x (T, B, I)."""
    batch = mb.slice_by_size(x=mb.shape(x=x), begin=[1], size=[1])
    return mb.fill(shape=mb.concat(values=[batch, [width]], axis=0), value=np.float32(value))


def steps(x: Var) -> Var:
    """The numbers of the steps of x (T, B, I): (T, 1)."""
    total = mb.squeeze(x=mb.slice_by_size(x=mb.shape(x=x), begin=[0], size=[1]), axes=[0])  # scalar T
    return mb.expand_dims(x=mb.range_1d(start=np.int32(0), end=total, step=np.int32(1)), axes=[1])


def padding_of(x: Var, lengths: Var | None) -> Padding | None:
    """From x (T, B, I), lengths (B,); None where all steps are valid."""
    if lengths is None:
        return None
    lengths = mb.cast(x=lengths, dtype="int32")
    length = mb.expand_dims(x=lengths, axes=[0])  # (1, B)
    return Padding(
        lengths=lengths,
        last=mb.sub(x=length, y=np.int32(1)),
        is_valid=mb.expand_dims(x=mb.less(x=steps(x), y=length), axes=[2]),
    )


def _reverse(x: Var, padding: Padding | None) -> Var:
    """(T, B, I) -> (T, B, I), each row reversed within its length; its own inverse."""
    if padding is None:
        return mb.reverse(x=x, axes=[0])
    return mb.reverse_sequence(x=x, lengths=padding.lengths, seq_axis=0, batch_axis=1)


def _gather_steps(x: Var, steps: Var) -> Var:
    """From x (T, B, I), steps (S, B) -> (S, B, I)."""
    width = mb.slice_by_size(x=mb.shape(x=x), begin=[2], size=[1])
    repeats = mb.concat(values=[[1], [1], width], axis=0)
    indices = mb.tile(x=mb.expand_dims(x=steps, axes=[2]), reps=repeats)  # (S, B, I)
    return mb.gather_along_axis(x=x, indices=indices, axis=0)
