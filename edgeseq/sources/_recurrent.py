"""Recurrent operators of ATen, as an exported program holds them, computed by ours, which stay whole at any length.

Each takes what the operator of ATen takes that it is named after.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from edgeseq import operators

operators.load_all()


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
    listed = _with_biases(weights, has_biases, num_layers * (2 if bidirectional else 1))
    y, hn, cn = torch.ops.edgeseq.lstm(steps, states[0], states[1], None, listed, num_layers, bidirectional)
    return y if batch_first else y.transpose(0, 1), hn, cn


def whole_gru(x: Tensor, state: Tensor, *layout: Any) -> tuple[Tensor, Tensor]:
    """As `aten::gru.input`, without dropout."""
    return _with_one_state(torch.ops.edgeseq.gru, x, state, *layout)


def whole_rnn_tanh(x: Tensor, state: Tensor, *layout: Any) -> tuple[Tensor, Tensor]:
    """As `aten::rnn_tanh.input`, without dropout."""
    return _with_one_state(torch.ops.edgeseq.rnn, x, state, *layout, options=("tanh",))


def whole_rnn_relu(x: Tensor, state: Tensor, *layout: Any) -> tuple[Tensor, Tensor]:
    """As `aten::rnn_relu.input`, without dropout."""
    return _with_one_state(torch.ops.edgeseq.rnn, x, state, *layout, options=("relu",))


def _with_one_state(
    operator: Callable[..., Any],
    x: Tensor,
    state: Tensor,
    weights: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    *,
    options: tuple[str, ...] = (),
) -> tuple[Tensor, Tensor]:
    del dropout, train
    steps = x if batch_first else x.transpose(0, 1)  # (T, B, I) -> (B, T, I)
    listed = _with_biases(weights, has_biases, num_layers * (2 if bidirectional else 1))
    y, hn = operator(steps, state, None, listed, num_layers, bidirectional, *options)
    return y if batch_first else y.transpose(0, 1), hn


def _with_biases(weights: Sequence[Tensor], has_biases: bool, rows: int) -> list[Tensor]:
    """For each of the layers' directions w_ih, w_hh, b_ih, b_hh, and w_hr if there is one; zeros for missing biases."""
    if has_biases:
        return list(weights)
    each = len(weights) // rows
    listed: list[Tensor] = []
    for i in range(0, len(weights), each):
        w_ih, w_hh, *projection = weights[i : i + each]
        zero = w_ih.new_zeros(w_ih.shape[0])
        listed += [w_ih, w_hh, zero, zero, *projection]
    return listed
