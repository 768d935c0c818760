"""`edgeseq::cached_attention`: attention over a cache and the new rows, as one operator.

The new keys and values are operands beside the cache instead of rows of it, so that nothing is copied into the cache
before the product, and the host (or the engine) writes 2 × T rows a layer afterwards. A call costs in proportion to the
rows that the cache is given with, which may be fewer than the model's longest sequence.

Letters: B batch, H heads, T new rows, S rows of the cache, K head width.
"""

import math

import torch
from torch import Tensor

MASKED = -1e4  # added to a score, makes its weight 0; float16 can hold it


@torch.library.custom_op("edgeseq::cached_attention", mutates_args=())
def cached_attention(query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Scaled dot products, Vaswani et al. 2017, eq. 1, of new rows with themselves and with a cache.

    Args:
        query: (B, H, T, K).
        key: (B, H, T, K) of the new rows.
        value: (B, H, T, K).
        keys: (B, H, S, K) the cache; masked rows count for nothing, but must be finite.
        values: (B, H, S, K).
        mask: (B, 1, T, T + S) to be added to the scores: first those of the new rows, then those of the cache.

    Returns:
        (B, H, T, K).
    """
    scores = torch.cat([query @ key.mT, query @ keys.mT], dim=-1) / math.sqrt(query.shape[-1])  # (B, H, T, T + S)
    weights, count = (scores + mask).softmax(-1), key.shape[2]
    return weights[..., :count] @ value + weights[..., count:] @ values


@cached_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)


def causal_mask(position: Tensor, count: int, capacity: int) -> Tensor:
    """What T new rows see of themselves and of the rows in use, position (B,) of S -> (B, 1, T, T + S)."""
    new, past = (torch.arange(size, device=position.device) for size in (count, capacity))
    is_later = (new > new[:, None]).expand(position.shape[0], 1, -1, -1)  # (B, 1, T, T)
    is_unused = (past >= position[:, None, None, None]).expand(-1, -1, count, -1)  # (B, 1, T, S)
    return torch.cat([is_later, is_unused], dim=-1).float() * MASKED
