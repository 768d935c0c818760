"""A bidirectional LSTM classifier over a factorised embedding table, after Tang et al. 2019, section 3.1."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeseq.models import Architecture
from edgeseq.models.classifier import Classifier
from edgeseq.models.pooling import masked_max, masked_mean
from edgeseq.operators.lstm import LSTM


@dataclass(frozen=True, kw_only=True)
class BiLSTMSpec:
    """Sizes; `d_model` is the width of the embeddings, `d_hidden` that of each direction."""

    n_vocab: int
    n_classes: int = 2
    d_model: int = 128
    d_hidden: int = 128
    n_layers: int = 1
    dropout: float = 0.3
    pad_token: int = 0


class BiLSTM(Classifier):
    """tokens (B, T) -> logits (B, C). H below is the hidden width of one direction."""

    def __init__(self, spec: BiLSTMSpec):
        super().__init__()
        self.spec = spec
        self.d_states = 2 * spec.d_hidden
        self.embedding = nn.Embedding(spec.n_vocab, spec.d_model)
        self.lstm = LSTM(spec.d_model, spec.d_hidden, spec.n_layers, batch_first=True, bidirectional=True)
        self.head = nn.Linear(4 * spec.d_hidden, spec.n_classes)
        self.dropout = nn.Dropout(spec.dropout)

    def states(self, tokens: Tensor) -> Tensor:
        lengths = (tokens != self.spec.pad_token).sum(1).clamp(min=1)  # (B,)
        x = self.dropout(self.embedding(tokens))  # (B, T, D)
        return self.lstm(x, lengths=lengths)[0]  # (B, T, 2H)

    def pool(self, states: Tensor, valid: Tensor) -> Tensor:
        return torch.cat([masked_mean(states, valid), masked_max(states, valid)], dim=1)  # (B, 4H)


class BiLSTMArchitecture(Architecture):
    spec = BiLSTMSpec

    def build(self, spec: BiLSTMSpec) -> BiLSTM:
        return BiLSTM(spec)


MODEL = BiLSTMArchitecture()
