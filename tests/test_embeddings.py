"""The table that a student starts from, against numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.embeddings import DOUBT, RIDGE, SCALE, expected_states, factorised_embeddings, starting_table


@given(seed=st.integers(0, 99), width=st.integers(1, 6))
def test_factorised_embeddings_are_the_principal_components_of_the_text(seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    table, counts = rng.normal(size=(12, 6)), rng.integers(0, 5, 12)

    found = factorised_embeddings(torch.from_numpy(table).float(), torch.from_numpy(counts), width).numpy()

    text = np.repeat(table, counts + 1, axis=0)  # every token as often as it occurs, and once more
    covariance = np.cov(text.T, bias=True)
    values, vectors = np.linalg.eigh(covariance)
    expected = (table - text.mean(0)) @ vectors[:, np.argsort(values)[::-1][:width]]
    expected /= np.sqrt(np.square(expected).mean())
    signs = np.sign((found * expected).sum(0))  # a direction has no sign of its own
    np.testing.assert_allclose(found, expected * signs, atol=2e-3)


def test_factorised_embeddings_have_a_root_mean_square_of_one() -> None:
    found = factorised_embeddings(torch.randn(50, 8) * 7 + 3, torch.randint(0, 9, (50,)), 4)

    assert found.shape == (50, 4)
    assert found.square().mean().sqrt().item() == pytest.approx(1.0, abs=1e-5)


def test_factorised_embeddings_at_full_width_keep_all_distances() -> None:
    table = torch.randn(20, 6)

    found = factorised_embeddings(table, torch.ones(20), 6)

    ratio = torch.pdist(found) / torch.pdist(table)
    assert torch.allclose(ratio, ratio.mean().expand_as(ratio), rtol=1e-4)


@given(seed=st.integers(0, 99))
def test_expected_states_are_means_that_lean_on_a_ridge_regression(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table, tokens, states = rng.normal(size=(9, 4)), rng.integers(0, 7, 60), rng.normal(size=(60, 3))

    arguments = (torch.from_numpy(table).float(), torch.from_numpy(tokens), torch.from_numpy(states).float())
    found = expected_states(*arguments).numpy()

    rows = np.hstack([table, np.ones((9, 1))])[tokens]  # one a token of the text
    weights = np.linalg.solve(rows.T @ rows + RIDGE * np.eye(5), rows.T @ states)
    expected = np.hstack([table, np.ones((9, 1))]) @ weights
    for token in range(9):
        own = states[tokens == token]
        expected[token] = (own.sum(0) + DOUBT * expected[token]) / (len(own) + DOUBT)
    expected /= np.sqrt(np.square(expected).mean())
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_token_that_never_occurs_gets_what_its_neighbours_in_the_table_suggest() -> None:
    table = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])  # the last is nearly the first
    tokens = torch.tensor([0, 1] * 200)
    states = torch.tensor([[1.0], [-1.0]] * 200)

    found = expected_states(table, tokens, states)

    assert found[0] > 0 > found[1]
    assert found[2] > 0


@pytest.mark.parametrize("width", [2, 6, 10])
def test_the_starting_table_is_factorised_embeddings_and_then_expected_states(width: int) -> None:
    torch.manual_seed(0)
    table, tokens, states = torch.randn(12, 10), torch.randint(0, 12, (80,)), torch.randn(80, 4)

    found = starting_table(table, tokens, states, width)

    share = min(4, width // 2)
    counts = torch.bincount(tokens, minlength=12)
    assert found.shape == (12, width)
    assert torch.equal(found[:, : width - share], SCALE * factorised_embeddings(table, counts, width - share))
    assert torch.equal(found[:, width - share :], SCALE * expected_states(table, tokens, states[:, :share]))


def test_without_states_the_starting_table_is_the_factorised_embeddings() -> None:
    torch.manual_seed(0)
    table, tokens = torch.randn(12, 6), torch.randint(0, 12, (80,))

    found = starting_table(table, tokens, None, 5)

    assert torch.equal(found, SCALE * factorised_embeddings(table, torch.bincount(tokens, minlength=12), 5))
