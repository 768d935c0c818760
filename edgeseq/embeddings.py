"""The embedding table that a student starts from, made of what the teacher knows of each token."""

import torch
from torch import Tensor

SCALE = 0.3  # root mean square of the table; 0.1 and 1 learned more slowly
DOUBT = 3.0  # occurrences that a prediction from the teacher's table counts as much as
RIDGE = 10.0  # keeps the prediction sane where tokens are fewer than dimensions


def starting_table(table: Tensor, tokens: Tensor, states: Tensor | None, width: int) -> Tensor:
    """A student's embeddings (V, width): the teacher's, factorised, and beside them what it expects of each token.

    Args:
        table: (V, D), the teacher's word embeddings of the student's vocabulary.
        tokens: (N,), the text.
        states: (N, K), the teacher's last states of these tokens, strongest direction first; at most half of the width is
            theirs. None: the word embeddings fill it.
        width: Of the student's embeddings.
    """
    counts = torch.bincount(tokens, minlength=table.shape[0])
    if states is None:
        return SCALE * factorised_embeddings(table, counts, width)
    expected = expected_states(table, tokens, states[:, : width // 2])
    factorised = factorised_embeddings(table, counts, width - expected.shape[1])
    return SCALE * torch.cat([factorised, expected], dim=1)


def factorised_embeddings(table: Tensor, counts: Tensor, width: int) -> Tensor:
    """The table (V, D) projected to its `width` most important directions (V, width), scaled to a root mean square of 1.

    Principal components over the text, that is with every row weighted by how often its token occurs (`counts`, (V,)): the
    directions that frequent words need come first.
    """
    weights = (counts.float() + 1.0).unsqueeze(1)
    mean = (table * weights).sum(0) / weights.sum()
    centred = table - mean
    _, _, directions = torch.linalg.svd(centred * weights.sqrt(), full_matrices=False)
    projected = centred @ directions[:width].T
    return projected / projected.square().mean().sqrt()


def expected_states(table: Tensor, tokens: Tensor, states: Tensor) -> Tensor:
    """The teacher's mean state of every token (V, K), scaled to a root mean square of 1.

    Contextual states pooled into static embeddings, Bommasani et al. 2020: what a word usually comes to mean at the top of the
    teacher, before the student has read its neighbours. A rare token leans on what a ridge regression of the means on the
    teacher's table, (V, D), predicts for it. `tokens` is (N,), `states` (N, K).
    """
    counts = torch.bincount(tokens, minlength=table.shape[0]).float().unsqueeze(1)  # (V, 1)
    sums = torch.zeros(table.shape[0], states.shape[1]).index_add_(0, tokens, states)
    inputs = torch.cat([table, torch.ones_like(counts)], dim=1)  # (V, D + 1)
    gram = inputs.T @ (inputs * counts) + RIDGE * torch.eye(inputs.shape[1])
    predicted = inputs @ torch.linalg.solve(gram, inputs.T @ sums)
    expected = (sums + DOUBT * predicted) / (counts + DOUBT)
    return expected / expected.square().mean().sqrt()
