"""Which of transformers' architectures are converted, by `model_type`, and what each is fed."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "image", "sequence_to_sequence", "speech"]
Positions = Literal["given", "of_cache", "relative"]
"""How a decoder knows where its tokens are: told, counted from the length of its cache, or by their distances."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """What the models of one type have in common."""

    kind: Kind
    min_length: int = 1  # tokens
    positions_from_padding: bool = False  # positions are numbered from the padding's id + 1 on, as in fairseq
    positions: Positions = "given"  # of a decoder's tokens


FAMILIES = {
    "albert": Family(kind="text"),
    "bart": Family(kind="sequence_to_sequence", positions="of_cache"),
    "bert": Family(kind="text"),
    "deit": Family(kind="image"),
    "distilbert": Family(kind="text"),
    "gpt2": Family(kind="text"),
    "llama": Family(kind="text"),
    "marian": Family(kind="sequence_to_sequence", positions="of_cache"),
    "mobilebert": Family(kind="text", min_length=3),  # its embedding looks at both neighbours: torch.export needs three
    "opt": Family(kind="text"),
    "roberta": Family(kind="text", positions_from_padding=True),
    "t5": Family(kind="sequence_to_sequence", positions="relative"),
    "vit": Family(kind="image"),
    "whisper": Family(kind="speech"),
}
