"""How a model that generates text is called and compared: its signatures, random calls of them, and transformers' answers.

What is expected of a call with caches is computed by transformers alone, with its own caches and attention, a row at a time.

Letters: B batch, T new tokens, S capacity of the cache, N time of a source.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

from edgeseq.capture import Call
from edgeseq.sources._drawing import shape_at
from edgeseq.sources._usage import Draw, Sizes, Usage
from edgeseq.sources.hugging_face import decoder, encoder_decoder, inputs
from edgeseq.sources.hugging_face.caching import Rows
from edgeseq.sources.hugging_face.encoder_decoder import CROSS, MASK
from edgeseq.sources.hugging_face.families import Family
from edgeseq.sources.hugging_face.inputs import EXAMPLE, Feeds

UNSEEN = (
    {"batch": 1, "time": 1, "capacity": 1, "source_time": 1},
    {"batch": 1, "time": 17, "capacity": 5, "source_time": 17},
    {"batch": 3, "time": 2, "capacity": 33, "source_time": 9},
    {"batch": 2, "time": 5, "capacity": 12, "source_time": 40},
)
BENCH = {"batch": 1, "time": 16, "capacity": 128, "source_time": 64}


def usages(model: Any, family: Family) -> list[Usage]:
    """`step` and `prefill` of a decoder; of one with an encoder, `encode` as well."""
    if not model.config.is_encoder_decoder:
        longest = inputs.longest(model.config, family)
        calls = decoder.calls(decoder.cache_shapes(model), inputs.batch_dim(), longest)
        return [_prefilling(model, call, longest) for call in calls]
    source = of_source(model.config, family)
    sizes = inputs.within(source.shapes, EXAMPLE | {"source_time": EXAMPLE["time"]})
    example = source.draw(sizes, np.random.default_rng(0))
    longest = inputs.longest_target(model.config, family)
    prefill, encode = encoder_decoder.calls(model, example, source.shapes, longest, family.positions)
    return [
        _prefilling(model, prefill, longest),
        Usage(
            module=model,
            call=encode,
            draw=source.draw,
            unseen=inputs.all_within(source.shapes, UNSEEN),
            bench=inputs.within(source.shapes, BENCH),
            answer=partial(encoded, model),
        ),
    ]


def of_source(config: Any, family: Family) -> Feeds:
    """What the encoder is fed: the same as in a plain call, less the decoder's tokens, its time by a name of its own."""
    feeds = inputs.of(config, family)
    names = [name for name in feeds.shapes if not name.startswith("decoder_")]

    def draw(sizes: Sizes, rng: np.random.Generator) -> dict[str, Tensor]:
        drawn = feeds.draw({**sizes, "time": sizes.get("source_time", 1), "decoder_time": 1}, rng)
        return {name: drawn[name] for name in names}

    renamed = {
        name: {axis: replace(dim, name="source_time") if dim.name == "time" else dim for axis, dim in axes.items()}
        for name, axes in feeds.shapes.items()
        if name in names
    }
    return Feeds(shapes=renamed, draw=draw)


@torch.no_grad()
def encoded(model: Any, source: Mapping[str, Tensor]) -> list[Tensor]:
    """Keys and values over the encoder's states, of each decoder layer in turn."""
    return [tensor for pair in encoder_decoder.cross_rows(model, source) for tensor in pair]


@torch.no_grad()
def decoded(model: Any, call: Mapping[str, Tensor]) -> list[Tensor]:
    """Logits (B, V) after the last token and the new rows of each cache, by transformers with one row at a time."""
    rows = [
        _decoded_row(model, {name: value[row : row + 1] for name, value in call.items()})
        for row in range(len(call["tokens"]))
    ]
    return [torch.cat(parts) for parts in zip(*rows, strict=True)]


def _decoded_row(model: Any, call: Mapping[str, Tensor]) -> list[Tensor]:
    start = int(call["position"])
    own = _filled([(keys[:, :, :start], values[:, :, :start]) for keys, values in _pairs(call, "")])
    cross = _pairs(call, CROSS)
    if cross:
        mask = {MASK: call[MASK]} if MASK in call else {}
        states = (torch.zeros(1, cross[0][0].shape[2], model.config.d_model),)  # transformers asks for their shape only
        fed = {"encoder_outputs": states, "decoder_input_ids": call["tokens"], **mask}
        result = model(**fed, past_key_values=EncoderDecoderCache(own, _filled(cross)), use_cache=True)
    else:
        result = model(input_ids=call["tokens"], past_key_values=own, use_cache=True)
    new = [tensor[:, :, start:] for layer in own.layers for tensor in (layer.keys, layer.values)]
    return [result.logits[:, -1], *new]


def _filled(rows: Sequence[Rows]) -> DynamicCache:
    """A cache of transformers with these rows; empty where there are none."""
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(rows):
        if keys.shape[2]:
            cache.update(keys, values, layer)
    return cache


def _pairs(call: Mapping[str, Tensor], prefix: str) -> list[Rows]:
    """Keys and values of each layer."""
    layers = sum(name.startswith(f"{prefix}keys_") for name in call)
    return [(call[f"{prefix}keys_{layer}"], call[f"{prefix}values_{layer}"]) for layer in range(layers)]


def _prefilling(model: Any, call: Call, longest: int) -> Usage:
    return Usage(
        module=model,
        call=call,
        draw=_drawing_calls(call, model.config.vocab_size, longest),
        unseen=inputs.all_within(call.dynamic_shapes, UNSEEN),
        bench=inputs.within(call.dynamic_shapes, BENCH),
        answer=partial(decoded, model),
    )


def _drawing_calls(call: Call, n_vocab: int, longest: int) -> Draw:
    """Draws tokens, positions that leave room for them, masks that end in padding, and caches of normal values."""

    def draw(sizes: Sizes, rng: np.random.Generator) -> dict[str, Tensor]:
        furthest = min(sizes["capacity"], longest - sizes["time"])
        return {name: drawn(name, example, sizes, furthest, rng) for name, example in call.examples.items()}

    def drawn(name: str, example: Tensor, sizes: Sizes, furthest: int, rng: np.random.Generator) -> Tensor:
        shape = shape_at(example, call.dynamic_shapes.get(name, {}), sizes)
        if name == MASK:
            return inputs.padded_mask(shape[0], shape[1], rng)
        if example.is_floating_point():
            return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
        return torch.from_numpy(rng.integers(0, n_vocab if name == "tokens" else furthest + 1, shape))

    return draw
