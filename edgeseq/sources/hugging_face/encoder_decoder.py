"""Encoder-decoders of transformers: `encode`, `prefill` and `step`.

`encode` gives each decoder layer's keys and values over the encoder's states, which `prefill` and `step` take as they are:
they are computed once a source, and neither the encoder's states nor those layers' weights are needed afterwards.

Letters: B batch, N time of the source, T new tokens, S capacity of the cache, H heads, K head width, L decoder layers,
V vocabulary.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from edgeseq.capture import Call, DynamicShapes
from edgeseq.operators.cached_attention import causal_mask
from edgeseq.signature import Dim
from edgeseq.sources.hugging_face.caching import GivenRows, NewRows, Rows, additive, both, explicit_caches
from edgeseq.sources.hugging_face.decoder import (
    EXAMPLE_BATCH,
    EXAMPLE_TIME,
    cache_names,
    cache_states,
    example_caches,
)
from edgeseq.sources.hugging_face.families import Positions

MASK = "attention_mask"
CROSS = "cross_"  # what the names of keys and values over the encoder's states begin with


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """The way to call the encoder."""

    names: tuple[str, ...]  # of what it takes

    def encode(self, model: Any, *source: Tensor) -> list[Tensor]:
        """Keys and values of each decoder layer over the encoder's states, 2L × (B, H, N, K).

        Args:
            model: A sequence-to-sequence model of transformers.
            source: Such as tokens and their mask, both (B, N).
        """
        fed = {name: additive(x) if name == MASK else x for name, x in zip(self.names, source, strict=True)}
        cross = NewRows([], 0)
        start = torch.zeros(source[0].shape[0], 1, dtype=torch.int64)  # what the decoder makes of it is not used
        with explicit_caches(model):
            model(**fed, decoder_input_ids=start, past_key_values=both(NewRows([], 0), cross), use_cache=True)
        return cross.rows


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """The way to call the decoder."""

    names: tuple[str, ...]  # of what it takes besides tokens and position
    positions: Positions
    buckets: Sequence[int] = ()  # of relative positions, by distance

    def prefill(self, model: Any, tokens: Tensor, position: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        """What follows tokens (B, T) that come after `position` (B,) others, for the source that was encoded.

        Args:
            model: A sequence-to-sequence model of transformers.
            tokens: (B, T).
            position: (B,) rows of the cache in use.
            given: The source's mask (B, N), the caches 2L × (B, H, S, K), and what `encode` gave, 2L × (B, H, N, K).

        Returns:
            Logits (B, V) of the token after the last one, and the new rows of the cache, 2L × (B, H, T, K).
        """
        mask, caches, cross = self.sorted(given)
        own = NewRows(caches, 0 if self.positions == "relative" else position[:, None])
        seen = causal_mask(position, tokens.shape[1], caches[0][0].shape[2])  # (B, 1, T, T + S)
        if self.positions == "relative":
            seen = seen + self.bias(model, position, tokens.shape[1], caches[0][0].shape[2])  # (B, H, T, T + S)
        where = position[:, None] + torch.arange(tokens.shape[1])  # (B, T)
        with explicit_caches(model), _a_position_a_row(model) if self.positions == "of_cache" else nullcontext():
            result = model(
                encoder_outputs=BaseModelOutput(last_hidden_state=cross[0][0]),  # its values count for nothing
                decoder_input_ids=tokens,
                decoder_attention_mask=seen,
                past_key_values=both(own, GivenRows(cross)),
                use_cache=True,
                own_rows=own,
                **({} if mask is None else {MASK: additive(mask)}),
                **({"decoder_position_ids": where} if self.positions == "given" else {}),
            )
        return result.logits[:, -1], *own.rows

    def sorted(self, given: Sequence[Tensor]) -> tuple[Tensor | None, list[Rows], list[Rows]]:
        """The mask, each layer's cache, and each layer's rows over the encoder's states."""
        named = dict(zip(self.names, given, strict=True))
        mask = named.pop(MASK, None)
        cross = [value for name, value in named.items() if name.startswith(CROSS)]
        own = [value for name, value in named.items() if not name.startswith(CROSS)]
        return mask, list(zip(own[::2], own[1::2], strict=True)), list(zip(cross[::2], cross[1::2], strict=True))

    def bias(self, model: Any, position: Tensor, count: int, capacity: int) -> Tensor:
        """Of relative positions (Raffel et al. 2020, section 2.1), to new rows and to the cache: (B, H, T, T + S)."""
        new, past = torch.arange(count), torch.arange(capacity)
        to_new = (new[:, None] - new).expand(position.shape[0], -1, -1)  # (B, T, T)
        to_past = position[:, None, None] + new[:, None] - past  # (B, T, S)
        distance = torch.cat([to_new, to_past], dim=-1).clamp(0, len(self.buckets) - 1)
        of_distance: Tensor = _with_relative_positions(model).relative_attention_bias(torch.tensor(self.buckets))
        return of_distance[distance].permute(0, 3, 1, 2)


