"""Recurrent operators of ATen, as an exported program holds them, computed by ours, which stay whole at any length."""

from collections.abc import Sequence

import torch
from torch import Tensor


def whole_lstm(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `aten::lstm.input`, without dropout."""
    del dropout, train
    steps = x if batch_first else x.transpose(0, 1)  # (T, B, I) -> (B, T, I)
    listed = _with_biases(weights, has_biases, 4 * states[0].shape[-1])
    y, hn, cn = torch.ops.edgeseq.lstm(steps, states[0], states[1], None, listed, num_layers, bidirectional)
    return y if batch_first else y.transpose(0, 1), hn, cn


def whole_gru(
    x: Tensor,
    state: Tensor,
    weights: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor]:
    """As `aten::gru.input`, without dropout."""
    del dropout, train
    steps = x if batch_first else x.transpose(0, 1)  # (T, B, I) -> (B, T, I)
    listed = _with_biases(weights, has_biases, 3 * state.shape[-1])
    y, hn = torch.ops.edgeseq.gru(steps, state, None, listed, num_layers, bidirectional)
    return y if batch_first else y.transpose(0, 1), hn


def _with_biases(weights: Sequence[Tensor], has_biases: bool, width: int) -> list[Tensor]:
    """Per layer and direction w_ih, w_hh, b_ih, b_hh; zeros for missing biases."""
    if has_biases:
        return list(weights)
    zero = weights[0].new_zeros(width)
    return [tensor for i in range(0, len(weights), 2) for tensor in (weights[i], weights[i + 1], zero, zero)]
