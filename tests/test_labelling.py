"""The teacher that labels: in PyTorch and as its own conversion it says the same."""

import numpy as np
import pytest
import torch

from edgeseq import models
from edgeseq.labelling import ProjectedStates, along_principal_directions, labels_of
from edgeseq.models.classifier import Classifier
from edgeseq.quantize import Scheme
from edgeseq.train import default_device

TOKENS = torch.tensor([[2, 17, 33, 45, 3], [2, 8, 3, 0, 0], [2, 90, 91, 3, 0]])


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    sizes = {"n_vocab": 100, "d_model": 32, "d_feedforward": 64, "n_layers": 2, "n_heads": 4}
    return models.build("bert", sizes).eval()


@pytest.fixture(scope="module")
def model(classifier: Classifier) -> ProjectedStates:
    return along_principal_directions(classifier, torch.randint(1, 100, (20, 10)), 16)


def test_directions_are_the_principal_components_of_the_states(classifier: Classifier) -> None:
    torch.manual_seed(1)
    tokens = torch.randint(1, 100, (20, 10))
    tokens[3, 6:] = 0

    model = along_principal_directions(classifier, tokens, 5)

    with torch.no_grad():
        states = classifier.states(tokens)[tokens != 0].numpy()
        found = model(tokens)[1][tokens != 0].numpy()
    values, vectors = np.linalg.eigh(np.cov(states.T))
    expected = (states - states.mean(0)) @ vectors[:, np.argsort(values)[::-1][:5]]
    expected /= expected.std(ddof=1)
    signs = np.sign((found * expected).sum(0))  # a direction has no sign of its own
    np.testing.assert_allclose(found, expected * signs, atol=1e-3)


def test_fp32_is_the_model_itself(model: ProjectedStates) -> None:
    teacher = labels_of(model, Scheme.parse("fp32"), max_length=8)

    logits, states = teacher(TOKENS)

    with torch.no_grad():
        expected = model(TOKENS.to(default_device()))
    np.testing.assert_allclose(logits, expected[0].cpu(), atol=1e-6)
    np.testing.assert_allclose(states, expected[1].cpu(), atol=1e-6)


@pytest.mark.skipif(default_device().type != "cpu", reason="a GPU labels in PyTorch")
def test_int8_conversion_is_close_to_the_model_but_not_the_model(model: ProjectedStates) -> None:
    teacher = labels_of(model, Scheme.parse("dynamic_wi8_afp32"), max_length=8)

    _, states = teacher(TOKENS)

    valid = TOKENS.numpy() != 0
    with torch.no_grad():
        expected = model(TOKENS)[1].numpy()[valid]
    found = states[valid]
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.999
    assert np.abs(found - expected).max() > 1e-5


def test_any_batch_and_length_up_to_the_bound(model: ProjectedStates) -> None:
    teacher = labels_of(model, Scheme.parse("dynamic_wi8_afp32"), max_length=12)

    for batch, length in ((1, 1), (5, 12), (64, 3)):
        logits, states = teacher(torch.randint(1, 100, (batch, length)))
        assert logits.shape == (batch, 2)
        assert states.shape == (batch, length, 16)
