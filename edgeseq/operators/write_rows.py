"""`edgeseq::write_rows`: new rows of a cache in their place, for engines that keep the cache themselves."""

import torch
from torch import Tensor


@torch.library.custom_op("edgeseq::write_rows", mutates_args=())
def write_rows(cache: Tensor, rows: Tensor, position: Tensor, axis: int) -> Tensor:
    """The cache with T rows written along one axis.

    Args:
        cache: S rows along `axis`.
        rows: The same shape but for T rows there, T <= S.
        position: (1,) where the first one goes, at most S - T.
        axis: Counted from the front.

    Returns:
        As the cache.
    """
    places = position.long() + torch.arange(rows.shape[axis], device=cache.device)  # (T,)
    return cache.index_copy(axis, places, rows)


@write_rows.register_fake
def _(cache: Tensor, rows: Tensor, position: Tensor, axis: int) -> Tensor:
    return torch.empty_like(cache)
