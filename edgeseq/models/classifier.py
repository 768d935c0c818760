"""What every sentence classifier of this folder has in common."""

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn


class Classifier(nn.Module):
    """tokens (B, T), padded with 0 -> logits (B, C). Padding changes nothing.

    Letters: S width of the last states, P width of the pooled sentence vector, C classes.
    """

    spec: Any  # the architecture's frozen dataclass
    embedding: nn.Embedding  # of the tokens
    dropout: nn.Dropout
    head: nn.Linear  # P -> C
    d_states: int  # S

    @abstractmethod
    def states(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T) -> the last state of every token (B, T, S)."""

    @abstractmethod
    def pool(self, states: Tensor, valid: Tensor) -> Tensor:
        """States (B, T, S), valid (B, T) bool -> one vector a sentence (B, P)."""

    def classify(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, T) -> logits (B, C), and the states (B, T, S) they come from."""
        states = self.states(tokens)
        pooled = self.pool(states, tokens != self.spec.pad_token)
        return self.head(self.dropout(pooled)), states

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T) -> logits (B, C)."""
        return self.classify(tokens)[0]
