"""Batches: every sentence once, of one length each wherever that is possible."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.tasks.classification import batches_in, in_random_order

SENTENCES = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1, max_size=200)


@given(sentences=SENTENCES, batch_size=st.integers(1, 40), seed=st.integers(0, 9))
def test_an_epoch_has_every_sentence_once(sentences: list[list[int]], batch_size: int, seed: int) -> None:
    batches = list(in_random_order(sentences, batch_size, np.random.default_rng(seed)))

    assert sorted(i for batch in batches for i in batch.index) == list(range(len(sentences)))
    assert len(batches) == batches_in(sentences, batch_size)
    for batch in batches:
        assert 1 <= len(batch.index) <= batch_size
        for row, i in zip(batch.tokens.tolist(), batch.index, strict=True):
            assert row == sentences[i] + [0] * (len(row) - len(sentences[i]))


def test_lengths_that_are_common_never_share_a_batch() -> None:
    sentences = [[1] * length for length in (3, 5, 6) for _ in range(37)]

    batches = list(in_random_order(sentences, 16, np.random.default_rng(0)))

    assert all(bool((batch.tokens != 0).all()) for batch in batches)
    assert sorted(len(batch.index) for batch in batches) == [12, 12, 12, 12, 12, 12, 13, 13, 13]


def test_rare_lengths_share_a_batch() -> None:
    sentences = [[1] * length for length in range(1, 11)]

    (batch,) = in_random_order(sentences, 16, np.random.default_rng(0))

    assert batch.tokens.shape == (10, 10)


def test_order_is_new_in_every_epoch_and_repeats_with_the_seed() -> None:
    sentences = [[1] * 4 for _ in range(50)]

    def epochs(seed: int) -> list[list[int]]:
        rng = np.random.default_rng(seed)
        return [[int(i) for b in in_random_order(sentences, 8, rng) for i in b.index] for _ in range(2)]

    first, second = epochs(0)
    assert first != second
    assert epochs(0) == [first, second]
