"""Decoders of transformers: `prefill` and `step` with caches as explicit states, as edgeseq/models/gpt.py has them.

Letters: B batch, T new tokens, S capacity of the cache, G heads of keys, K head width, L layers, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor

from edgeseq.capture import Call
from edgeseq.operators.cached_attention import causal_mask
from edgeseq.signature import Dim, State
from edgeseq.sources.hugging_face.caching import NewRows, explicit_caches

EXAMPLE_BATCH, EXAMPLE_TIME, EXAMPLE_CAPACITY = 2, 3, 4


def prefill(model: Any, tokens: Tensor, position: Tensor, *cache: Tensor) -> tuple[Tensor, ...]:
    """What follows tokens (B, T) that come after `position` (B,) others.

    Args:
        model: A causal language model of transformers.
        tokens: (B, T).
        position: (B,) rows of the cache in use.
        cache: Keys and values of each layer in turn, 2L × (B, G, S, K).

    Returns:
        Logits (B, V) of the token after the last one, and the new rows of the cache, 2L × (B, G, T, K).
    """
    rows = NewRows(list(zip(cache[::2], cache[1::2], strict=True)), position[:, None])
    steps = torch.arange(tokens.shape[1], device=tokens.device)  # (T,)
    with explicit_caches(model):
        result = model(
            input_ids=tokens,
            attention_mask=causal_mask(position, tokens.shape[1], cache[0].shape[2]),  # (B, 1, T, T + S)
            position_ids=position[:, None] + steps,  # (B, T)
            past_key_values=rows,
            use_cache=True,
            logits_to_keep=1,
            own_rows=rows,
        )
    return result.logits[:, -1], *rows.rows


def calls(shapes: list[tuple[int, int]], batch: Dim, longest: int) -> tuple[Call, ...]:
    """How to capture `step` and `prefill`: one program.

    Args:
        shapes: Heads of keys and their width in each layer.
        batch: The batch.
        longest: How many tokens the positions last for.
    """
    names = cache_names(len(shapes))
    caches, capacity = example_caches(names, shapes), Dim(name="capacity", min=1, max=longest)
    tokens = torch.ones(EXAMPLE_BATCH, EXAMPLE_TIME, dtype=torch.int64)
    axes = {"tokens": {0: batch, 1: Dim(name="time", min=1, max=longest)}, "position": {0: batch}}
    return (
        Call(
            name="prefill",
            method=prefill,
            examples={"tokens": tokens, "position": torch.tensor([2, 3]), **caches},
            dynamic_shapes=axes | {name: {0: batch, 2: capacity} for name in names},
            output_names=("logits", *(f"new_{name}" for name in names)),
            states=cache_states(names),
            cases={"step": {"time": 1}},
        ),
    )


def cache_names(n_layers: int) -> list[str]:
    """Of the caches' inputs."""
    return [f"{kind}_{layer}" for layer in range(n_layers) for kind in ("keys", "values")]


def cache_states(names: list[str]) -> tuple[State, ...]:
    """Caches along axis 2."""
    return tuple(State(input=name, output=f"new_{name}", axis=2, position="position") for name in names)


def example_caches(names: list[str], shapes: list[tuple[int, int]]) -> dict[str, Tensor]:
    """Zeros (B, G, S, K)."""
    twice = [shape for shape in shapes for _ in ("keys", "values")]
    return {
        name: torch.zeros(EXAMPLE_BATCH, heads, EXAMPLE_CAPACITY, width)
        for name, (heads, width) in zip(names, twice, strict=True)
    }


@torch.no_grad()
def cache_shapes(model: Any) -> list[tuple[int, int]]:
    """Heads of keys and their width in each layer, as one token leaves them in transformers' own cache."""
    cache = model(input_ids=torch.zeros(1, 1, dtype=torch.int64), use_cache=True).past_key_values
    return [(layer.keys.shape[1], layer.keys.shape[3]) for layer in cache.layers]
