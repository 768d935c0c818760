"""`edgeseq::write_rows` in MIL: one `slice_update` of the state itself, so that nothing but the new rows is written."""

from typing import Any

from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.frontend.torch import ops as torch_ops
from coremltools.converters.mil.mil import Var, types


def lower_write_rows(context: Any, node: Any) -> None:
    """Translate one node; the signature and its meaning are in edgeseq/operators/write_rows.py."""
    cache, rows, position, axis = torch_ops._get_inputs(context, node, expected=4)
    cache, axis = _as_stored(cache), axis.val
    rows = mb.cast(x=rows, dtype=types.builtin_to_string(cache.dtype))
    count = mb.slice_by_size(x=mb.shape(x=rows), begin=[axis], size=[1])  # (1,) T
    before, after = [0] * axis, [0] * (cache.rank - axis - 1)
    begin, end = (
        mb.concat(values=[part for part in (before, at, after) if not isinstance(part, list) or part], axis=0)
        for at in (position, mb.add(x=position, y=count))
    )
    others = [i != axis for i in range(cache.rank)]
    context.add(
        mb.slice_update(x=cache, update=rows, begin=begin, end=end, begin_mask=others, end_mask=others, name=node.name)
    )


def _as_stored(cache: Var) -> Var:
    """What a state holds, where coremltools has cast it to float32 for everything that reads it."""
    is_cast = cache.op is not None and cache.op.op_type == "cast" and cache.op.x.op is not None
    return cache.op.x if is_cast and cache.op.x.op.op_type == "read_state" else cache


LOWERING = lower_write_rows
