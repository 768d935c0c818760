"""How transformers' attention is captured: with the cache as explicit rows, through `edgeseq::cached_attention`.

Every decoder of transformers hands its new keys and values to a cache, and what the cache returns to an attention
function. Here the cache keeps the new rows apart, and the function attends to them and to the rows given as inputs.

Letters: B batch, H heads, G heads of keys, R = H / G, T new rows, S rows of the cache, K head width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache, EncoderDecoderCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from edgeseq.operators.cached_attention import MASKED, cached_attention

NAME = "edgeseq"  # of the attention function, as transformers' configurations know it

Rows = tuple[Tensor, Tensor]  # keys and values of one layer, each (B, G, rows, K)


class NewRows(Cache):  # type: ignore[misc]  # transformers carries no types
    """A cache that leaves the rows in use where they are, and keeps those that a call adds.

    Args:
        past: Of each layer.
        seen: What positions are counted from: an integer or (B, 1).
    """

    def __init__(self, past: Sequence[Rows], seen: Tensor | int):
        super().__init__(layers=[])
        self.past, self.seen = past, seen
        self.new: dict[int, Rows] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **options: object
    ) -> Rows:
        """Keep a layer's new rows, and hand out nothing else."""
        del args, options
        self.new[layer_idx] = (key_states, value_states)
        return self.new[layer_idx]

    def get_seq_length(self, layer_idx: int = 0) -> Tensor | int:
        """What positions are counted from."""
        del layer_idx
        return self.seen

    @property
    def rows(self) -> list[Tensor]:
        """The new keys and values of each layer in turn."""
        return [tensor for _, pair in sorted(self.new.items()) for tensor in pair]


class GivenRows(Cache):  # type: ignore[misc]  # transformers carries no types
    """Keys and values over an encoder's states that were computed before."""

    def __init__(self, rows: Sequence[Rows]):
        super().__init__(layers=[SimpleNamespace(keys=keys, values=values) for keys, values in rows])

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """More than none, which says that they are there."""
        del layer_idx
        return 1


def both(own: NewRows, cross: Cache) -> EncoderDecoderCache:
    """What a decoder with an encoder takes."""
    return EncoderDecoderCache(own, cross)


@contextmanager
def explicit_caches(model: nn.Module) -> Iterator[None]:
    """While it lasts, the model attends by `attend`."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
    with_config: list[Any] = [module for module in model.modules() if hasattr(module, "config")]
    configs = {id(module.config): module.config for module in with_config}
    before = {key: config._attn_implementation for key, config in configs.items()}
    try:
        for config in configs.values():
            config._attn_implementation_internal = NAME
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation_internal = before[key]


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    own_rows: NewRows | None = None,
    position_bias: Tensor | None = None,
    **options: object,
) -> tuple[Tensor, None]:
    """The attention function of every layer.

    Args:
        module: The layer.
        query: (B, H, T, K).
        key: (B, G, T, K) of the new rows, or of what an encoder gave.
        value: (B, G, T, K).
        attention_mask: To be added to the scores; of a decoder's own rows as `cached_attention` takes it.
        scaling: Of the scores; None: one by the square root of K.
        own_rows: The cache of a decoder.
        position_bias: To be added to an encoder's scores; that of a decoder's own rows is part of their mask.
        options: Of transformers, for other attention functions.

    Returns:
        (B, T, H, K), and no weights.
    """
    del options
    width = query.shape[-1]
    scaling = width**-0.5 if scaling is None else scaling
    if not module.is_causal or own_rows is None:
        # A decoder with relative positions adds zeros to its scores over an encoder's states.
        mask = attention_mask if own_rows is not None or position_bias is None else _sum(attention_mask, position_bias)
        return F.scaled_dot_product_attention(query, key, value, mask, scale=scaling).transpose(1, 2), None
    assert attention_mask is not None, "decoders are given one"
    if scaling != width**-0.5:
        query = query * (scaling * width**0.5)
    keys, values = own_rows.past[module.layer_idx]
    return _grouped(query, key, value, keys, values, attention_mask).transpose(1, 2), None


def additive(valid: Tensor) -> Tensor:
    """Valid (B, S), 0 or 1 -> (B, 1, 1, S) float: 0 where valid, `MASKED` where padded."""
    return ((valid == 0).float() * MASKED)[:, None, None, :]


def _sum(mask: Tensor | None, bias: Tensor) -> Tensor:
    return bias if mask is None else mask + bias


def _grouped(query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """R heads that share keys become R times as many queries, so that no key is copied; (B, H, T, K) -> the same."""
    shared = query.shape[1] // key.shape[1]
    if shared == 1:
        return cached_attention(query, key, value, keys, values, mask)
    # Sizes that reshape would infer from symbolic ones bound the time; splitting an axis leaves it free.
    split: Tensor = query.unflatten(1, (key.shape[1], shared))  # type: ignore[no-untyped-call]  # torch's own
    queries = split.flatten(2, 3)  # (B, G, R * T, K)
    rows = torch.cat([mask] * shared, dim=2)  # (B, 1, R * T, T + S)
    seen = cached_attention(queries, key, value, keys, values, rows)
    joined: Tensor = seen.unflatten(2, (shared, query.shape[2]))
    return joined.flatten(1, 2)
