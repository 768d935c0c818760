"""Translations of attention, and of the triangles that masks are made of, at symbolic sizes."""

from collections.abc import Callable
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.frontend.torch import ops as torch_ops
from coremltools.converters.mil.mil import Var, types
from coremltools.converters.mil.mil.block import is_current_opset_version_compatible_with

MASKED = np.float32(-3e4)  # exp(MASKED + score) is 0, and float16 can hold it


def attention(context: Any, node: Any) -> None:
    """softmax(q kᵀ · scale + mask) v, Vaswani et al. 2017, eq. 1; a boolean mask writes `MASKED` where it is False.

    From iOS 18 on it is one operator, which takes no scale of its own, and would make NaN of rows that a boolean mask
    hides whole.

    Letters: T queries, S keys, K head width. q (…, T, K), k (…, S, K), v (…, S, K).
    """
    names = ("q", "k", "v", "mask", "dropout", "is_causal", "scale")
    values: dict[str, Any] = dict(zip(names, torch_ops._get_inputs(context, node), strict=False))
    for key in ("attn_mask", "is_causal", "scale"):
        given = torch_ops._get_kwinputs(context, node, key)
        if given is not None:
            values["mask" if key == "attn_mask" else key] = given[0]
    q, k, v = (values[key] for key in ("q", "k", "v"))
    mask, is_causal, scale = values.get("mask"), values.get("is_causal"), values.get("scale")
    if is_causal is not None and is_causal.val:
        mask = _causal_mask(q, k)
    if mask is not None and types.is_bool(mask.dtype):
        mask = mb.mul(x=mb.sub(x=np.float32(1), y=mb.cast(x=mask, dtype="fp32")), y=MASKED)  # 0 where it is True
    own = q.shape[-1] ** -0.5
    factor = own if scale is None else float(scale.val)
    if is_current_opset_version_compatible_with(ct.target.iOS18) and _is_of_one_batch(q, k, v):
        query = q if factor == own else mb.mul(x=q, y=np.float32(factor / own))
        if mask is not None and mask.rank < q.rank:  # coremltools asks for all axes
            mask = mb.expand_dims(x=mask, axes=list(range(q.rank - mask.rank)))
        given = {} if mask is None else {"attn_mask": mask}
        context.add(mb.scaled_dot_product_attention(query=query, key=k, value=v, **given, name=node.name))
        return
    scores = mb.matmul(x=mb.mul(x=q, y=np.float32(factor)), y=k, transpose_y=True)  # (…, T, S)
    scores = scores if mask is None else mb.add(x=scores, y=mask)
    context.add(mb.matmul(x=mb.softmax(x=scores, axis=-1), y=v, name=node.name))  # (…, T, K)


def _is_of_one_batch(q: Var, k: Var, v: Var) -> bool:
    """Whether all three are known to have the same sizes but for the last two, which Core ML's own operator asks for."""
    return q.rank >= 3 and tuple(q.shape[:-2]) == tuple(k.shape[:-2]) == tuple(v.shape[:-2])


def _causal_mask(q: Var, k: Var) -> Var:
    """(T, S), True where the key is not after the query."""
    queries, keys = (mb.range_1d(start=np.int32(0), end=_size(x, -2), step=np.int32(1)) for x in (q, k))
    return mb.greater_equal(x=mb.expand_dims(x=queries, axes=[1]), y=mb.expand_dims(x=keys, axes=[0]))


def _size(x: Var, axis: int) -> Var:
    """One size of a tensor, as a scalar."""
    return mb.squeeze(x=mb.slice_by_size(x=mb.shape(x=x), begin=[axis % x.rank], size=[1]), axes=[0])


def triangle(upper: bool) -> Callable[[Any, Any], None]:
    """Translation of triu or tril; coremltools subtracts bands, which turns an infinite mask into NaN."""

    def translate(context: Any, node: Any) -> None:
        x, *rest = torch_ops._get_inputs(context, node)
        diagonal = np.int32(rest[0].val if rest else 0)
        rows, columns = (mb.range_1d(start=np.int32(0), end=_size(x, axis), step=np.int32(1)) for axis in (-2, -1))
        offset = mb.sub(x=mb.expand_dims(x=columns, axes=[0]), y=mb.expand_dims(x=rows, axes=[1]))  # (rows, columns)
        kept = (mb.greater_equal if upper else mb.less_equal)(x=offset, y=diagonal)
        if types.is_bool(x.dtype):
            context.add(mb.logical_and(x=x, y=kept, name=node.name))
        else:
            zero = np.int32(0) if types.is_int(x.dtype) else np.float32(0)
            context.add(mb.select(cond=kept, a=x, b=zero, name=node.name))

    return translate
