"""`edgeseq::gru`: a whole (stacked, bidirectional, length-aware) GRU as one operator."""

import torch
from torch import Tensor, nn

from edgeseq.operators.layers import RecurrentLayer, States, compute, hidden_width


@torch.library.custom_op("edgeseq::gru", mutates_args=())
def gru(
    x: Tensor, h0: Tensor, lengths: Tensor | None, weights: list[Tensor], num_layers: int, bidirectional: bool
) -> tuple[Tensor, Tensor]:
    """Cho et al. 2014 as `nn.GRU` computes it: the reset gate acts on the recurrent product, its bias included.

    Args:
        x: (B, T, I).
        h0: (L*D, B, H) initial state, D directions (1 or 2).
        lengths: (B,) integers, 1 <= length <= T, as `edgeseq::lstm` takes them. None: all T steps are valid.
        weights: As `nn.GRU._flat_weights` with biases: per layer and direction w_ih (3H, I), w_hh (3H, H), b_ih (3H),
            b_hh (3H), gates in the order r, z, n.
        num_layers: L.
        bidirectional: Whether every layer runs in both directions.

    Returns:
        y (B, T, D*H), hn (L*D, B, H).
    """
    y, hn = compute(torch._VF.gru, x, (h0,), lengths, weights, num_layers, bidirectional)
    return y, hn


@gru.register_fake
def _(
    x: Tensor, h0: Tensor, lengths: Tensor | None, weights: list[Tensor], num_layers: int, bidirectional: bool
) -> tuple[Tensor, Tensor]:
    directions = 2 if bidirectional else 1
    return x.new_empty(x.shape[0], x.shape[1], h0.shape[-1] * directions), torch.empty_like(h0)


def _operator(
    module: nn.GRU, x: Tensor, states: States, lengths: Tensor | None, weights: list[Tensor]
) -> tuple[Tensor, ...]:
    y, hn = torch.ops.edgeseq.gru(x, *states, lengths, weights, module.num_layers, module.bidirectional)
    return y, hn


LAYER = RecurrentLayer(module=nn.GRU, operator=_operator, state_widths=hidden_width)