def calls(
    model: Any, source: Mapping[str, Tensor], shapes: DynamicShapes, longest: int, positions: Positions
) -> tuple[Call, ...]:
    """How to capture `step` and `prefill`, which are one program, and `encode`.

    Args:
        model: A sequence-to-sequence model of transformers.
        source: Examples of what the encoder takes.
        shapes: Which axes of them vary; the first is the batch.
        longest: How many tokens the decoder's positions last for.
        positions: How the decoder knows where its tokens are.
    """
    rows = cross_rows(model, source)
    names = cache_names(len(rows))
    cross_names = [f"{CROSS}{name}" for name in names]
    layers = [(keys.shape[1], keys.shape[3]) for keys, _ in rows]
    mask = {name: value for name, value in source.items() if name == MASK}
    cross = dict(zip(cross_names, (x for pair in rows for x in pair), strict=True))
    caches = example_caches(names, layers)
    tokens = torch.ones(EXAMPLE_BATCH, EXAMPLE_TIME, dtype=torch.int64)
    given = {**mask, **caches, **cross}
    decoding = Decoding(names=tuple(given), positions=positions, buckets=buckets(model, positions))
    return (
        Call(
            name="prefill",
            method=decoding.prefill,
            examples={"tokens": tokens, "position": torch.tensor([2, 3]), **given},
            dynamic_shapes=_axes(shapes, longest, names, cross_names),
            output_names=("logits", *(f"new_{name}" for name in names)),
            states=cache_states(names),
            cases={"step": {"time": 1}},
        ),
        Call(
            name="encode",
            method=Encoding(names=tuple(source)).encode,
            examples=source,
            dynamic_shapes=shapes,
            output_names=tuple(cross_names),
        ),
    )


def _axes(shapes: DynamicShapes, longest: int, names: Sequence[str], cross_names: Sequence[str]) -> DynamicShapes:
    """Which axes of what `prefill` takes vary; `names` are those of the caches."""
    batch, times = _dims(shapes)
    time, capacity = (Dim(name=name, min=1, max=longest) for name in ("time", "capacity"))
    return {
        "tokens": {0: batch, 1: time},
        "position": {0: batch},
        **{name: axes for name, axes in shapes.items() if name == MASK},
        **{name: {0: batch, 2: capacity} for name in names},
        **{name: dict(zip((0, 2), (batch, *times), strict=False)) for name in cross_names},
    }


@torch.no_grad()
def cross_rows(model: Any, source: Mapping[str, Tensor]) -> list[Rows]:
    """Keys and values over the encoder's states of each decoder layer, as transformers' own cache holds them."""
    start = torch.zeros(len(next(iter(source.values()))), 1, dtype=torch.int64)
    cache = model(**source, decoder_input_ids=start, use_cache=True).past_key_values.cross_attention_cache
    return [(layer.keys, layer.values) for layer in cache.layers]


def buckets(model: Any, positions: Positions) -> list[int]:
    """Which of its biases a decoder with relative positions uses at each distance, up to that from which all are alike."""
    if positions != "relative":
        return []
    attention = _with_relative_positions(model)
    longest = attention.relative_attention_max_distance
    found: Tensor = attention._relative_position_bucket(
        -torch.arange(longest + 1),
        bidirectional=False,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=longest,
    )
    return found.tolist()


def _with_relative_positions(model: Any) -> Any:
    """The decoder's layer that knows them."""
    return next(m for m in model.get_decoder().modules() if getattr(m, "has_relative_attention_bias", False))


def _dims(shapes: DynamicShapes) -> tuple[Dim, list[Dim]]:
    """The batch, and the time of the source if it varies."""
    dims = list({dim.name: dim for axes in shapes.values() for dim in axes.values()}.values())
    return dims[0], dims[1:]


@contextmanager
def _a_position_a_row(model: Any) -> Iterator[None]:
    """While it lasts, the decoder numbers the tokens of each row on their own.

    Position embeddings expect those of one row, (T,), and some add the batch's axis: what (B, T) give has it already.
    """

    def without_added_axis(module: nn.Module, inputs: Any, embedded: Tensor) -> Tensor:
        del module, inputs
        return embedded.flatten(0, -3)  # (1, B, T, D) -> (B, T, D)

    hook = model.get_decoder().embed_positions.register_forward_hook(without_added_axis)
    try:
        yield
    finally:
        hook.remove()
