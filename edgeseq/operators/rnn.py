"""`edgeseq::rnn`: a whole (stacked, bidirectional, length-aware) plain recurrent network as one operator."""

import torch
from torch import Tensor, nn

from edgeseq.operators.layers import RecurrentLayer, States, compute, hidden_width


@torch.library.custom_op("edgeseq::rnn", mutates_args=())
def rnn(
    x: Tensor,
    h0: Tensor,
    lengths: Tensor | None,
    weights: list[Tensor],
    num_layers: int,
    bidirectional: bool,
    nonlinearity: str,
) -> tuple[Tensor, Tensor]:
    """Elman 1990 as `nn.RNN` computes it.

    Args:
        x: (B, T, I).
        h0: (L*D, B, H) initial state, D directions (1 or 2).
        lengths: (B,) integers, 1 <= length <= T, as `edgeseq::lstm` takes them. None: all T steps are valid.
        weights: As `nn.RNN._flat_weights` with biases: per layer and direction w_ih (H, I), w_hh (H, H), b_ih (H),
            b_hh (H).
        num_layers: L.
        bidirectional: Whether every layer runs in both directions.
        nonlinearity: "tanh" or "relu".

    Returns:
        y (B, T, D*H), hn (L*D, B, H).
    """
    kernel = torch._VF.rnn_tanh if nonlinearity == "tanh" else torch._VF.rnn_relu
    y, hn = compute(kernel, x, (h0,), lengths, weights, num_layers, bidirectional)
    return y, hn


@rnn.register_fake
def _(
    x: Tensor,
    h0: Tensor,
    lengths: Tensor | None,
    weights: list[Tensor],
    num_layers: int,
    bidirectional: bool,
    nonlinearity: str,
) -> tuple[Tensor, Tensor]:
    directions = 2 if bidirectional else 1
    return x.new_empty(x.shape[0], x.shape[1], h0.shape[-1] * directions), torch.empty_like(h0)


def _operator(
    module: nn.RNN, x: Tensor, states: States, lengths: Tensor | None, weights: list[Tensor]
) -> tuple[Tensor, ...]:
    y, hn = torch.ops.edgeseq.rnn(
        x, *states, lengths, weights, module.num_layers, module.bidirectional, module.nonlinearity
    )
    return y, hn


LAYER = RecurrentLayer(module=nn.RNN, operator=_operator, state_widths=hidden_width)
