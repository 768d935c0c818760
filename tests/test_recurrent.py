"""Recurrent layers stay whole: every kind equals torch's own layer, as an operator and in every format."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from edgeseq import converters, operators, quantize
from edgeseq.artifact import Artifact
from edgeseq.capture import Call, DynamicShapes, capture, capture_calls
from edgeseq.devices import runtimes
from edgeseq.errors import UnsupportedError
from edgeseq.given_types import as_given
from edgeseq.operators.layers import exported, weights
from edgeseq.quantize import Scheme
from edgeseq.signature import Dim, State
from tests.benchmarks.recurrent import COUNTERS

FORMATS = converters.names()
BATCH, TIME = Dim(name="batch", min=1, max=8), Dim(name="time", min=1, max=512)
WIDTH, HIDDEN = 5, 4
KINDS: dict[str, tuple[str, Any, dict[str, int | str]]] = {  # the operator, torch's layer and its own settings
    "lstm": ("lstm", nn.LSTM, {}),
    "projected lstm": ("lstm", nn.LSTM, {"proj_size": 3}),
    "gru": ("gru", nn.GRU, {}),
    "rnn": ("rnn", nn.RNN, {}),
    "relu rnn": ("rnn", nn.RNN, {"nonlinearity": "relu"}),
}

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning:copyreg", "ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning"),
    pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning", "ignore::FutureWarning"),
]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What all kinds of recurrent layers have in common."""

    num_layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    batch_first: bool = True
    with_lengths: bool = False
    with_states: bool = False


OPTIONS = st.builds(
    Options,
    num_layers=st.integers(1, 2),
    bidirectional=st.booleans(),
    bias=st.booleans(),
    batch_first=st.booleans(),
    with_lengths=st.booleans(),
    with_states=st.booleans(),
)
EVERYTHING = Options(num_layers=2, bidirectional=True, batch_first=False, with_lengths=True, with_states=True)


def layer(kind: str, options: Options) -> nn.RNNBase:
    """A recurrent layer of torch's own."""
    _, module, more = KINDS[kind]
    made: nn.RNNBase = module(
        WIDTH,
        HIDDEN,
        options.num_layers,
        bias=options.bias,
        batch_first=options.batch_first,
        bidirectional=options.bidirectional,
        **more,
    )
    return made


def random_states(module: nn.RNNBase, batch: int) -> list[Tensor]:
    """States (B, L*D, width)."""
    widths = [module.proj_size or HIDDEN, HIDDEN] if isinstance(module, nn.LSTM) else [HIDDEN]
    return [torch.randn(batch, module.num_layers * (1 + module.bidirectional), width) for width in widths]


def given_to(module: nn.RNNBase, states: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
    """The states as the layer takes them."""
    rows_first = [state.transpose(0, 1) for state in states]
    return tuple(rows_first) if isinstance(module, nn.LSTM) else rows_first[0]


def close(have: Tensor, want: Tensor) -> bool:
    """Equal but for the order of float32 sums."""
    return have.shape == want.shape and bool(torch.allclose(have, want, atol=1e-5))


# The operators


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), options=OPTIONS, time=st.integers(1, 7), data=st.data())
def test_operator_equals_torchs_layer_on_each_row_alone(
    kind: str, options: Options, time: int, data: st.DataObject
) -> None:
    module, batch = layer(kind, options), data.draw(st.integers(1, 4))
    lengths = data.draw(st.lists(st.integers(1, time), min_size=batch, max_size=batch))
    x, states = torch.randn(batch, time, WIDTH), random_states(module, batch)
    given_x = x if options.batch_first else x.transpose(0, 1)
    given_states = given_to(module, states) if options.with_states else None
    given_lengths = torch.tensor(lengths) if options.with_lengths else None

    y, final = exported(operators.get(KINDS[kind][0]), module, given_x, given_states, given_lengths)

    y = y if options.batch_first else y.transpose(0, 1)
    for row, length in enumerate(lengths if options.with_lengths else [time] * batch):
        alone, own = slice(row, row + 1), [state[row : row + 1] for state in states]
        x_alone = x[alone, :length] if options.batch_first else x[alone, :length].transpose(0, 1)
        expected, expected_final = module(x_alone, given_to(module, own) if options.with_states else None)
        assert close(y[alone, :length], expected if options.batch_first else expected.transpose(0, 1))
        assert not y[row, length:].any()
        pairs = zip(as_tuple(final), as_tuple(expected_final), strict=True)
        assert all(close(have[:, alone], want) for have, want in pairs)


