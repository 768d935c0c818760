"""Distillation: losses against slow formulas, embeddings against numpy, and the augmented sentences' rules."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeseq import models
from edgeseq.distill import (
    NO_LABEL,
    DistillationLoss,
    TransferSet,
    augmented,
    soft_target_loss,
    with_word_dropout,
)
from edgeseq.recipe import Distillation
from edgeseq.steps.learn import TransferLoss
from edgeseq.tasks.classification import Batch, padded

CLS, SEP, MASK = 2, 3, 4
BATCHES = st.tuples(st.integers(1, 5), st.integers(2, 4), st.integers(0, 999))  # (B, C, seed)
SENTENCES = st.lists(
    st.lists(st.integers(5, 50), max_size=12).map(lambda inner: [CLS, *inner, SEP]), min_size=1, max_size=5
)


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp((value - max(row)) / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def slow_soft_loss(student: list[list[float]], teacher: list[list[float]], temperature: float) -> float:
    """T² times the mean over rows of -Σ p log q."""
    rows = [
        -sum(p * math.log(q) for p, q in zip(softmax(t, temperature), softmax(s, temperature), strict=True))
        for s, t in zip(student, teacher, strict=True)
    ]
    return temperature**2 * sum(rows) / len(rows)


@given(batch=BATCHES, temperature=st.floats(0.5, 8))
def test_soft_target_loss_is_hintons(batch: tuple[int, int, int], temperature: float) -> None:
    torch.manual_seed(batch[2])
    student, teacher = 3 * torch.randn(2, *batch[:2])

    loss = soft_target_loss(student, teacher, temperature)

    assert loss.item() == pytest.approx(slow_soft_loss(student.tolist(), teacher.tolist(), temperature), rel=1e-4)


def test_soft_targets_gradient_keeps_its_size_at_high_temperatures() -> None:
    """Hinton et al. 2015, eq. 4: at high temperatures the gradient is (z - v) / N for logits of mean zero."""
    student, teacher = torch.tensor([[0.3, -0.3]], requires_grad=True), torch.tensor([[-0.1, 0.1]])

    soft_target_loss(student, teacher, 1000.0).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped

    assert student.grad is not None
    assert torch.allclose(student.grad, (student.detach() - teacher) / 2, rtol=1e-2)


@given(batch=BATCHES, soft=st.sampled_from([0.0, 0.3, 1.0]), hidden=st.sampled_from([0.0, 0.5]), data=st.data())
def test_distillation_loss_is_the_weighted_sum_of_its_parts(
    batch: tuple[int, int, int], soft: float, hidden: float, data: st.DataObject
) -> None:
    rows, classes, seed = batch
    torch.manual_seed(seed)
    logits, target = torch.randn(2, rows, classes)
    vector, target_vector = torch.randn(rows, 3), torch.randn(rows, 5)
    labels = data.draw(st.lists(st.integers(NO_LABEL, classes - 1), min_size=rows, max_size=rows))
    settings = Distillation(temperature=2.0, soft_target_weight=soft, hidden_weight=hidden)
    parts = DistillationLoss(settings, d_student=3, d_teacher=5)

    loss = parts(logits, vector, torch.tensor(labels), target, target_vector)

    labelled = [(row, label) for row, label in zip(logits.tolist(), labels, strict=True) if label != NO_LABEL]
    hard = sum(-math.log(softmax(row, 1.0)[label]) for row, label in labelled) / max(1, len(labelled))
    expected = soft * slow_soft_loss(logits.tolist(), target.tolist(), 2.0) + (1 - soft) * hard
    if parts.projection is not None:
        gap = parts.projection(vector) - target_vector
        expected += hidden * sum(x * x for row in gap.tolist() for x in row) / gap.numel()
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_projection_is_trained_along_only_where_it_is_used() -> None:
    with_hidden = DistillationLoss(Distillation(hidden_weight=1.0), d_student=3, d_teacher=5)
    without = DistillationLoss(Distillation(hidden_weight=0.0), d_student=3, d_teacher=5)

    assert [p.shape for p in with_hidden.parameters()] == [(5, 3), (5,)]
    assert list(without.parameters()) == []


def make(sentences: list[list[int]], settings: Distillation, seed: int = 0) -> list[list[int]]:
    return augmented(sentences, settings, mask_token=MASK, rng=np.random.default_rng(seed))


@given(
    sentences=SENTENCES,
    augmentations=st.integers(0, 3),
    mask=st.floats(0, 1),
    ngram=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_augmented_sentences_keep_their_ends_and_are_the_original_or_a_short_piece_of_it(
    sentences: list[list[int]], augmentations: int, mask: float, ngram: float, seed: int
) -> None:
    settings = Distillation(augmentations=augmentations, mask_probability=mask, ngram_probability=ngram, ngram_max=3)

    made = make(sentences, settings, seed)

    assert len(made) == augmentations * len(sentences)
    for i, sentence in enumerate(made):
        original = sentences[i // augmentations]
        inner, words = original[1:-1], sentence[1:-1]
        assert (sentence[0], sentence[-1]) == (CLS, SEP)
        assert len(words) == len(inner) or 1 <= len(words) <= settings.ngram_max
        starts = range(len(inner) - len(words) + 1)
        assert any(all(w in (o, MASK) for w, o in zip(words, inner[s:], strict=False)) for s in starts)


@given(sentences=SENTENCES)
def test_augmentation_is_fixed_by_its_seed_and_leaves_the_originals(sentences: list[list[int]]) -> None:
    settings = Distillation(augmentations=2, mask_probability=0.5, ngram_probability=0.5)
    before = [list(s) for s in sentences]

    assert make(sentences, settings, 7) == make(sentences, settings, 7)
    assert sentences == before


def test_augmentation_differs_by_seed() -> None:
    settings = Distillation(augmentations=1, mask_probability=0.5, ngram_probability=0.5)
    sentences = [[CLS, *range(5, 25), SEP]] * 5

    assert make(sentences, settings, 1) != make(sentences, settings, 2)


@pytest.mark.parametrize(("probability", "masked"), [(0.0, 0), (1.0, 6)])
def test_mask_probability_at_its_ends_masks_nothing_or_all_but_the_ends(probability: float, masked: int) -> None:
    settings = Distillation(augmentations=1, mask_probability=probability, ngram_probability=0.0)

    (sentence,) = make([[CLS, 5, 6, 7, 8, 9, 10, SEP]], settings)

    assert sentence.count(MASK) == masked
    assert len(sentence) == 8


def test_masks_fall_as_often_as_asked_for() -> None:
    settings = Distillation(augmentations=1, mask_probability=0.25, ngram_probability=0.0)

    made = make([[CLS, *[9] * 100, SEP]] * 100, settings)

    masked = sum(s.count(MASK) for s in made)
    assert abs(masked - 2500) < 5 * math.sqrt(10_000 * 0.25 * 0.75)  # five standard deviations


def test_transfer_set_survives_a_round_trip(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    written = TransferSet(
        sentences=[[2, 5, 3], [2, 3], [2, 6, 7, 8, 3]],
        labels=np.array([1, NO_LABEL, 0]),
        logits=rng.normal(size=(3, 2)).astype(np.float32),
        states=rng.normal(size=(10, 4)).astype(np.float16),
    )

    written.save(tmp_path / "transfer.npz")
    loaded = TransferSet.load(tmp_path / "transfer.npz")

    assert loaded.sentences == written.sentences
    for name in ("labels", "logits", "states"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(written, name))


def test_each_token_is_matched_with_its_own_state_of_the_teacher() -> None:
    sentences = [[2, 5, 3], [2, 3], [2, 6, 7, 8, 3]]
    states = np.arange(10, dtype=np.float16)[:, None] * np.ones(4, np.float16)  # the state of token n is n
    empty = np.zeros((3, 2), np.float32)
    transfer = TransferSet(sentences=sentences, labels=np.full(3, NO_LABEL), logits=empty, states=states)
    student = models.build("bilstm", {"n_vocab": 10, "d_model": 4, "d_hidden": 4}).eval()
    loss = TransferLoss(student, transfer, Distillation(soft_target_weight=1.0, hidden_weight=1.0), mask_token=4)
    seen: dict[str, torch.Tensor] = {}
    loss.parts.register_forward_hook(lambda module, given, result: seen.update(states=given[1], target=given[4]))
    index = np.array([2, 0])

    loss(Batch(index=index, tokens=padded([sentences[i] for i in index])))

    assert seen["target"][:, 0].tolist() == [5, 6, 7, 8, 9, 0, 1, 2]
    alone = student.states(padded([sentences[0]]))[0]
    assert torch.allclose(seen["states"][5:], alone, atol=1e-6)


def test_word_dropout_hides_about_that_many_tokens_and_neither_padding_nor_the_first() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(5, 100, (200, 50))
    tokens[:, 40:] = 0

    seen = with_word_dropout(tokens, 0.2, mask_token=4, pad_token=0)

    hidden = seen == 4
    assert torch.equal(seen[~hidden], tokens[~hidden])
    assert not hidden[:, 0].any()
    assert not hidden[:, 40:].any()
    assert hidden[:, 1:40].float().mean().item() == pytest.approx(0.2, abs=0.02)


def test_no_word_dropout_leaves_the_sentence() -> None:
    tokens = torch.tensor([[2, 5, 6, 3]])

    assert torch.equal(with_word_dropout(tokens, 0.0, mask_token=4, pad_token=0), tokens)


def test_the_student_alone_does_not_see_the_words_that_are_dropped() -> None:
    transfer = TransferSet(
        sentences=[[2, 5, 6, 3]],
        labels=np.full(1, NO_LABEL),
        logits=np.zeros((1, 2), np.float32),
        states=np.zeros((4, 4), np.float16),
    )
    student = models.build("bilstm", {"n_vocab": 10, "d_model": 4, "d_hidden": 4}).eval()
    settings = Distillation(hidden_weight=1.0, word_dropout=1.0)
    loss = TransferLoss(student, transfer, settings, mask_token=4)
    fed: list[torch.Tensor] = []
    student.embedding.register_forward_hook(lambda module, inputs, result: fed.append(inputs[0]))

    loss(Batch(index=np.array([0]), tokens=padded(transfer.sentences)))

    assert fed[0].tolist() == [[2, 4, 4, 4]]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Distillation(soft_target_weight=0, teacher_embeddings=False), ()),
        (Distillation(temperature=3.0, teacher_embeddings=False), ("soft targets at temperature 3",)),
        (
            Distillation(
                soft_target_weight=0, teacher_embeddings=False, hidden_weight=1, word_dropout=0.25, augmentations=2
            ),
            (
                "hidden states of every token matched through a projection",
                "words hidden from the student with probability 0.25",
                "2 augmented sentence(s) for each, labelled by the teacher",
            ),
        ),
    ],
)
def test_report_names_the_parts_that_are_switched_on(settings: Distillation, words: tuple[str, ...]) -> None:
    assert settings.in_words() == words
