"""Which lowering serves which operator: the overloads that are left of a program after its decomposition.

Our own operators have a file each, which ends with its `LOWERING`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from edgeseq import lookup
from edgeseq.converters import tflite
from edgeseq.converters.tflite import activations as a
from edgeseq.converters.tflite import elementwise as e
from edgeseq.converters.tflite import indexing as i
from edgeseq.converters.tflite import matmul as m
from edgeseq.converters.tflite import reduce as r
from edgeseq.converters.tflite import shape as s
from edgeseq.converters.tflite.attention import attention

Lowerings = Mapping[str, Callable[..., Any]]

_BROADCASTING: Lowerings = {
    "aten.add.Tensor": e.add,
    "aten.add.Scalar": e.add,
    "aten.sub.Tensor": e.subtract,
    "aten.sub.Scalar": e.subtract,
    "aten.rsub.Scalar": e.reverse_subtract,
    "aten.mul.Tensor": e.multiply,
    "aten.mul.Scalar": e.multiply,
    "aten.div.Tensor": e.divide,
    "aten.div.Scalar": e.divide,
    "aten.div.Tensor_mode": e.divide,
    "aten.floor_divide.default": e.floor_divide,
    "aten.remainder.Tensor": e.remainder,
    "aten.remainder.Scalar": e.remainder,
    "aten.pow.Tensor_Scalar": e.power,
    "aten.pow.Tensor_Tensor": e.power,
    "aten.pow.Scalar": e.power,
    "aten.maximum.default": e.arithmetic("MAXIMUM"),
    "aten.minimum.default": e.arithmetic("MINIMUM"),
    "aten.eq.Tensor": e.arithmetic("EQUAL"),
    "aten.eq.Scalar": e.arithmetic("EQUAL"),
    "aten.ne.Tensor": e.arithmetic("NOT_EQUAL"),
    "aten.ne.Scalar": e.arithmetic("NOT_EQUAL"),
    "aten.lt.Tensor": e.arithmetic("LESS"),
    "aten.lt.Scalar": e.arithmetic("LESS"),
    "aten.le.Tensor": e.arithmetic("LESS_EQUAL"),
    "aten.le.Scalar": e.arithmetic("LESS_EQUAL"),
    "aten.gt.Tensor": e.arithmetic("GREATER"),
    "aten.gt.Scalar": e.arithmetic("GREATER"),
    "aten.ge.Tensor": e.arithmetic("GREATER_EQUAL"),
    "aten.ge.Scalar": e.arithmetic("GREATER_EQUAL"),
    "aten.logical_and.default": e.logical("LOGICAL_AND"),
    "aten.logical_or.default": e.logical("LOGICAL_OR"),
    "aten.logical_xor.default": e.logical("NOT_EQUAL"),
    "aten.bitwise_and.Tensor": e.bitwise("LOGICAL_AND"),
    "aten.bitwise_or.Tensor": e.bitwise("LOGICAL_OR"),
    "aten.bitwise_xor.Tensor": e.bitwise("NOT_EQUAL"),
    "aten.__and__.Tensor": e.bitwise("LOGICAL_AND"),
    "aten.__or__.Tensor": e.bitwise("LOGICAL_OR"),
    "aten.where.self": e.where,
    "aten.where.ScalarOther": e.where,
    "aten.where.ScalarSelf": e.where,
    "aten.where.Scalar": e.where,
    "aten.scaled_dot_product_attention.default": attention,
}

_POINTWISE: Lowerings = {
    "aten.masked_fill.Scalar": e.masked_fill,
    "aten.masked_fill.Tensor": e.masked_fill,
    "aten.masked_fill_.Scalar": e.masked_fill,
    "aten.relu.default": a.relu,
    "aten.sigmoid.default": e.pointwise("LOGISTIC"),
    "aten.tanh.default": e.pointwise("TANH"),
    "aten.exp.default": e.pointwise("EXP"),
    "aten.log.default": e.pointwise("LOG"),
    "aten.sqrt.default": e.pointwise("SQRT"),
    "aten.rsqrt.default": e.pointwise("RSQRT"),
    "aten.sin.default": e.pointwise("SIN"),
    "aten.cos.default": e.pointwise("COS"),
    "aten.floor.default": e.pointwise("FLOOR"),
    "aten.ceil.default": e.pointwise("CEIL"),
    "aten.round.default": e.pointwise("ROUND"),
    "aten.abs.default": e.keeping("ABS"),
    "aten.neg.default": e.keeping("NEG"),
    "aten.sign.default": e.keeping("SIGN"),
    "aten.gelu.default": a.gelu,
    "aten.silu.default": a.silu,
    "aten.elu.default": a.elu,
    "aten.erf.default": a.erf,
    "aten.log1p.default": a.log1p,
    "aten.expm1.default": a.expm1,
    "aten.hardtanh.default": a.hard_tanh,
    "aten.hardsigmoid.default": a.hard_sigmoid,
    "aten.hardswish.default": a.hard_swish,
    "aten.leaky_relu.default": a.leaky_relu,
    "aten.softplus.default": a.softplus,
    "aten.reciprocal.default": a.reciprocal,
    "aten.logical_not.default": e.logical_not,
    "aten.bitwise_not.default": e.logical_not,
    "aten.clamp.default": e.clamp,
    "aten.clamp.Tensor": e.clamp,
    "aten.clamp_min.default": e.clamp_min,
    "aten.clamp_max.default": e.clamp_max,
    "aten._to_copy.default": e.convert,
    "aten.to.dtype": e.convert,
    "aten.to.dtype_layout": e.convert,
    "aten.to.device": e.identity,
    "aten.type_as.default": e.convert,
    "aten.contiguous.default": e.identity,
    "aten.dropout.default": e.identity,
    "aten.clone.default": e.identity,
    "aten.alias.default": e.identity,
    "aten.detach.default": e.identity,
    "aten.lift_fresh_copy.default": e.identity,
    "aten._softmax.default": a.softmax,
    "aten._safe_softmax.default": a.softmax,
    "aten.softmax.int": a.softmax,
    "aten._log_softmax.default": a.log_softmax,
    "aten.log_softmax.int": a.log_softmax,
}

_SHAPES: Lowerings = {
    "aten.view.default": s.view,
    "aten._unsafe_view.default": s.view,
    "aten.reshape.default": s.view,
    "aten.unsqueeze.default": s.view,
    "aten.squeeze.dims": s.view,
    "aten.squeeze.dim": s.view,
    "aten.squeeze.default": s.view,
    "aten.flatten.using_ints": s.view,
    "aten.unflatten.int": s.view,
    "aten.view_as.default": s.view,
    "aten.permute.default": s.permute,
    "aten.t.default": s.swap_last_axes,
    "aten.mT.default": s.swap_last_axes,
    "aten.expand_as.default": s.expand,
    "aten.transpose.int": s.swap_axes,
    "aten.expand.default": s.expand,
    "aten.repeat.default": s.repeat,
    "aten.cat.default": s.concatenate,
    "aten.stack.default": s.stack,
    "aten.select.int": i.select,
    "aten.slice.Tensor": i.slice_,
    "aten.split_with_sizes.default": i.split_with_sizes,
    "aten.split.Tensor": i.split,
    "aten.unbind.int": s.unbind,
    "aten.flip.default": i.flip,
    "aten.constant_pad_nd.default": s.pad,
    "aten.embedding.default": i.embedding,
    "aten.index.Tensor": i.index,
    "aten.index_select.default": i.index_select,
    "aten.gather.default": i.gather,
    "aten.chunk.default": i.split,
    "aten.arange.default": s.arange_to,
    "aten.arange.start": s.arange_between,
    "aten.arange.start_step": s.arange,
    "aten.new_full.default": s.new_full,
    "aten.new_zeros.default": s.zeros,
    "aten.new_ones.default": s.ones,
    "aten.full.default": s.full,
    "aten.full_like.default": s.full,
    "aten.zeros.default": s.zeros,
    "aten.zeros_like.default": s.zeros,
    "aten.ones.default": s.ones,
    "aten.ones_like.default": s.ones,
    "aten.scalar_tensor.default": s.scalar_tensor,
}

_REDUCTIONS: Lowerings = {
    "aten.sum.dim_IntList": r.reduction("SUM"),
    "aten.sum.default": r.reduction("SUM"),
    "aten.mean.dim": r.reduction("MEAN"),
    "aten.mean.default": r.reduction("MEAN"),
    "aten.amax.default": r.reduction("REDUCE_MAX"),
    "aten.amin.default": r.reduction("REDUCE_MIN"),
    "aten.prod.dim_int": r.reduction("REDUCE_PROD"),
    "aten.max.dim": r.extreme("REDUCE_MAX", "ARG_MAX"),
    "aten.min.dim": r.extreme("REDUCE_MIN", "ARG_MIN"),
    "aten.argmax.default": r.arg_extreme("ARG_MAX"),
    "aten.argmin.default": r.arg_extreme("ARG_MIN"),
    "aten.any.default": r.any_true,
    "aten.any.dim": r.any_true,
    "aten.any.dims": r.any_true,
    "aten.all.default": r.all_true,
    "aten.all.dim": r.all_true,
    "aten.var.correction": r.variance,
    "aten.cumsum.default": r.cumulative_sum,
    "aten.layer_norm.default": r.layer_norm,
    "aten._native_batch_norm_legit_no_training.default": r.batch_norm,
}

_PRODUCTS: Lowerings = {
    "aten.linear.default": m.linear,
    "aten.addmm.default": m.add_product,
    "aten.baddbmm.default": m.add_product,
    "aten.mm.default": m.product,
    "aten.bmm.default": m.product,
    "aten.matmul.default": m.product,
    "aten.convolution.default": m.convolution,
}

_OWN: Lowerings = {
    f"edgeseq.{name}.default": lookup.get(tflite, name, "LOWERING") for name in lookup.names(tflite, "LOWERING")
}

BROADCASTING = frozenset(_BROADCASTING)
LOWERINGS: Lowerings = {**_BROADCASTING, **_POINTWISE, **_SHAPES, **_REDUCTIONS, **_PRODUCTS, **_OWN}
