"""`edgeseq::gru`: a whole (stacked, bidirectional, length-aware) GRU as one operator, in both forms of the paper."""

import torch
from torch import Tensor, nn

from edgeseq.operators.layers import RecurrentLayer, States, compute, hidden_width


@torch.library.custom_op("edgeseq::gru", mutates_args=())
def gru(
    x: Tensor,
    h0: Tensor,
    lengths: Tensor | None,
    weights: list[Tensor],
    num_layers: int,
    bidirectional: bool,
    reset_after: bool = True,
) -> tuple[Tensor, Tensor]:
    """Cho et al. 2014; n = tanh(w_ih x + b_ih + r * (w_hh h + b_hh)) as `nn.GRU` computes it, or with r within the product.

    Args:
        x: (B, T, I).
        h0: (L*D, B, H) initial state, D directions (1 or 2).
        lengths: (B,) integers, 1 <= length <= T, as `edgeseq::lstm` takes them. None: all T steps are valid.
        weights: As `nn.GRU._flat_weights` with biases: per layer and direction w_ih (3H, I), w_hh (3H, H), b_ih (3H),
            b_hh (3H), gates in the order r, z, n.
        num_layers: L.
        bidirectional: Whether every layer runs in both directions.
        reset_after: Whether the reset gate acts on the recurrent product, its bias included. If not, on what is
            multiplied: n = tanh(w_ih x + b_ih + w_hh (r * h) + b_hh).

    Returns:
        y (B, T, D*H), hn (L*D, B, H).
    """
    if not reset_after:
        return _reset_before(x, h0, lengths, weights, num_layers, bidirectional)
    y, hn = compute(torch._VF.gru, x, (h0,), lengths, weights, num_layers, bidirectional)
    return y, hn


@gru.register_fake
def _(
    x: Tensor,
    h0: Tensor,
    lengths: Tensor | None,
    weights: list[Tensor],
    num_layers: int,
    bidirectional: bool,
    reset_after: bool = True,
) -> tuple[Tensor, Tensor]:
    del lengths, weights, num_layers, reset_after
    directions = 2 if bidirectional else 1
    return x.new_empty(x.shape[0], x.shape[1], h0.shape[-1] * directions), torch.empty_like(h0)


def _reset_before(
    x: Tensor, h0: Tensor, lengths: Tensor | None, weights: list[Tensor], num_layers: int, bidirectional: bool
) -> tuple[Tensor, Tensor]:
    """With r within the product, for which torch has no kernel: step by step."""
    directions = 2 if bidirectional else 1
    ends = x.new_full((x.shape[0],), x.shape[1]) if lengths is None else lengths
    final = []
    for first in range(0, num_layers * directions, directions):
        of_layer = [
            _one_direction(x, h0[row], ends, weights[4 * row : 4 * row + 4], backwards=row > first)
            for row in range(first, first + directions)
        ]
        x = torch.cat([y for y, _ in of_layer], dim=-1)  # (B, T, D*H)
        final += [h for _, h in of_layer]
    return x, torch.stack(final)


def _one_direction(
    x: Tensor, h: Tensor, ends: Tensor, weights: list[Tensor], *, backwards: bool
) -> tuple[Tensor, Tensor]:
    """From x (B, T, I), h (B, H), ends (B,) -> y (B, T, H), zero from a row's end on, and h (B, H)."""
    w_ih, w_hh, b_ih, b_hh = weights
    gates, width = nn.functional.linear(x, w_ih, b_ih), h.shape[-1]  # (B, T, 3H)
    y = x.new_zeros(x.shape[0], x.shape[1], width)
    for t in reversed(range(x.shape[1])) if backwards else range(x.shape[1]):
        both = gates[:, t, : 2 * width] + nn.functional.linear(h, w_hh[: 2 * width], b_hh[: 2 * width])
        r, z = both.sigmoid().chunk(2, dim=-1)  # each (B, H)
        n = torch.tanh(gates[:, t, 2 * width :] + nn.functional.linear(r * h, w_hh[2 * width :], b_hh[2 * width :]))
        is_valid = (t < ends).unsqueeze(1)  # (B, 1)
        h = torch.where(is_valid, (1 - z) * n + z * h, h)
        y[:, t] = torch.where(is_valid, h, 0)
    return y, h


def _operator(
    module: nn.GRU, x: Tensor, states: States, lengths: Tensor | None, weights: list[Tensor]
) -> tuple[Tensor, ...]:
    y, hn = torch.ops.edgeseq.gru(x, *states, lengths, weights, module.num_layers, module.bidirectional)
    return y, hn


LAYER = RecurrentLayer(module=nn.GRU, operator=_operator, state_widths=hidden_width)
