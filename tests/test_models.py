"""Architectures: real checkpoints load, padding is never seen, and the export computes what was trained."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgeseq import models
from edgeseq.capture import capture
from edgeseq.errors import RequestError
from edgeseq.models import saved
from edgeseq.models.bert import Bert, BertSpec, load_checkpoint
from edgeseq.models.classifier import Classifier
from edgeseq.models.pooling import masked_max, masked_mean
from edgeseq.signature import Dim

VOCABULARY, CLASSES = 40, 3
SMALL: dict[str, dict[str, int]] = {
    "bert": {"d_model": 16, "d_feedforward": 32, "n_layers": 2, "n_heads": 4, "max_length": 64},
    "bilstm": {"d_model": 8, "d_hidden": 8, "n_layers": 2},
    "transformer_encoder": {"d_model": 16, "d_feedforward": 32, "n_layers": 2, "n_heads": 4, "max_length": 64},
}
SENTENCES = st.lists(st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=12), min_size=1, max_size=5)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:copyreg", "ignore:.*LeafSpec.*:FutureWarning")


def build(name: str) -> Classifier:
    torch.manual_seed(0)
    return models.build(name, {"n_vocab": VOCABULARY, "n_classes": CLASSES, **SMALL[name]}).eval()


def padded(sentences: list[list[int]], extra: int = 0) -> Tensor:
    width = max(map(len, sentences)) + extra
    return torch.tensor([s + [0] * (width - len(s)) for s in sentences])


def test_every_architecture_is_tested_here() -> None:
    assert set(SMALL) == set(models.names())


@pytest.mark.parametrize("name", models.names())
@settings(max_examples=10)
@given(sentences=SENTENCES, extra=st.integers(0, 4))
def test_logits_of_a_padded_batch_are_those_of_each_row_alone(
    name: str, sentences: list[list[int]], extra: int
) -> None:
    model = build(name)

    with torch.no_grad():
        together = model(padded(sentences, extra))
        alone = torch.cat([model(torch.tensor([s])) for s in sentences])

    assert together.shape == (len(sentences), CLASSES)
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("name", models.names())
def test_logits_depend_on_every_token(name: str) -> None:
    model, sentence = build(name), list(range(1, 9))

    with torch.no_grad():
        before = model(torch.tensor([sentence]))
        after = [model(torch.tensor([[*sentence[:i], 30, *sentence[i + 1 :]]])) for i in range(len(sentence))]

    assert all(not torch.allclose(before, logits, atol=1e-6) for logits in after)


@pytest.mark.parametrize("name", models.names())
def test_row_of_nothing_but_padding_gives_numbers(name: str) -> None:
    with torch.no_grad():
        logits = build(name)(torch.zeros(2, 5, dtype=torch.int64))

    assert logits.isfinite().all()


@pytest.mark.parametrize("name", models.names())
def test_classify_gives_the_states_that_are_pooled_for_the_head(name: str) -> None:
    model = build(name)
    tokens = padded([[1, 2, 3], [4]])

    with torch.no_grad():
        logits, states = model.classify(tokens)

    assert states.shape == (2, 3, model.d_states)
    assert torch.allclose(logits, model.head(model.pool(states, tokens != 0)), atol=1e-6)


@pytest.mark.parametrize("name", models.names())
def test_export_computes_what_the_training_path_computes(name: str) -> None:
    model = build(name)
    shapes = {"tokens": {0: Dim(name="batch", min=1, max=8), 1: Dim(name="time", min=1, max=64)}}
    captured = capture(model, {"tokens": torch.randint(1, VOCABULARY, (2, 7))}, shapes)
    exported = captured.programs["forward"].module()

    for sentences in ([[5]], [[1, 2, 3], [4], [5, 6]], [list(range(1, 40)) + [3] * 25] * 2):
        tokens = padded(sentences)
        with torch.no_grad():
            assert torch.allclose(exported(tokens.int())[0], model(tokens), atol=1e-5)


@pytest.mark.parametrize("name", models.names())
def test_training_path_learns_every_parameter(name: str) -> None:
    model = build(name).train()

    loss = torch.nn.functional.cross_entropy(model(padded([[1, 2, 3, 4], [5, 6]])), torch.tensor([0, 2]))
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped

    still = [key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert still == [key for key in still if key.endswith("key.bias")]  # softmax does not see a shift of all scores


@pytest.mark.parametrize("name", models.names())
def test_saved_model_is_loaded_as_it_was(name: str, tmp_path: Path) -> None:
    model = build(name)
    saved.save(model, name, tmp_path)

    loaded = saved.load(tmp_path)

    assert type(loaded) is type(model)
    assert loaded.spec == model.spec
    assert not loaded.training
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"holds no trained model: model\.json is missing"):
        saved.load(tmp_path)


def test_unknown_option_of_an_architecture_is_refused_with_the_nearest() -> None:
    with pytest.raises(RequestError, match="model 'bilstm' has an unknown key 'd_modell'; did you mean 'd_model'"):
        models.build("bilstm", {"n_vocab": 3, "d_modell": 1})


def test_same_seed_gives_the_same_weights() -> None:
    one, two = build("transformer_encoder"), build("transformer_encoder")

    assert all(torch.equal(value, two.state_dict()[key]) for key, value in one.state_dict().items())


@given(
    rows=st.lists(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=6), min_size=1, max_size=4),
    extra=st.integers(0, 3),
)
def test_pooling_sees_the_valid_steps_only(rows: list[list[float]], extra: int) -> None:
    width = max(map(len, rows)) + extra
    x = torch.tensor([row + [99.0] * (width - len(row)) for row in rows]).unsqueeze(2)  # (B, T, 1)
    valid = torch.tensor([[i < len(row) for i in range(width)] for row in rows])

    mean, largest = masked_mean(x, valid), masked_max(x, valid)

    assert mean.flatten().tolist() == pytest.approx([sum(row) / len(row) for row in rows], abs=1e-4)
    assert largest.flatten().tolist() == pytest.approx([max(row) for row in rows])


# Against the transformers library.


@pytest.mark.parametrize(("layers", "heads", "width"), [(1, 2, 8), (3, 4, 16)])
def test_bert_computes_what_the_transformers_library_computes(layers: int, heads: int, width: int) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "max_position_embeddings": 32,
    }
    config = transformers.BertConfig(num_hidden_layers=layers, num_attention_heads=heads, **sizes)
    theirs = transformers.BertModel(config).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # norms and biases too, so that none is left out unnoticed
    spec = BertSpec(
        n_vocab=VOCABULARY, d_model=width, d_feedforward=3 * width, n_layers=layers, n_heads=heads, max_length=32
    )
    ours = Bert(spec).eval()
    load_checkpoint(ours, theirs.state_dict())
    tokens = padded([list(range(1, 20)), [5, 6, 7], [9]])
    valid = tokens != 0

    with torch.no_grad():
        expected = theirs(input_ids=tokens, attention_mask=valid.long()).last_hidden_state
        actual = ours.states(tokens)

    assert np.allclose(actual[valid], expected[valid], atol=2e-5)


def test_checkpoint_that_lacks_a_weight_is_not_loaded_in_part() -> None:
    model = build("bert")
    assert isinstance(model, Bert)

    with pytest.raises(KeyError, match=r"embeddings\.word_embeddings\.weight"):
        load_checkpoint(model, {})
