"""`edgeseq::lstm`: a whole (stacked, bidirectional, length-aware) LSTM as one operator.

torch.export specialises the time axis of `nn.LSTM` to the example's length, and its decomposition unrolls it. An operator
with a shape rule of its own does neither: the exported graph holds one node, and each converter lowers it its own way.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

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

    Letters: D directions (1 or 2), H hidden width.

    Args:
        x: (B, T, I).
        h0: (L*D, B, H) initial hidden state.
        c0: (L*D, B, H) initial cell state.
        lengths: (B,) integers, 1 <= length <= T. Steps from a row's length on change neither its outputs, which are zero
            there, nor its states; the backward direction starts at the row's last valid step. None: all T steps are valid.
        weights: As `nn.LSTM._flat_weights` with biases: per layer and direction w_ih (4H, I), w_hh (4H, H), b_ih (4H),
            b_hh (4H), gates in the order i, f, g, o.
        num_layers: L.
        bidirectional: Whether every layer runs in both directions.

    Returns:
        y (B, T, D*H), hn (L*D, B, H), cn (L*D, B, H).
    """
    layout = (True, num_layers, 0.0, False, bidirectional)  # has_biases, layers, dropout, train, bidirectional
    if lengths is None:
        y, hn, cn = torch._VF.lstm(x, (h0, c0), weights, *layout, True)
        return y.clone(memory_format=torch.contiguous_format), hn.clone(), cn.clone()
    packed = pack_padded_sequence(x, lengths.cpu().long(), batch_first=True, enforce_sorted=False)
    order, back = packed.sorted_indices, packed.unsorted_indices
    assert order is not None and back is not None, "a sequence packed from unsorted lengths has both"
    state = (h0.index_select(1, order), c0.index_select(1, order))
    data, hn, cn = torch._VF.lstm(packed.data, packed.batch_sizes, state, weights, *layout)
    y, _ = pad_packed_sequence(packed._replace(data=data), batch_first=True, total_length=x.shape[1])
    return y.clone(memory_format=torch.contiguous_format), hn.index_select(1, back), cn.index_select(1, back)


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
            return exported_lstm(self, x, state, lengths)
        if lengths is None or bool((lengths == x.shape[1]).all()):
            return super().forward(x, state)  # trains three times as fast on a CPU as a packed sequence (torch 2.13)
        packed = pack_padded_sequence(x, lengths.cpu().long(), batch_first=True, enforce_sorted=False)
        y, state = super().forward(packed, state)
        return pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0], state


def exported_lstm(
    module: nn.LSTM, x: Tensor, state: State | None = None, lengths: Tensor | None = None
) -> tuple[Tensor, State]:
    """What an LSTM layer computes, with its weights handed to `edgeseq::lstm`. Called while a model is exported."""
    directions = 2 if module.bidirectional else 1
    if not module.batch_first:
        x = x.transpose(0, 1)  # (T, B, I) -> (B, T, I)
    if state is None:
        zeros = x.new_zeros(module.num_layers * directions, x.shape[0], module.hidden_size)
        state = (zeros, zeros)
    y, hn, cn = torch.ops.edgeseq.lstm(x, *state, lengths, _weights(module), module.num_layers, module.bidirectional)
    return (y if module.batch_first else y.transpose(0, 1)), (hn, cn)


def _weights(module: nn.LSTM) -> list[Tensor]:
    """The layer's parameters by name (so that the program keeps their module paths), zeros for missing biases."""
    if module.bias:
        return [getattr(module, name) for names in module._all_weights for name in names]
    weights = []
    for w_ih, w_hh in module._all_weights:
        zero = getattr(module, w_ih).new_zeros(4 * module.hidden_size)
        weights += [getattr(module, w_ih), getattr(module, w_hh), zero, zero]
    return weights
