"""What every sentence classifier of this folder has in common."""

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn


class Classifier(nn.Module):
    """tokens (B, T), padded with 0 -> logits (B, C). Padding changes nothing."""

    spec: Any  # the architecture's frozen dataclass
    embedding: nn.Embedding  # of the tokens
    head: nn.Linear  # from the sentence vector to the classes

    @abstractmethod
    def classify(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, T) -> logits (B, C) and the sentence vector (B, S) they come from."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T) -> logits (B, C)."""
        return self.classify(tokens)[0]
