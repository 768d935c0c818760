"""Loops around recurrent cells are exported as whole layers, and equal the loops."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.export import ExportedProgram

from edgeseq import converters
from edgeseq.capture import CapturedModel, capture
from edgeseq.devices import runtimes
from edgeseq.errors import UnsupportedError
from edgeseq.signature import Dim
from tests.benchmarks.recurrent import COUNTERS

BATCH, TIME = Dim(name="batch", min=1, max=8), Dim(name="time", min=1, max=24)
WORDS, WIDTH, HIDDEN = 11, 5, 4
CELLS: dict[str, Callable[[int, bool], nn.Module]] = {
    "lstm": lambda width, bias: nn.LSTMCell(width, HIDDEN, bias),
    "gru": lambda width, bias: nn.GRUCell(width, HIDDEN, bias),
    "rnn": lambda width, bias: nn.RNNCell(width, HIDDEN, bias),
    "relu rnn": lambda width, bias: nn.RNNCell(width, HIDDEN, bias, nonlinearity="relu"),
}

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning:copyreg", "ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning", "ignore::FutureWarning"),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class How:
    """The ways in which people write such loops."""

    cell: str = "lstm"
    layers: int = 1
    bias: bool = True
    backwards: bool = False
    time_first: bool = False
    unbind: bool = True
    inside: bool = True  # embedding, joining and head are within the loop
    joined: str = "stack"


class Loop(nn.Module):
    """Words (B, T) -> outputs of each step (B, T, WIDTH) or (T, B, WIDTH), and the last state (B, HIDDEN)."""

    def __init__(self, how: How) -> None:
        super().__init__()
        self.how = how
        self.embedding, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(HIDDEN + WIDTH, WIDTH)
        widths = [WIDTH] + [HIDDEN] * (how.layers - 1)
        self.cells = nn.ModuleList(CELLS[how.cell](width, how.bias) for width in widths)
        self.norm, self.dropout = nn.LayerNorm(HIDDEN), nn.Dropout(0.5)

    def forward(self, words: Tensor) -> tuple[Tensor, Tensor]:
        states: list[Tensor | tuple[Tensor, Tensor] | None] = [None] * len(self.cells)
        outputs: list[Tensor] = []
        for x in self.steps(words):
            x = h = self.embedding(x) if self.how.inside else x
            for layer, cell in enumerate(self.cells):
                states[layer] = state = cell(h, states[layer])
                h = state[0] if isinstance(state, tuple) else state
            joined = torch.cat([self.dropout(torch.tanh(self.norm(h))), x], -1)
            y = self.head(joined) if self.how.inside else joined
            outputs.insert(0 if self.how.backwards else len(outputs), y)
        y = torch.stack(outputs, 1) if self.how.joined == "stack" else torch.cat([o.unsqueeze(0) for o in outputs], 0)
        last = states[-1]
        assert last is not None
        return (y if self.how.inside else self.head(y)), (last[1] if isinstance(last, tuple) else last)

    def steps(self, words: Tensor) -> list[Tensor]:
        """The loop's inputs, in its order."""
        x = words if self.how.inside else self.embedding(words)
        axis = 0 if self.how.time_first else 1
        x = x.transpose(0, 1) if self.how.time_first else x
        steps = list(x.unbind(axis)) if self.how.unbind else [x.select(axis, t) for t in range(x.shape[axis])]
        return steps[::-1] if self.how.backwards else steps


class Feedback(nn.Module):
    """A decoder whose input is its own output: no layer can compute it."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        step, state, outputs = x[:, 0], x.new_zeros(x.shape[0], HIDDEN), []
        for _ in range(3):
            state = self.cell(step, state)
            step = self.head(state)
            outputs.append(step)
        return torch.stack(outputs, 1)


class CountsItsSteps(nn.Module):
    """A loop that knows how many steps there are: what is captured holds for the example's length alone."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(WIDTH, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = x.new_zeros(x.shape[0], HIDDEN), []
        for step in x.unbind(1):
            outputs.append(state := self.cell(step, state))
        return torch.stack(outputs, 1) / len(outputs)