def as_tuple(state: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_sequence_without_batch_is_taken_as_torch_takes_it(kind: str) -> None:
    module = layer(kind, Options(num_layers=2, bidirectional=True, batch_first=False))
    x, states = torch.randn(6, WIDTH), [state[0] for state in random_states(module, 1)]
    given_states = tuple(states) if isinstance(module, nn.LSTM) else states[0]

    for state in (None, given_states):
        y, final = exported(operators.get(KINDS[kind][0]), module, x, state)

        expected, expected_final = module(x, state)
        assert close(y, expected)
        assert all(map(close, as_tuple(final), as_tuple(expected_final)))


@pytest.mark.parametrize("lengths", [None, torch.tensor([3, 1])])
@pytest.mark.parametrize("kind", KINDS)
def test_operator_keeps_torchs_rules_for_operators(kind: str, lengths: Tensor | None) -> None:
    module = layer(kind, Options(num_layers=2, bidirectional=True))
    name = KINDS[kind][0]
    states = [state.transpose(0, 1).contiguous() for state in random_states(module, 2)]
    last = ("relu",) if name == "rnn" else ()
    arguments = (torch.randn(2, 3, WIDTH), *states, lengths, [w.detach() for w in weights(module)], 2, True, *last)

    found = torch.library.opcheck(
        getattr(torch.ops.edgeseq, name), arguments, test_utils=("test_schema", "test_faketensor")
    )

    assert set(found.values()) == {"SUCCESS"}


# Packed sequences


class Packed(nn.Module):
    """What people write about padded batches."""

    def __init__(self, kind: str, *, enforce_sorted: bool, batch_first: bool, padding_value: float) -> None:
        super().__init__()
        self.rnn = layer(kind, Options(num_layers=2, bidirectional=True, batch_first=batch_first))
        self.options = {"batch_first": batch_first, "enforce_sorted": enforce_sorted}
        self.padding = {"batch_first": batch_first, "padding_value": padding_value}

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        packed = pack_padded_sequence(x, lengths.cpu(), **self.options)
        packed = packed._replace(data=packed.data.tanh() + 1)  # step by step
        packed, state = self.rnn(packed)
        y, found = pad_packed_sequence(packed, **self.padding)  # type: ignore[arg-type]  # one dict of two types
        return y, found, *as_tuple(state)


@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", ["projected lstm", "gru"])
def test_packed_sequences_become_lengths(kind: str, batch_first: bool, enforce_sorted: bool) -> None:
    model = Packed(kind, enforce_sorted=enforce_sorted, batch_first=batch_first, padding_value=-7.0).eval()
    examples = {"x": torch.randn(4, 4, WIDTH), "lengths": torch.tensor([4, 3, 3, 1])}
    axes = {0: BATCH, 1: TIME} if batch_first else {0: TIME, 1: BATCH}
    program = capture(model, examples, {"x": axes, "lengths": {0: BATCH}}).programs["forward"]
    targets = [str(node.target) for node in program.graph.nodes]

    lengths = torch.tensor([9, 6, 2]) if enforce_sorted else torch.tensor([2, 9, 6])
    x = torch.randn(3, 9, WIDTH)
    x = x if batch_first else x.transpose(0, 1)

    assert sum(target.startswith("edgeseq.") for target in targets) == 1
    assert not any("sort" in target or "pack" in target for target in targets)
    for have, want in zip(program.module()(x, lengths.int()), map(as_given, model(x, lengths)), strict=True):
        assert close(have, want)


def test_a_padded_batch_gets_the_length_that_is_asked_for() -> None:
    class Longer(nn.Module):
        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return pad_packed_sequence(packed, batch_first=True, padding_value=2.0, total_length=9)[0]

    x, lengths = torch.randn(3, 6, WIDTH), torch.tensor([2, 6, 4])
    program = capture(Longer(), {"x": x, "lengths": lengths}).programs["forward"]

    assert close(program.module()(x, lengths.int())[0], Longer()(x, lengths))


def test_capture_leaves_torchs_layers_and_functions_as_they_were() -> None:
    before = [module.forward for _, module, _ in KINDS.values()]
    code = (pack_padded_sequence.__code__, pad_packed_sequence.__code__)

    test_packed_sequences_become_lengths("gru", True, False)

    assert [module.forward for _, module, _ in KINDS.values()] == before
    assert (pack_padded_sequence.__code__, pad_packed_sequence.__code__) == code


# Every format


class EveryKind(nn.Module):
    """A layer of each kind reads the same rows; everything that they give, batch first."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.options = options
        self.kinds = [layer(kind, options) for kind in KINDS]
        self.layers = nn.ModuleList(self.kinds)

    def forward(self, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        first = self.options.batch_first
        lengths = rest[0] if self.options.with_lengths else None
        states = list(rest[1:] if self.options.with_lengths else rest)
        total = x.shape[1]
        x = x if first else x.transpose(0, 1)
        results: list[Tensor] = []
        for module in self.kinds:
            given_states = given_to(module, [states.pop(0) for _ in random_states(module, 1)]) if states else None
            if lengths is None:
                y, final = module(x, given_states)
            else:
                packed = pack_padded_sequence(x, lengths.cpu(), batch_first=first, enforce_sorted=False)
                y, final = module(packed, given_states)
                y, _ = pad_packed_sequence(y, batch_first=first, total_length=total)
            results += [y if first else y.transpose(0, 1), *(state.transpose(0, 1) for state in as_tuple(final))]
        return tuple(results)

    def feeds(self, batch: int, time: int) -> dict[str, Tensor]:
        """Random inputs; every row another length, one as long as can be."""
        feeds = {"x": torch.randn(batch, time, WIDTH)}
        if self.options.with_lengths:
            feeds["lengths"] = torch.randint(1, time + 1, (batch,))
            feeds["lengths"][-1] = time
        if self.options.with_states:
            states = [state for module in self.kinds for state in random_states(module, batch)]
            feeds |= {f"state_{number}": state for number, state in enumerate(states)}
        return feeds

    def shapes(self) -> DynamicShapes:
        """Batch and time are dynamic."""
        return {name: {0: BATCH, 1: TIME} if name == "x" else {0: BATCH} for name in self.feeds(1, 1)}


def convert(model: EveryKind, format: str, folder: Path, *, length: int = 6) -> Artifact:
    captured = capture(model, model.feeds(2, length), model.shapes(), output_names=("y",))
    return converters.convert(captured, format, folder, model="model")


def run(artifact: Artifact, feeds: Mapping[str, Tensor]) -> list[np.ndarray]:
    session = runtimes.for_format(artifact.format).load(artifact.path, artifact.signatures, threads=1)
    inputs = {name: (x.int() if x.dtype == torch.int64 else x).numpy() for name, x in feeds.items()}
    return list(session.run(inputs).values())


def assert_equal(have: list[np.ndarray], want: tuple[Tensor, ...]) -> None:
    assert len(have) == len(want)
    for actual, expected in zip(have, want, strict=True):
        np.testing.assert_allclose(actual, expected.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=2, deadline=None)
@example(options=EVERYTHING, seed=0)
@given(options=OPTIONS, seed=st.integers(0, 99))
def test_layers_of_every_kind_equal_torchs_at_unseen_lengths_and_batches(
    format: str, options: Options, seed: int
) -> None:
    torch.manual_seed(seed)
    model = EveryKind(options).eval()

    with tempfile.TemporaryDirectory() as folder:
        artifact = convert(model, format, Path(folder))

        for batch, time in ((1, 1), (1, 37), (3, 9)):
            feeds = model.feeds(batch, time)
            assert_equal(run(artifact, feeds), model(*feeds.values()))


@pytest.mark.parametrize("format", FORMATS)
def test_a_sequence_in_chunks_equals_the_whole(format: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = EveryKind(Options(num_layers=2, with_states=True)).eval()
    artifact = convert(model, format, tmp_path)
    feeds = model.feeds(1, 20)
    whole = model(*feeds.values())
    states = {name: value for name, value in feeds.items() if name != "x"}
    is_state = [output.shape[1] != 20 for output in whole]

    chunks = []
    for chunk in (feeds["x"][:, :7], feeds["x"][:, 7:8], feeds["x"][:, 8:]):
        outputs = [torch.from_numpy(array) for array in run(artifact, {"x": chunk, **states})]
        states = dict(zip(states, (o for o, carried in zip(outputs, is_state, strict=True) if carried), strict=True))
        chunks.append(outputs)

    joined = [torch.cat(parts, dim=1) for parts in zip(*chunks, strict=True)]
    carried_on = [last if carried else all_ for last, all_, carried in zip(chunks[-1], joined, is_state, strict=True)]
    assert_equal([value.numpy() for value in carried_on], whole)


class Continued(nn.Module):
    """An LSTM that goes on from its states (B, 1, H)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(WIDTH, HIDDEN, batch_first=True)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        y, state = self.lstm(x, (h.transpose(0, 1), c.transpose(0, 1)))
        return y, *(part.transpose(0, 1) for part in state)


@pytest.mark.parametrize("format", FORMATS)
def test_a_stream_takes_chunks_of_different_lengths(format: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Continued().eval()
    state = torch.zeros(2, 1, HIDDEN)
    call = Call(
        examples={"x": torch.randn(2, 6, WIDTH), "h": state, "c": state},
        dynamic_shapes={"x": {0: BATCH, 1: TIME}, "h": {0: BATCH}, "c": {0: BATCH}},
        output_names=("y", "new_h", "new_c"),
        states=(State(input="h", output="new_h"), State(input="c", output="new_c")),
    )
    artifact = converters.convert(capture_calls(model, [call]), format, tmp_path, model="continued")
    runtime, x = runtimes.for_format(format), torch.randn(1, 15, WIDTH)
    session = runtime.load(artifact.path, artifact.signatures, threads=1)
    stream = runtime.stream(session, artifact.signatures, {"batch": 1})

    chunks = np.split(x.numpy(), [5, 8, 11, 12, 14], axis=1)
    parts = [stream.run({"x": chunk}, "forward")["y"] for chunk in chunks]

    assert_equal([np.concatenate(parts, axis=1)], (model.lstm(x)[0],))


@pytest.mark.parametrize("format", FORMATS)
def test_the_number_of_operators_is_that_of_any_length(format: str, tmp_path: Path) -> None:
    model = EveryKind(Options()).eval()

    counts = {
        length: COUNTERS[format](convert(model, format, tmp_path / str(length), length=length).path)
        for length in (16, 128, 512)
    }

    assert len(set(counts.values())) == 1, counts


# Cells


class Cells(nn.Module):
    """A loop over time around a cell of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru, self.rnn = (cell(WIDTH, HIDDEN) for cell in (nn.LSTMCell, nn.GRUCell, nn.RNNCell))

    def forward(self, x: Tensor) -> Tensor:
        zeros = x.new_zeros(x.shape[0], HIDDEN)
        (h, c), g, r = (zeros, zeros), zeros, zeros
        outputs = []
        for step in x.unbind(1):
            (h, c), g, r = self.lstm(step, (h, c)), self.gru(step, g), self.rnn(step, r)
            outputs.append(torch.cat([h, c, g, r], dim=-1))
        return torch.stack(outputs, dim=1)


def test_a_loop_around_cells_of_any_length_is_refused_with_what_would_work() -> None:
    with pytest.raises(UnsupportedError, match=r"keeps the example.s length .* use nn\.LSTM, nn\.GRU or nn\.RNN"):
        capture(Cells().eval(), {"x": torch.randn(2, 3, WIDTH)}, {"x": {1: TIME}})


@pytest.mark.parametrize("format", FORMATS)
def test_a_loop_around_cells_is_converted_at_its_length(format: str, tmp_path: Path) -> None:
    model = Cells().eval()
    captured = capture(model, {"x": torch.randn(2, 2, WIDTH)}, {"x": {0: BATCH}})
    artifact = converters.convert(captured, format, tmp_path, model="cells")

    x = torch.randn(4, 2, WIDTH)

    assert_equal(run(artifact, {"x": x}), (model(x),))


# Schemes


def test_onnx_says_that_a_gru_is_computed_in_float_under_a_dynamic_scheme(tmp_path: Path) -> None:
    model = nn.Sequential(nn.GRU(32, 64, batch_first=True, bidirectional=True))
    captured = capture(model.eval(), {"input": torch.randn(2, 6, 32)}, {"input": {0: BATCH, 1: TIME}})
    source = converters.convert(captured, "onnx", tmp_path / "fp32", model="gru")

    artifact = quantize.quantize(source, Scheme.parse("dynamic_wi8_afp32"), tmp_path / "int8")

    assert "no integer GRU" in artifact.note
    assert artifact.size_bytes < 0.4 * source.size_bytes
