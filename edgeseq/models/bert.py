"""BERT, Devlin et al. 2019: a post-norm Transformer encoder, with a classification head over mean-pooled tokens.

Module names map one to one to the checkpoints of the `transformers` library, so real weights load by renaming.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseq.models import Architecture
from edgeseq.models.attention import MultiHeadAttention, additive_mask
from edgeseq.models.classifier import Classifier
from edgeseq.models.pooling import masked_mean


@dataclass(frozen=True, kw_only=True)
class BertSpec:
    """The published sizes; the defaults are MiniLM-L6's (Wang et al. 2020)."""

    n_vocab: int = 30522
    n_classes: int = 2
    d_model: int = 384
    d_feedforward: int = 1536
    n_layers: int = 6
    n_heads: int = 12
    max_length: int = 512
    dropout: float = 0.1
    layer_norm_eps: float = 1e-12
    pad_token: int = 0


class Block(nn.Module):
    """Attention and feed-forward, each with a residual and then a norm."""

    def __init__(self, spec: BertSpec):
        super().__init__()
        self.attention = MultiHeadAttention(spec.d_model, spec.n_heads)
        self.attention_norm = nn.LayerNorm(spec.d_model, eps=spec.layer_norm_eps)
        self.up = nn.Linear(spec.d_model, spec.d_feedforward)
        self.down = nn.Linear(spec.d_feedforward, spec.d_model)
        self.feedforward_norm = nn.LayerNorm(spec.d_model, eps=spec.layer_norm_eps)
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention_norm(x + self.dropout(self.attention(x, mask)))
        return self.feedforward_norm(x + self.dropout(self.down(F.gelu(self.up(x)))))


class Bert(Classifier):
    """tokens (B, T) -> logits (B, C)."""

    def __init__(self, spec: BertSpec):
        super().__init__()
        self.spec = spec
        self.d_states = spec.d_model
        self.embedding = nn.Embedding(spec.n_vocab, spec.d_model)
        self.position = nn.Embedding(spec.max_length, spec.d_model)
        self.segment = nn.Embedding(2, spec.d_model)  # every token is of segment 0
        self.embedding_norm = nn.LayerNorm(spec.d_model, eps=spec.layer_norm_eps)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.n_layers))
        self.dropout = nn.Dropout(spec.dropout)
        self.head = nn.Linear(spec.d_model, spec.n_classes)

    def states(self, tokens: Tensor) -> Tensor:
        mask = additive_mask(tokens != self.spec.pad_token)
        positions = torch.arange(tokens.shape[1], device=tokens.device)  # (T,)
        x = self.embedding(tokens) + self.position(positions) + self.segment.weight[0]  # (B, T) -> (B, T, D)
        x = self.dropout(self.embedding_norm(x))
        for block in self.blocks:
            x = block(x, mask)
        return x

    def pool(self, states: Tensor, valid: Tensor) -> Tensor:
        return masked_mean(states, valid)  # (B, D)


# Our names -> those of a `transformers` BertModel checkpoint.
CHECKPOINT_NAMES = {
    "embedding": "embeddings.word_embeddings",
    "position": "embeddings.position_embeddings",
    "segment": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "feedforward_norm": "output.LayerNorm",
}


def load_checkpoint(model: Bert, weights: dict[str, Tensor]) -> None:
    """Copy a `transformers` BertModel's weights into `model`; the classification head keeps its own."""
    renamed = {}
    for key in model.state_dict():
        if key.startswith("head."):
            continue
        layer, _, parameter = key.rpartition(".")
        prefix, inner = "", layer
        if layer.startswith("blocks."):
            _, number, inner = layer.split(".", 2)
            prefix = f"encoder.layer.{number}."
        renamed[key] = weights[f"{prefix}{CHECKPOINT_NAMES[inner]}.{parameter}"]
    model.load_state_dict(renamed, strict=False)


class BertArchitecture(Architecture):
    spec = BertSpec

    def build(self, spec: BertSpec) -> Bert:
        return Bert(spec)


MODEL = BertArchitecture()