class Written(nn.Module):
    """Outputs written into a tensor; of the steps something is taken away, and some are masked."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(WIDTH, HIDDEN), nn.Linear(HIDDEN, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, valid, scores = x.mean(1), x[:, :, 0] > 0, []
        state, outputs = None, x.new_zeros(x.shape[0], x.shape[1], HIDDEN)
        for t, step in enumerate(x.split(1, 1)):  # type: ignore[no-untyped-call]  # torch has no types there
            state = self.cell(step.squeeze(1) / 2 - mean, state)
            outputs[:, t] = state[0] * valid[:, t].unsqueeze(-1)
            scores.append(self.head(state[0]))
        return outputs, torch.cat(scores, 1)


class WritesAhead(Feedback):
    """Feedback through a tensor that is written into."""

    def forward(self, x: Tensor) -> Tensor:
        x, state, outputs = x.clone(), x.new_zeros(x.shape[0], HIDDEN), []
        for t in range(x.shape[1]):
            outputs.append(state := self.cell(x[:, t], state))
            if t + 1 < x.shape[1]:
                x[:, t + 1] += self.head(state)
        return torch.stack(outputs, 1)


class Positions(Feedback):
    """What differs from step to step is a vector or a number, as many as there are channels."""

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = x.new_zeros(x.shape[0], HIDDEN), []
        for t in range(WIDTH):
            outputs.append(state := self.cell(x[:, t] + self.head.weight[t].mean() + x[0, t], state))
        return torch.stack(outputs, 1)


class Cut(Feedback):
    """A loop over at most 8 steps."""

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = x.new_zeros(x.shape[0], HIDDEN), []
        for step in x[:, :8].unbind(1):
            outputs.append(state := self.cell(step, state))
        return torch.stack(outputs, 1)


class Doubles(Feedback):
    """What a long sequence gives is doubled."""

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = x.new_zeros(x.shape[0], HIDDEN), []
        for step in x.unbind(1):
            outputs.append(state := self.cell(step, state))
        return torch.stack(outputs, 1) * (2 if x.shape[1] > 10 else 1)


def words(batch: int, time: int) -> Tensor:
    return torch.randint(0, WORDS, (batch, time))


def captured(how: How, *, length: int = 3) -> tuple[Loop, CapturedModel]:
    model = Loop(how).eval()
    return model, capture(model, {"words": words(2, length)}, {"words": {0: BATCH, 1: TIME}})


def operators_of(program: ExportedProgram) -> list[str]:
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


@settings(max_examples=8)
@given(
    how=st.builds(
        How,
        cell=st.sampled_from(list(CELLS)),
        layers=st.integers(1, 2),
        bias=st.booleans(),
        backwards=st.booleans(),
        time_first=st.booleans(),
        unbind=st.booleans(),
        inside=st.booleans(),
        joined=st.sampled_from(["stack", "cat"]),
    ),
    batch=st.integers(1, 5),
    time=st.integers(1, 9),
)
@example(how=How(layers=2, backwards=True, time_first=True, joined="cat"), batch=3, time=7)
def test_a_loop_equals_its_program_at_any_length(how: How, batch: int, time: int) -> None:
    model, program = captured(how)
    x = words(batch, time)

    have = program.programs["forward"].module()(x.int())

    for value, want in zip(have, model(x), strict=True):
        torch.testing.assert_close(value, want)
    found = operators_of(program.programs["forward"])
    assert sum("edgeseq" in name for name in found) == how.layers
    assert not any("_cell" in name or "stack" in name for name in found)


@pytest.mark.parametrize("format", converters.names())
def test_a_loop_is_one_layer_in_every_format(format: str, tmp_path: Path) -> None:
    counts = set()
    for length in (3, 16):
        model, program = captured(How(layers=2, backwards=True), length=length)
        artifact = converters.convert(program, format, tmp_path / str(length), model="loop")
        counts.add(COUNTERS[format](artifact.path))
        x = words(1, 21)

        session = runtimes.for_format(format).load(artifact.path, artifact.signatures, threads=1)

        for value, want in zip(session.run({"words": x.int().numpy()}).values(), model(x), strict=True):
            torch.testing.assert_close(torch.from_numpy(value), want.detach(), atol=1e-5, rtol=1e-5)
    assert len(counts) == 1


def test_what_feeds_itself_stays_a_loop() -> None:
    model, x = Feedback().eval(), torch.randn(3, 2, WIDTH)

    program = capture(model, {"x": x[:2]}, {"x": {0: BATCH}}).programs["forward"]

    assert sum("gru_cell" in name for name in operators_of(program)) == 3
    torch.testing.assert_close(program.module()(x)[0], model(x))


def test_steps_that_are_cut_masked_and_written_are_lifted() -> None:
    model, few = Written().eval(), Dim(name="time", min=1, max=12)

    program = capture(model, {"x": torch.randn(2, 4, WIDTH)}, {"x": {0: BATCH, 1: few}}).programs["forward"]

    assert not any("_cell" in name or "scatter" in name for name in operators_of(program))
    for shape in [(3, 11), (1, 1)]:
        x = torch.randn(*shape, WIDTH)
        for value, want in zip(program.module()(x), model(x), strict=True):
            torch.testing.assert_close(value, want)


@pytest.mark.parametrize("model", [WritesAhead(), Positions()], ids=["writes ahead", "positions"])
def test_what_is_no_step_of_a_sequence_is_not_taken_for_one(model: nn.Module) -> None:
    x = torch.randn(3, WIDTH, WIDTH)

    program = capture(model.eval(), {"x": x[:2]}, {"x": {0: BATCH}}).programs["forward"]

    torch.testing.assert_close(program.module()(x)[0], model(x))


@pytest.mark.parametrize("model", [CountsItsSteps(), Cut(), Doubles()], ids=["counts", "cut", "doubles"])
def test_a_loop_that_depends_on_its_length_is_refused_at_others(model: nn.Module) -> None:
    with pytest.raises(UnsupportedError, match=r"keeps the example's length"):
        capture(model.eval(), {"x": torch.randn(2, 4, WIDTH)}, {"x": {0: BATCH, 1: Dim(name="time", min=1, max=16)}})


def test_a_loop_of_one_length_may_use_it() -> None:
    model, x = CountsItsSteps().eval(), torch.randn(2, 4, WIDTH)

    program = capture(model, {"x": x}, {"x": {0: BATCH}}).programs["forward"]
    torch.testing.assert_close(program.module()(x)[0], model(x))
    assert "edgeseq.gru.default" in operators_of(program)
