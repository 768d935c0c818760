"""`edgeseq::lstm`: a whole (stacked, bidirectional, projected, length-aware) LSTM as one operator."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from edgeseq.operators.layers import RecurrentLayer, States, compute, exported

State = tuple[Tensor, Tensor]


@torch.library.custom_op("edgeseq::lstm", mutates_args=())
def lstm(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    lengths: Tensor | None,
    weights: list[Tensor],
    num_layers: int,
    bidirectional: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Hochreiter and Schmidhuber 1997 with forget gates, as `nn.LSTM` computes it.

    Letters: D directions (1 or 2), H hidden width, P output width: H, or that of the projection (Sak et al. 2014).

    Args:
        x: (B, T, I).
        h0: (L*D, B, P) initial hidden state.
        c0: (L*D, B, H) initial cell state.
        lengths: (B,) integers, 1 <= length <= T. Steps from a row's length on change neither its outputs, which are zero
            there, nor its states; the backward direction starts at the row's last valid step. None: all T steps are valid.
        weights: As `nn.LSTM._flat_weights` with biases: per layer and direction w_ih (4H, I), w_hh (4H, P), b_ih (4H),
            b_hh (4H), gates in the order i, f, g, o; and w_hr (P, H) in all of them or in none.
        num_layers: L.
        bidirectional: Whether every layer runs in both directions.

    Returns:
        y (B, T, D*P), hn (L*D, B, P), cn (L*D, B, H).
    """
    y, hn, cn = compute(torch._VF.lstm, x, (h0, c0), lengths, weights, num_layers, bidirectional)
    return y, hn, cn


@lstm.register_fake
def _(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    lengths: Tensor | None,
    weights: list[Tensor],
    num_layers: int,
    bidirectional: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    directions = 2 if bidirectional else 1
    y = x.new_empty(x.shape[0], x.shape[1], h0.shape[-1] * directions)
    return y, torch.empty_like(h0), torch.empty_like(c0)


class LSTM(nn.LSTM):
    """`nn.LSTM` (batch first) that takes lengths and is exported as one operator.

    In eager mode it is torch's own layer, differentiable, over a packed sequence; under torch.export it is `edgeseq::lstm`.
    """

    def forward(  # type: ignore[override]  # nn.LSTM hides lengths in a PackedSequence, which cannot be exported
        self, x: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """X (B, T, I), state 2 × (L*D, B, H), lengths (B,) -> y (B, T, D*H), state."""
        if torch.compiler.is_exporting():
            return exported(LAYER, self, x, state, lengths)
        if lengths is None or bool((lengths == x.shape[1]).all()):
            return super().forward(x, state)  # trains three times as fast on a CPU as a packed sequence (torch 2.13)
        packed = pack_padded_sequence(x, lengths.cpu().long(), batch_first=True, enforce_sorted=False)
        y, state = super().forward(packed, state)
        return pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0], state


def _operator(
    module: nn.LSTM, x: Tensor, states: States, lengths: Tensor | None, weights: list[Tensor]
) -> tuple[Tensor, ...]:
    y, hn, cn = torch.ops.edgeseq.lstm(x, *states, lengths, weights, module.num_layers, module.bidirectional)
    return y, hn, cn


def _state_widths(module: nn.LSTM) -> tuple[int, ...]:
    return (module.proj_size or module.hidden_size, module.hidden_size)


LAYER = RecurrentLayer(module=nn.LSTM, operator=_operator, state_widths=_state_widths)
