"""Translations of ATen operators that coremltools 9.0 lacks, or gets wrong for symbolic sizes or boolean masks.

Our own operators have a file each, which ends with its `LOWERING`; everything else is translated by coremltools' own
torch.export front end.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.frontend.torch import ops as torch_ops
from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY as REGISTRY
from coremltools.converters.mil.mil import types
from coremltools.converters.mil.mil.ops.defs._utils import promote_input_dtypes

from edgeseq import lookup
from edgeseq.converters import coreml
from edgeseq.converters.coreml._attention import attention, triangle

Translation = Callable[[Any, Any], None]  # (coremltools' transcription context, node of the exported graph)


def _ignore(context: Any, node: Any) -> None:
    """An assertion about tensors: it gives nothing that anything reads."""
    del context, node


def _same(context: Any, node: Any) -> None:
    context.add(mb.identity(x=_inputs(context, node)[0], name=node.name))


def _where(context: Any, node: Any) -> None:
    condition, a, b = _inputs(context, node)
    a, b = promote_input_dtypes([a, b])
    context.add(mb.select(cond=mb.cast(x=condition, dtype="bool"), a=a, b=b, name=node.name))


def _filled(value: float | None, size_at: int) -> Translation:
    """Translation of a tensor of one value; value None: the input after the sizes."""

    def translate(context: Any, node: Any) -> None:
        inputs = _inputs(context, node)
        fill = inputs[size_at + 1].val if value is None else value
        _add_fill(context, node, _shape(inputs[size_at]), fill)

    return translate


def _filled_like(value: float | None) -> Translation:
    """Translation of a tensor of one value and another one's shape."""

    def translate(context: Any, node: Any) -> None:
        inputs = _inputs(context, node)
        fill = inputs[1].val if value is None else value
        _add_fill(context, node, mb.shape(x=inputs[0]), fill)

    return translate


def _add_fill(context: Any, node: Any, shape: Any, value: float) -> None:
    """The dtype is the exported program's, int64 as int32; coremltools would always make floats."""
    dtype = node.meta["val"].dtype
    as_numpy = np.bool_ if dtype == torch.bool else np.float32 if dtype.is_floating_point else np.int32
    if shape is None:
        context.add(mb.const(val=as_numpy(value), name=node.name))
    else:
        context.add(mb.fill(shape=shape, value=as_numpy(value), name=node.name))


def _shape(sizes: Any) -> Any:
    """The sizes as one tensor; None for a scalar's."""
    if isinstance(sizes, list):
        return mb.concat(values=[mb.cast(x=size, dtype="int32") for size in sizes], axis=0) if sizes else None
    return sizes if sizes.shape[0] else None


def _logical(operator: str) -> Translation:
    """Translation of a bitwise operator of booleans."""

    def translate(context: Any, node: Any) -> None:
        x, y = _inputs(context, node)
        if not (types.is_bool(x.dtype) and types.is_bool(y.dtype)):
            raise NotImplementedError(f"{node.kind} of integers")
        context.add(getattr(mb, operator)(x=x, y=y, name=node.name))

    return translate


def _index(context: Any, node: Any) -> None:
    """x[i, j, …] with integer tensors of symbolic sizes; coremltools broadcasts known sizes only."""
    x, indices = _inputs(context, node)
    leading = [index for index in indices if index is not None]
    consecutive = all(index is not None for index in indices[: len(leading)])
    symbolic = len(leading) > 1 and consecutive and all(types.is_int(index.dtype) for index in leading)
    if not symbolic:
        torch_ops.index(context, node)
        return
    zero = leading[0]
    for index in leading[1:]:
        zero = mb.add(x=zero, y=index)
    zero = mb.mul(x=zero, y=np.int32(0))  # zeros of the broadcast shape
    coordinates = mb.stack(values=[mb.add(x=index, y=zero) for index in leading], axis=-1)
    if types.is_bool(x.dtype):  # gather_nd takes numbers only
        gathered = mb.gather_nd(x=mb.cast(x=x, dtype="int32"), indices=coordinates)
        context.add(mb.cast(x=gathered, dtype="bool", name=node.name))
    else:
        context.add(mb.gather_nd(x=x, indices=coordinates, name=node.name))


