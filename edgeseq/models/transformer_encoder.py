"""A small pre-norm Transformer encoder (Xiong et al. 2020) for classification, over a factorised embedding table."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseq.models import Architecture
from edgeseq.models.attention import MultiHeadAttention, additive_mask
from edgeseq.models.classifier import Classifier
from edgeseq.models.pooling import masked_max, masked_mean

POSITION_SCALE = 0.3  # root mean square of the positions at the start, that of embeddings taken from a teacher


@dataclass(frozen=True, kw_only=True)
class TransformerEncoderSpec:
    """Sizes; `d_model` is even, positions are learned and end at `max_length`."""

    n_vocab: int
    n_classes: int = 2
    d_model: int = 128
    d_feedforward: int = 256
    n_layers: int = 2
    n_heads: int = 4
    max_length: int = 512
    dropout: float = 0.2
    pad_token: int = 0


class Block(nn.Module):
    """Norm, attention, residual; norm, feed-forward, residual."""

    def __init__(self, spec: TransformerEncoderSpec):
        super().__init__()
        self.attention_norm = nn.LayerNorm(spec.d_model)
        self.attention = MultiHeadAttention(spec.d_model, spec.n_heads)
        self.feedforward_norm = nn.LayerNorm(spec.d_model)
        self.up = nn.Linear(spec.d_model, spec.d_feedforward)
        self.down = nn.Linear(spec.d_feedforward, spec.d_model)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), mask)
        return x + self.down(F.relu(self.up(self.feedforward_norm(x))))


class TransformerEncoder(Classifier):
    """tokens (B, T) -> logits (B, C)."""

    def __init__(self, spec: TransformerEncoderSpec):
        super().__init__()
        self.spec = spec
        self.d_states = spec.d_model
        self.embedding = nn.Embedding(spec.n_vocab, spec.d_model)
        self.position = nn.Embedding(spec.max_length, spec.d_model)
        with torch.no_grad():
            self.position.weight.copy_(POSITION_SCALE * sinusoids(spec.max_length, spec.d_model))
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.n_layers))
        self.norm = nn.LayerNorm(spec.d_model)
        self.head = nn.Linear(2 * spec.d_model, spec.n_classes)
        self.dropout = nn.Dropout(spec.dropout)

    def states(self, tokens: Tensor) -> Tensor:
        mask = additive_mask(tokens != self.spec.pad_token)  # (B, 1, 1, T)
        positions = torch.arange(tokens.shape[1], device=tokens.device)  # (T,)
        x = self.dropout(self.embedding(tokens) + self.position(positions))  # (B, T, D)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)  # (B, T, D)

    def pool(self, states: Tensor, valid: Tensor) -> Tensor:
        return torch.cat([masked_mean(states, valid), masked_max(states, valid)], dim=1)  # (B, 2D)


def sinusoids(length: int, width: int) -> Tensor:
    """(length, width) with a root mean square of 1: sines, then cosines, of wavelengths from 2π to 20,000π.

    Vaswani et al. 2017, section 3.5. A start only: on little data attention learns to find neighbours from it, but not from
    noise.
    """
    angles = torch.arange(length).unsqueeze(1) / 10_000 ** (torch.arange(0, width, 2) / width)
    return math.sqrt(2) * torch.cat([angles.sin(), angles.cos()], dim=1)


class TransformerEncoderArchitecture(Architecture):
    spec = TransformerEncoderSpec

    def build(self, spec: TransformerEncoderSpec) -> TransformerEncoder:
        return TransformerEncoder(spec)


MODEL = TransformerEncoderArchitecture()
