"""Capture: one program at every batch and length, and recurrent layers as one node."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeseq.capture import CapturedModel, capture
from edgeseq.errors import UnsupportedError
from edgeseq.operators.lstm import LSTM
from edgeseq.signature import Dim
from tests import tiny

BATCH, TIME = Dim(name="batch", min=1, max=8), Dim(name="time", min=1, max=64)
WIDTH, HIDDEN = 5, 4

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:copyreg", "ignore:.*LeafSpec.*:FutureWarning")


class Lengths(nn.Module):
    """Our LSTM with everything it gives."""

    def __init__(self, layers: int, bidirectional: bool):
        super().__init__()
        self.lstm = LSTM(WIDTH, HIDDEN, layers, batch_first=True, bidirectional=bidirectional)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.lstm(x, None, lengths)
        return y, h, c


def call(captured: CapturedModel, *inputs: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        result = captured.programs["forward"].module()(*inputs)
    return result if isinstance(result, tuple) else (result,)


def close(have: Tensor, want: Tensor) -> bool:
    """Equal but for the order of float32 sums."""
    return have.shape == want.shape and bool(torch.allclose(have, want, atol=1e-5))


def targets(captured: CapturedModel) -> list[str]:
    return [str(node.target) for node in captured.programs["forward"].graph.nodes if node.op == "call_function"]


SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 7))  # (B, T)


@settings(max_examples=25)
@given(
    shape=SHAPES,
    layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    with_state=st.booleans(),
    seed=st.integers(0, 99),
)
def test_operator_without_lengths_equals_torchs_lstm(
    shape: tuple[int, int], layers: int, bidirectional: bool, with_state: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = nn.LSTM(WIDTH, HIDDEN, layers, batch_first=True, bidirectional=bidirectional)
    x, states = torch.randn(*shape, WIDTH), torch.zeros(2, layers * (1 + bidirectional), shape[0], HIDDEN)
    if with_state:
        states = torch.randn_like(states)

    y, hn, cn = torch.ops.edgeseq.lstm(x, *states, None, layer._flat_weights, layers, bidirectional)

    expected, (expected_h, expected_c) = layer(x, (states[0], states[1]))
    assert all(close(*pair) for pair in ((y, expected), (hn, expected_h), (cn, expected_c)))


@given(data=st.data(), layers=st.integers(1, 2), bidirectional=st.booleans())
def test_operator_with_lengths_equals_torchs_lstm_on_each_row_alone(
    data: st.DataObject, layers: int, bidirectional: bool
) -> None:
    batch, time = data.draw(SHAPES)
    lengths = data.draw(st.lists(st.integers(1, time), min_size=batch, max_size=batch))
    layer = nn.LSTM(WIDTH, HIDDEN, layers, batch_first=True, bidirectional=bidirectional)
    x, (h0, c0) = torch.randn(batch, time, WIDTH), torch.randn(2, layers * (1 + bidirectional), batch, HIDDEN)

    y, hn, cn = torch.ops.edgeseq.lstm(x, h0, c0, torch.tensor(lengths), layer._flat_weights, layers, bidirectional)

    for row, length in enumerate(lengths):
        alone = slice(row, row + 1)
        expected, (h, c) = layer(x[alone, :length], (h0[:, alone], c0[:, alone]))
        assert close(y[alone, :length], expected)
        assert not y[row, length:].any()
        assert close(hn[:, alone], h)
        assert close(cn[:, alone], c)


@pytest.mark.parametrize("lengths", [None, torch.tensor([3, 1])])
def test_operator_keeps_torchs_rules_for_operators(lengths: Tensor | None) -> None:
    layer = nn.LSTM(WIDTH, HIDDEN, 2, batch_first=True, bidirectional=True)
    weights = [w.detach() for w in layer.parameters()]
    states = torch.randn(2, 4, 2, HIDDEN)

    found = torch.library.opcheck(
        torch.ops.edgeseq.lstm, (torch.randn(2, 3, WIDTH), *states, lengths, weights, 2, True), test_utils="test_schema"
    )
    shapes = torch.library.opcheck(
        torch.ops.edgeseq.lstm,
        (torch.randn(2, 3, WIDTH), *states, lengths, weights, 2, True),
        test_utils="test_faketensor",
    )

    assert set((found | shapes).values()) == {"SUCCESS"}


@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (2, True)])
def test_layer_trains_like_torchs_and_is_exported_as_what_it_trained(layers: int, bidirectional: bool) -> None:
    model = Lengths(layers, bidirectional)
    examples = {"x": torch.randn(2, 6, WIDTH), "lengths": torch.tensor([6, 3])}
    shapes = {"x": {0: BATCH, 1: TIME}, "lengths": {0: BATCH}}
    captured = capture(model, examples, shapes, output_names=("y", "h", "c"))

    for batch, time in [(1, 1), (3, 9), (8, 64)]:
        x, lengths = torch.randn(batch, time, WIDTH), torch.randint(1, time + 1, (batch,))
        for have, want in zip(call(captured, x, lengths.int()), model(x, lengths), strict=True):
            assert close(have, want)


def test_layer_passes_gradients_through_lengths() -> None:
    model = Lengths(1, True)
    x = torch.randn(2, 4, WIDTH, requires_grad=True)

    y, _, _ = model(x, torch.tensor([4, 2]))
    y.sum().backward()

    assert x.grad is not None
    assert x.grad[0].all()
    assert not x.grad[1, 2:].any()  # padding is not seen
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_plain_lstm_is_exported_as_one_node_at_any_length(batch_first: bool, bias: bool) -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(WIDTH, HIDDEN, 2, batch_first=batch_first, bias=bias, bidirectional=True)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.lstm(x)[0]
            return y

    model, time_axis = Plain(), 1 if batch_first else 0
    captured = capture(model, {"x": torch.randn(3, 4, WIDTH)}, {"x": {time_axis: TIME}})

    assert sum("edgeseq.lstm" in target for target in targets(captured)) == 1
    x = torch.randn(3, 33, WIDTH) if batch_first else torch.randn(33, 4, WIDTH)
    assert close(call(captured, x)[0], model(x))


def test_capture_leaves_torchs_lstm_as_it_was() -> None:
    original = nn.LSTM.forward

    capture(tiny.model(), {"tokens": torch.ones(2, 5, dtype=torch.int64)})
    with pytest.raises(UnsupportedError):
        capture(Branching(), {"x": torch.ones(2, 3)})

    assert nn.LSTM.forward is original


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x - 1


def test_model_that_cannot_be_exported_is_refused_in_one_line() -> None:
    with pytest.raises(UnsupportedError, match=r"^torch.export refuses the model: [^\n]*$"):
        capture(Branching(), {"x": torch.ones(2, 3)})


def test_model_that_raises_is_refused_with_its_own_words() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyError("my own bug")

    with pytest.raises(UnsupportedError, match="my own bug"):
        capture(Broken(), {"x": torch.ones(2, 3)})


def test_examples_that_are_one_tensor_stay_two_inputs() -> None:
    class Difference(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a - b

    zeros = torch.zeros(2, 3)
    captured = capture(Difference(), {"a": zeros, "b": zeros})

    assert torch.equal(call(captured, torch.full((2, 3), 5.0), torch.ones(2, 3))[0], torch.full((2, 3), 4.0))


def test_two_states_that_start_as_one_tensor_stay_two_inputs() -> None:
    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(WIDTH, HIDDEN, batch_first=True)

        def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Tensor:
            y: Tensor = self.lstm(x, (h, c))[0]
            return y

    model, zeros = Step(), torch.zeros(1, 2, HIDDEN)
    captured = capture(model, {"x": torch.randn(2, 3, WIDTH), "h": zeros, "c": zeros})

    inputs = torch.randn(2, 3, WIDTH), torch.randn(1, 2, HIDDEN), torch.randn(1, 2, HIDDEN)
    assert close(call(captured, *inputs)[0], model(*inputs))


def test_wide_integers_are_taken_as_int32() -> None:
    captured = tiny.captured(tiny.model())

    (spec,) = captured.signatures[0].inputs
    assert (spec.name, spec.dtype, spec.shape) == ("tokens", "int32", ("batch", "time"))
    tokens = torch.randint(0, tiny.VOCABULARY, (3, 11))
    assert close(call(captured, tokens.int())[0], tiny.model()(tokens))


def test_signature_names_outputs_and_dimensions() -> None:
    model = Lengths(1, False)
    examples = {"x": torch.randn(2, 6, WIDTH), "lengths": torch.tensor([6, 3])}
    shapes = {"x": {0: BATCH, 1: TIME}, "lengths": {0: BATCH}}

    (signature,) = capture(model, examples, shapes, output_names=("y",)).signatures

    assert [(s.name, s.shape) for s in signature.outputs] == [
        ("y", ("batch", "time", HIDDEN)),
        ("output_1", (1, "batch", HIDDEN)),
        ("output_2", (1, "batch", HIDDEN)),
    ]
    assert signature.dims == (BATCH, TIME)


def test_model_in_training_mode_is_captured_in_eval_mode() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(x, 0.5, self.training)

    captured = capture(Noisy().train(), {"x": torch.ones(2, 3)})

    assert torch.equal(call(captured, torch.ones(2, 3))[0], torch.ones(2, 3))


def test_model_without_a_tensor_to_return_is_refused() -> None:
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> None:
            return None

    with pytest.raises(UnsupportedError, match="returns no tensor"):
        capture(Silent(), {"x": torch.ones(2, 3)})


def test_inputs_can_be_passed_by_name() -> None:
    class Named(nn.Module):
        def forward(self, *, left: Tensor, right: Tensor) -> Tensor:
            return left - right

    captured = capture(Named(), {"right": torch.ones(2), "left": torch.zeros(2)}, by_name=True)

    assert [s.name for s in captured.signatures[0].inputs] == ["right", "left"]
    assert torch.equal(call(captured, torch.full((2,), 1.0), torch.full((2,), 3.0))[0], torch.full((2,), 2.0))


def test_captured_model_survives_a_round_trip(tmp_path: Path) -> None:
    captured = tiny.captured(tiny.model())
    tokens = torch.randint(0, tiny.VOCABULARY, (3, 11), dtype=torch.int32)

    captured.save(tmp_path)
    loaded = CapturedModel.load(tmp_path)

    assert loaded.signatures == captured.signatures
    assert torch.equal(call(loaded, tokens)[0], call(captured, tokens)[0])
