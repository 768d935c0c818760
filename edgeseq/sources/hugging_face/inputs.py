"""What a pretrained model is fed: examples to capture it with, and random inputs of any size, some rows padded.

Letters: B batch, T time, S time of a decoder.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeseq.capture import DynamicShapes
from edgeseq.signature import Dim
from edgeseq.sources._usage import Draw, Sizes
from edgeseq.sources.hugging_face.families import Family

MAX_BATCH = 64
MAX_LENGTH = 512  # where positions are relative and nothing bounds it
EXAMPLE = {"batch": 2, "time": 12, "decoder_time": 7}
UNSEEN = (
    {"batch": 1, "time": 1, "decoder_time": 1},
    {"batch": 1, "time": 17, "decoder_time": 5},
    {"batch": 2, "time": 40, "decoder_time": 12},
    {"batch": 3, "time": 9, "decoder_time": 3},
    {"batch": 1, "time": 128, "decoder_time": 24},
    {"batch": 1, "time": 512, "decoder_time": 64},  # as far as the positions last
)
BENCH = {"batch": 1, "time": 128, "decoder_time": 16}


@dataclass(frozen=True, kw_only=True)
class Feeds:
    """The inputs of one kind of model."""

    shapes: DynamicShapes
    draw: Draw


def within(shapes: DynamicShapes, sizes: Sizes) -> Sizes:
    """The sizes of the dimensions there are, within their bounds."""
    dims = {dim.name: dim for axes in shapes.values() for dim in axes.values()}
    return {name: min(max(sizes[name], dim.min), dim.max) for name, dim in dims.items()}


def all_within(shapes: DynamicShapes, every: Sequence[Sizes]) -> Sequence[Sizes]:
    """Each of several sizes, once."""
    return [dict(items) for items in dict.fromkeys(tuple(within(shapes, sizes).items()) for sizes in every)]


def of(config: Any, family: Family) -> Feeds:
    """What a model of this configuration is fed."""
    kinds: Mapping[str, Callable[[Any, Family], Feeds]] = {
        "text": text,
        "image": image,
        "sequence_to_sequence": sequence_to_sequence,
        "speech": speech,
    }
    return kinds[family.kind](config, family)


def text(config: Any, family: Family) -> Feeds:
    """input_ids, attention_mask and, where there are several, token_type_ids (B, T)."""
    has_types = getattr(config, "type_vocab_size", 0) > 1
    names = ("input_ids", "attention_mask", *(("token_type_ids",) if has_types else ()))
    axes = {0: batch_dim(), 1: Dim(name="time", min=family.min_length, max=longest(config, family))}

    def draw(sizes: Sizes, rng: np.random.Generator) -> dict[str, Tensor]:
        mask = padded_mask(sizes["batch"], sizes["time"], rng)
        fed = {"input_ids": _ids(config, mask, rng), "attention_mask": mask}
        return fed | ({"token_type_ids": _second_half(mask)} if has_types else {})

    return Feeds(shapes=dict.fromkeys(names, axes), draw=draw)


def image(config: Any, family: Family) -> Feeds:
    """pixel_values (B, C, height, width); all but the batch is fixed."""
    del family
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size

    def draw(sizes: Sizes, rng: np.random.Generator) -> dict[str, Tensor]:
        return {"pixel_values": _normal((sizes["batch"], config.num_channels, height, width), rng)}

    return Feeds(shapes={"pixel_values": {0: batch_dim()}}, draw=draw)


def sequence_to_sequence(config: Any, family: Family) -> Feeds:
    """input_ids, attention_mask (B, T), decoder_input_ids (B, S)."""
    batch, most = batch_dim(), longest(config, family)
    axes = {0: batch, 1: Dim(name="time", min=family.min_length, max=most)}
    decoder_axes = {0: batch, 1: Dim(name="decoder_time", min=1, max=most)}

    def draw(sizes: Sizes, rng: np.random.Generator) -> dict[str, Tensor]:
        mask = padded_mask(sizes["batch"], sizes["time"], rng)
        whole = torch.ones(sizes["batch"], sizes["decoder_time"], dtype=torch.int64)
        ids = {"input_ids": _ids(config, mask, rng), "attention_mask": mask}
        return ids | {"decoder_input_ids": _ids(config, whole, rng)}

    shapes = {"input_ids": axes, "attention_mask": axes, "decoder_input_ids": decoder_axes}
    return Feeds(shapes=shapes, draw=draw)


def speech(config: Any, family: Family) -> Feeds:
    """input_features (B, mel bins, frames), of a fixed number of frames; decoder_input_ids (B, S)."""
    del family
    batch = batch_dim()
    frames = 2 * config.max_source_positions  # the second convolution halves them

    def draw(sizes: Sizes, rng: np.random.Generator) -> dict[str, Tensor]:
        whole = torch.ones(sizes["batch"], sizes["decoder_time"], dtype=torch.int64)
        features = _normal((sizes["batch"], config.num_mel_bins, frames), rng)
        return {"input_features": features, "decoder_input_ids": _ids(config, whole, rng)}

    time = Dim(name="decoder_time", min=1, max=config.max_target_positions)
    return Feeds(shapes={"input_features": {0: batch}, "decoder_input_ids": {0: batch, 1: time}}, draw=draw)


def batch_dim() -> Dim:
    """The batch of every model."""
    return Dim(name="batch", min=1, max=MAX_BATCH)


def longest(config: Any, family: Family) -> int:
    """Tokens that the positions last for."""
    positions = getattr(config, "max_position_embeddings", None) or MAX_LENGTH
    return int(positions) - (_padding(config) + 1 if family.positions_from_padding else 0)


def _padding(config: Any) -> int:
    """The token that fills what is masked; 0 where the configuration has none, or says so by -1."""
    return max(getattr(config, "pad_token_id", None) or 0, 0)


def longest_target(config: Any, family: Family) -> int:
    """Tokens that the positions of a decoder with an encoder last for."""
    return getattr(config, "max_target_positions", None) or longest(config, family)


def padded_mask(batch: int, time: int, rng: np.random.Generator) -> Tensor:
    """(B, T) 1 within each row, 0 in its padding; the first row is full."""
    lengths = rng.integers(1, time + 1, (batch, 1))
    lengths[0] = time
    return torch.from_numpy((np.arange(time) < lengths).astype(np.int64))


def _ids(config: Any, mask: Tensor, rng: np.random.Generator) -> Tensor:
    """Random tokens other than the padding's, which fills what is masked."""
    padding = _padding(config)
    ids = rng.integers(0, config.vocab_size - 1, tuple(mask.shape))
    ids += ids >= padding
    return torch.from_numpy(np.where(mask.numpy() == 1, ids, padding))


def _second_half(mask: Tensor) -> Tensor:
    """Type 1 for the second half of each row, 0 for the rest and the padding."""
    steps = torch.arange(mask.shape[1])
    return ((steps >= mask.sum(1, keepdim=True) // 2) & (mask == 1)).long()


def _normal(shape: tuple[int, ...], rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
