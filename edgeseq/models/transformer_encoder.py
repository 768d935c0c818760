"""A small pre-norm Transformer encoder (Xiong et al. 2020) with a convolutional stem, for classification."""

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


class Stem(nn.Module):
    """What a token, the one before it and the one after it mean together: a convolution of width 3, then a residual.

    Transformers for speech begin like this (Radford et al. 2022); on little text too it learns what neighbours mean sooner
    than attention does. Written as three linear layers on gathered inputs, since coremltools 9.0 cannot tell that a
    convolution, or a slice of a padded tensor, keeps a symbolic length.
    """

    def __init__(self, d_model: int):
        super().__init__()
        self.before = nn.Linear(d_model, d_model, bias=False)
        self.here = nn.Linear(d_model, d_model)
        self.after = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Inputs (B, T, D), zero where padded, and positions (T,) from 0 on -> (B, T, D)."""
        has_previous = (positions > 0).to(positions.dtype)  # (T,)
        has_following = (positions < positions.shape[0] - 1).to(positions.dtype)  # (T,)
        previous = x.index_select(1, positions - has_previous) * has_previous.to(x.dtype)[:, None]  # (B, T, D)
        following = x.index_select(1, positions + has_following) * has_following.to(x.dtype)[:, None]  # (B, T, D)
        return x + F.relu(self.before(previous) + self.here(x) + self.after(following))


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
        self.stem = Stem(spec.d_model)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.n_layers))
        self.norm = nn.LayerNorm(spec.d_model)
        self.head = nn.Linear(2 * spec.d_model, spec.n_classes)
        self.dropout = nn.Dropout(spec.dropout)

    def states(self, tokens: Tensor) -> Tensor:
        valid = tokens != self.spec.pad_token  # (B, T)
        mask = additive_mask(valid)  # (B, 1, 1, T)
        positions = torch.arange(tokens.shape[1], device=tokens.device)  # (T,)
        x = self.dropout(self.embedding(tokens) + self.position(positions))  # (B, T, D)
        x = self.stem(x * valid.to(x.dtype).unsqueeze(2), positions)
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