def _gelu(context: Any, node: Any) -> None:
    """Coremltools overlooks the keyword."""
    approximate = torch_ops._get_kwinputs(context, node, "approximate", default=["none"])[0]
    mode = "TANH_APPROXIMATION" if approximate == "tanh" else "EXACT"
    context.add(mb.gelu(x=_inputs(context, node)[0], mode=mode, name=node.name))


def _rms_norm(context: Any, node: Any) -> None:
    """Root mean square norm: x / sqrt(mean(x²) + eps) · weight, Zhang and Sennrich 2019, eq. 4."""
    x, shape, weight, epsilon = [*_inputs(context, node), None, None][:4]
    axes = list(range(-len(shape.val), 0))
    mean = mb.reduce_mean(x=mb.mul(x=x, y=x), axes=axes, keep_dims=True)
    smallest = np.finfo(np.float32).eps if epsilon is None else np.float32(epsilon.val)
    normed = mb.mul(x=x, y=mb.rsqrt(x=mean, epsilon=smallest))
    context.add(mb.identity(x=normed, name=node.name) if weight is None else mb.mul(x=normed, y=weight, name=node.name))


def _of_sizes(operator: str) -> Translation:
    """Translation of Python arithmetic on symbolic sizes."""

    def translate(context: Any, node: Any) -> None:
        x, y = _inputs(context, node)
        context.add(getattr(mb, operator)(x=x, y=y, name=node.name))

    return translate


def _inputs(context: Any, node: Any) -> Any:
    return torch_ops._get_inputs(context, node)


TRANSLATIONS: dict[str, Translation] = {
    "unsafe_split": torch_ops.split,
    "_assert_tensor_metadata": _ignore,
    "_assert_scalar": _ignore,
    "sym_constrain_range_for_size": _ignore,
    "alias": _same,
    "lift_fresh_copy": _same,
    "where.self": _where,
    "where.scalar": _where,
    "where.scalarself": _where,
    "where.scalarother": _where,
    "zeros": _filled(0, 0),
    "ones": _filled(1, 0),
    "full": _filled(None, 0),
    "new_zeros": _filled(0, 1),
    "new_ones": _filled(1, 1),
    "new_full": _filled(None, 1),
    "zeros_like": _filled_like(0),
    "ones_like": _filled_like(1),
    "full_like": _filled_like(None),
    "__and__": _logical("logical_and"),
    "__or__": _logical("logical_or"),
    "__xor__": _logical("logical_xor"),
    "bitwise_and": _logical("logical_and"),
    "bitwise_or": _logical("logical_or"),
    "bitwise_xor": _logical("logical_xor"),
    "index": _index,
    "triu": triangle(upper=True),
    "tril": triangle(upper=False),
    "gelu": _gelu,
    "rms_norm": _rms_norm,
    "scaled_dot_product_attention": attention,
    "mod": _of_sizes("mod"),
    "sym_max": _of_sizes("maximum"),
    "sym_min": _of_sizes("minimum"),
}


@contextmanager
def registered() -> Iterator[None]:
    """Let coremltools' front end use these translations meanwhile.

    Afterwards it has its own again: these read the meta data of exported programs, which a TorchScript model has none of,
    and an app may convert such ones in the same process.
    """
    own = REGISTRY.name_to_func_mapping
    names = lookup.names(coreml, "LOWERING")  # our own operators, one file each
    ours = {f"edgeseq::{name}": lookup.get(coreml, name, "LOWERING") for name in names}
    REGISTRY.name_to_func_mapping = {**own, **TRANSLATIONS, **ours}
    try:
        yield
    finally:
        REGISTRY.name_to_func_mapping = own
