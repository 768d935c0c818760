"""A GPT, Radford et al. 2019: a pre-norm Transformer decoder with learned positions, and one table for both ends.

It is built in Python only and ends with no `MODEL`: recipes train classifiers.

Letters: B batch, T new tokens, S capacity of the cache, D model width, H heads, K head width, L layers, V vocabulary.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseq.capture import Call
from edgeseq.operators.cached_attention import cached_attention, causal_mask
from edgeseq.signature import Dim, State

MAX_BATCH = 64  # of an exported decoder


@dataclass(frozen=True, kw_only=True)
class GPTSpec:
    """Sizes; prompts and what follows them end at `max_length`."""

    n_vocab: int
    d_model: int = 384
    n_layers: int = 6
    n_heads: int = 6
    max_length: int = 256
    dropout: float = 0.0


class CausalSelfAttention(nn.Module):
    """Every token attends to itself and those before it."""

    def __init__(self, spec: GPTSpec):
        super().__init__()
        self.n_heads, self.dropout = spec.n_heads, spec.dropout
        self.query = nn.Linear(spec.d_model, spec.d_model)
        self.key = nn.Linear(spec.d_model, spec.d_model)
        self.value = nn.Linear(spec.d_model, spec.d_model)
        self.output = nn.Linear(spec.d_model, spec.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Whole sequences (B, T, D) -> (B, T, D)."""
        q, k, v = self.heads(self.query(x)), self.heads(self.key(x)), self.heads(self.value(x))  # each (B, H, T, K)
        dropout = self.dropout if self.training else 0.0
        return self.merged(F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout))

    def extend(self, x: Tensor, mask: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """New rows (B, T, D) after those in the cache 2 × (B, H, S, K) -> (B, T, D), their keys and values (B, H, T, K)."""
        q, k, v = self.heads(self.query(x)), self.heads(self.key(x)), self.heads(self.value(x))  # each (B, H, T, K)
        return self.merged(cached_attention(q, k, v, keys, values, mask)), k, v

    def heads(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, H, T, K)."""
        return x.view(x.shape[0], x.shape[1], self.n_heads, -1).transpose(1, 2)

    def merged(self, y: Tensor) -> Tensor:
        """(B, H, T, K) -> (B, T, D)."""
        return self.output(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Norm, attention, residual; norm, feed-forward, residual."""

    def __init__(self, spec: GPTSpec):
        super().__init__()
        self.attention_norm = nn.LayerNorm(spec.d_model)
        self.attention = CausalSelfAttention(spec)
        self.feedforward_norm = nn.LayerNorm(spec.d_model)
        self.up = nn.Linear(spec.d_model, 4 * spec.d_model)
        self.down = nn.Linear(4 * spec.d_model, spec.d_model)
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        return self.feedforward(x)

    def extend(self, x: Tensor, mask: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, k, v = self.attention.extend(self.attention_norm(x), mask, keys, values)
        return self.feedforward(x + y), k, v

    def feedforward(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.down(F.gelu(self.up(self.feedforward_norm(x)), approximate="tanh")))


class GPT(nn.Module):
    """tokens (B, T) -> logits (B, T, V) of the next ones; token by token with a cache through `prefill`."""

    def __init__(self, spec: GPTSpec):
        super().__init__()
        self.spec = spec
        self.embedding = nn.Embedding(spec.n_vocab, spec.d_model)  # also the head's weight
        self.position = nn.Embedding(spec.max_length, spec.d_model)
        self.dropout = nn.Dropout(spec.dropout)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.n_layers))
        self.norm = nn.LayerNorm(spec.d_model)
        self.apply(self._initialize)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)  # (T,)
        x = self.dropout(self.embedding(tokens) + self.position(positions))  # (B, T, D)
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.embedding.weight)  # (B, T, V)

    def prefill(self, tokens: Tensor, position: Tensor, *cache: Tensor) -> tuple[Tensor, ...]:
        """What follows tokens (B, T) that come after `position` (B,) others; a `step` is one with T = 1.

        Args:
            tokens: (B, T).
            position: (B,) rows of the cache in use.
            cache: Keys and values of each layer in turn, 2L × (B, H, S, K).

        Returns:
            Logits (B, V) of the token after the last one, and the new rows of the cache, 2L × (B, H, T, K).
        """
        steps = torch.arange(tokens.shape[1], device=tokens.device)  # (T,)
        x = self.embedding(tokens) + self.position(position[:, None] + steps)  # (B, T, D)
        mask = causal_mask(position, tokens.shape[1], cache[0].shape[2])  # (B, 1, T, T + S)
        new: list[Tensor] = []
        for block, keys, values in zip(self.blocks, cache[::2], cache[1::2], strict=True):
            assert isinstance(block, Block), "as they were made"
            x, k, v = block.extend(x, mask, keys, values)
            new += [k, v]
        return F.linear(self.norm(x[:, -1]), self.embedding.weight), *new

    def calls(self) -> tuple[Call, ...]:
        """How to capture `step` and `prefill`: one program."""
        spec = self.spec
        batch, capacity = Dim(name="batch", min=1, max=MAX_BATCH), Dim(name="capacity", min=1, max=spec.max_length)
        names = [f"{kind}_{layer}" for layer in range(spec.n_layers) for kind in ("keys", "values")]
        shape = (2, spec.n_heads, 4, spec.d_model // spec.n_heads)
        inputs = {"tokens": torch.ones(2, 3, dtype=torch.int64), "position": torch.tensor([2, 3])}
        axes = {"tokens": {0: batch, 1: Dim(name="time", min=1, max=spec.max_length)}, "position": {0: batch}}
        return (
            Call(
                name="prefill",
                method="prefill",
                examples=inputs | {name: torch.zeros(shape) for name in names},
                dynamic_shapes=axes | {name: {0: batch, 2: capacity} for name in names},
                output_names=("logits", *(f"new_{name}" for name in names)),
                states=tuple(State(input=n, output=f"new_{n}", axis=2, position="position") for n in names),
                cases={"step": {"time": 1}},
            ),
        )

    def _initialize(self, module: nn.Module) -> None:
        """Radford et al. 2019, section 2.3: residual layers start smaller by the square root of their number."""
        if isinstance(module, nn.Embedding | nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, Block):
            for layer in (module.attention.output, module.down):
                nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * self.spec.n_layers))
