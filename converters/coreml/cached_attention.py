"""`edgeseq::cached_attention` in MIL: two products with the new rows, two with the cache, one softmax.

Letters: B batch, H heads, T new rows, S rows of the cache, K head width.
"""

from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.frontend.torch import ops as torch_ops

ALL = [True, True, True, True]
ALL_BUT_LAST = [True, True, True, False]


def lower_cached_attention(context: Any, node: Any) -> None:
    """Translate one node; the signature and its meaning are in edgeseq/operators/cached_attention.py."""
    query, key, value, keys, values, mask = torch_ops._get_inputs(context, node, expected=6)
    width = int(node.meta["val"].shape[-1])  # coremltools may have lost it among symbolic sizes
    query = mb.mul(x=query, y=np.float32(width**-0.5))
    of_new, of_past = (mb.matmul(x=query, y=rows, transpose_y=True) for rows in (key, keys))
    scores = mb.add(x=mb.concat(values=[of_new, of_past], axis=-1), y=mask)  # (B, H, T, T + S)
    weights = mb.softmax(x=scores, axis=-1)
    count = mb.slice_by_size(x=mb.shape(x=key), begin=[2], size=[1])  # (1,) T
    border = mb.concat(values=[[0, 0, 0], count], axis=0)
    new = mb.slice_by_index(x=weights, begin=[0, 0, 0, 0], end=border, end_mask=ALL_BUT_LAST)  # (B, H, T, T)
    past = mb.slice_by_index(x=weights, begin=border, end=[0, 0, 0, 0], begin_mask=ALL_BUT_LAST, end_mask=ALL)
    seen = mb.add(x=mb.matmul(x=new, y=value), y=mb.matmul(x=past, y=values), name=node.name)
    context.add(seen)  # (B, H, T, K)


LOWERING = lower_cached_attention
