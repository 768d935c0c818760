"""Distillation: a small student learns from a large teacher's outputs, embeddings and hidden states.

Five parts, each a switch of the recipe: soft targets (Hinton et al. 2015), the teacher's embeddings as a start,
hidden-state matching through a projection (Romero et al. 2015), words hidden from the student alone (word dropout, Iyyer et
al. 2015), and a transfer set augmented by masking and n-gram sampling (Tang et al. 2019, section 3.3).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseq.recipe import Distillation

NO_LABEL = -1


@dataclass(frozen=True, kw_only=True)
class TransferSet:
    """Sentences with the teacher's opinion of them, in the student's tokens."""

    sentences: list[list[int]]
    labels: np.ndarray  # (N,) the class, or NO_LABEL where only the teacher says something
    logits: np.ndarray  # (N, C) the teacher's
    states: np.ndarray  # (sum of lengths, K) float16, the teacher's states of all tokens in K dimensions, spread 1

    def save(self, path: Path) -> None:
        """Write one `.npz`; the sentences as one run of tokens and their lengths."""
        np.savez(
            path,
            allow_pickle=False,
            tokens=np.concatenate([np.array(s, np.int32) for s in self.sentences]),
            lengths=np.array([len(s) for s in self.sentences]),
            labels=self.labels,
            logits=self.logits,
            states=self.states,
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read back what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            parts = np.split(stored["tokens"], np.cumsum(stored["lengths"])[:-1])
            return cls(
                sentences=[part.tolist() for part in parts],
                labels=stored["labels"],
                logits=stored["logits"],
                states=stored["states"],
            )


def augmented(
    sentences: Sequence[Sequence[int]], settings: Distillation, *, mask_token: int, rng: np.random.Generator
) -> list[list[int]]:
    """`settings.augmentations` new sentences from each: tokens masked, and some cut to a short n-gram.

    The first and last token, [CLS] and [SEP], stay. Part-of-speech replacement, the third rule of Tang et al., needs a tagger
    and is left out.
    """
    made = []
    for sentence in sentences:
        inner = np.array(sentence[1:-1])
        for _ in range(settings.augmentations):
            words = np.where(rng.random(len(inner)) < settings.mask_probability, mask_token, inner)
            if rng.random() < settings.ngram_probability:
                length = min(len(words), int(rng.integers(1, settings.ngram_max + 1)))
                start = rng.integers(0, len(words) - length + 1)
                words = words[start : start + length]
            made.append([sentence[0], *words.tolist(), sentence[-1]])
    return made


def with_word_dropout(tokens: Tensor, probability: float, *, mask_token: int, pad_token: int) -> Tensor:
    """Tokens (B, T), a random part of them replaced by `mask_token`; padding and the first token, [CLS], stay.

    The student answers for the sentence that the teacher read, so that no new sentence needs labelling: as useful as the
    augmentation of Tang et al. and free, since every epoch hides other words.
    """
    hidden = (torch.rand(tokens.shape, device=tokens.device) < probability) & (tokens != pad_token)
    hidden[:, 0] = False
    return tokens.masked_fill(hidden, mask_token)


def soft_target_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Cross-entropy with the teacher's softened classes, Hinton et al. 2015, eq. 4; times T² so that gradients keep their size.

    Both logits are (B, C).
    """
    targets = F.softmax(teacher / temperature, dim=-1)
    return temperature**2 * F.cross_entropy(student / temperature, targets)


class DistillationLoss(nn.Module):
    """The weighted sum of a recipe's parts. Its projection from the student's states to the teacher's is trained along."""

    def __init__(self, settings: Distillation, *, d_student: int, d_teacher: int):
        super().__init__()
        self.settings = settings
        self.projection = nn.Linear(d_student, d_teacher) if settings.hidden_weight else None

    def forward(self, logits: Tensor, states: Tensor, labels: Tensor, target: Tensor, target_states: Tensor) -> Tensor:
        """The loss of a batch, a scalar.

        Args:
            logits: (B, C), the student's.
            states: (N, S), the student's of all N valid tokens.
            labels: (B,), NO_LABEL for none.
            target: (B, C), the teacher's logits.
            target_states: (N, K), the teacher's.
        """
        soft = self.settings.soft_target_weight
        loss = soft * soft_target_loss(logits, target, self.settings.temperature)
        if soft < 1 and bool((labels != NO_LABEL).any()):
            loss = loss + (1 - soft) * F.cross_entropy(logits, labels, ignore_index=NO_LABEL)
        if self.projection is not None:
            loss = loss + self.settings.hidden_weight * F.mse_loss(self.projection(states), target_states)
        return loss
