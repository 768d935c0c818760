"""Multi-head attention, Vaswani et al. 2017, section 3.2.2, with a mask over keys."""

import torch.nn.functional as F
from torch import Tensor, nn

MASKED = -1e4  # stands for minus infinity: float16 can hold it, and a row with no valid key stays free of NaN


class MultiHeadAttention(nn.Module):
    """Self-attention with H heads of width K = D / H."""

    def __init__(self, d_model: int, n_heads: int):
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.output = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """X (B, T, D), mask (B, 1, 1, T) to be added to the scores -> (B, T, D)."""
        q, k, v = self.heads(self.query(x)), self.heads(self.key(x)), self.heads(self.value(x))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (B, H, T, K)
        return self.output(y.transpose(1, 2).flatten(2))  # (B, T, D)

    def heads(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, H, T, K)."""
        return x.view(x.shape[0], x.shape[1], self.n_heads, -1).transpose(1, 2)


def additive_mask(valid: Tensor) -> Tensor:
    """Valid (B, T) bool -> (B, 1, 1, T) float: 0 where valid, `MASKED` where padded."""
    return ((~valid).float() * MASKED)[:, None, None, :]
