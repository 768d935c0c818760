"""Signatures of fixed lengths: on the same weights, equal to the one of any length, and padded only where that is safe."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeseq import converters, fixed_lengths, quantize
from edgeseq.artifact import Artifact
from edgeseq.capture import capture
from edgeseq.devices import runtimes
from edgeseq.errors import RequestError
from edgeseq.operators.lstm import LSTM
from edgeseq.quantize import Scheme
from edgeseq.reference import Case
from edgeseq.signature import Dim

BATCH, TIME = Dim(name="batch", min=1, max=8), Dim(name="time", min=1, max=64)
WIDTH, LENGTHS = 16, (4, 12)


class Tagger(nn.Module):
    """Every step's output and the last state, with or without lengths."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.lstm = LSTM(WIDTH, width, 2, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, (h, _) = self.lstm(x, None, lengths)
        return y, h[-1]


@pytest.fixture(scope="module")
def model() -> Tagger:
    torch.manual_seed(0)
    return Tagger().eval()


@pytest.fixture(scope="module")
def told(model: Tagger, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return convert(model, tmp_path_factory.mktemp("told"), lengths=torch.tensor([6, 3]))


@pytest.fixture(scope="module")
def untold(model: Tagger, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return convert(model, tmp_path_factory.mktemp("untold"))


def convert(model: nn.Module, folder: Path, *, given: tuple[int, ...] = LENGTHS, **more: Tensor) -> Artifact:
    shapes = {"x": {0: BATCH, 1: TIME}, **{name: {0: BATCH} for name in more}}
    captured = capture(model, {"x": torch.randn(2, 6, WIDTH), **more}, shapes, output_names=("y", "last"))
    return converters.convert(captured, "tflite", folder, model="tagger", given={"lengths": list(given)})


@pytest.mark.parametrize("engine", ["litert", "tensorflow"])
@pytest.mark.parametrize(("batch", "time", "picked"), [(1, 3, 4), (1, 4, 4), (2, 5, 12), (1, 12, 12)])
def test_the_smallest_that_fits_equals_torch_on_unpadded_inputs(
    engine: str, batch: int, time: int, picked: int, model: Tagger, told: Artifact
) -> None:
    session = runtimes.get(engine).load(told.path, told.signatures, threads=1)
    x, lengths = torch.randn(batch, time, WIDTH), torch.tensor([time, max(1, time - 2)][:batch])
    feeds = {"x": x.numpy(), "lengths": lengths.int().numpy()}

    name = fixed_lengths.pick(told.signatures, feeds)
    have = fixed_lengths.padding(session.run, told.signatures)(feeds, name)

    assert name == f"forward_{picked}"
    for actual, expected in zip(have.values(), model(x, lengths), strict=True):
        np.testing.assert_allclose(actual, expected.detach().numpy(), atol=1e-5)


def test_signatures_share_their_weights_under_every_scheme(tmp_path: Path) -> None:
    wide, scheme = Tagger(96).eval(), Scheme.parse("dynamic_wi8_afp32")
    several, alone = (convert(wide, tmp_path / str(len(given)), given=given) for given in (LENGTHS, ()))
    small = [quantize.quantize(a, scheme, tmp_path / f"int8_{n}") for n, a in enumerate((several, alone))]
    weights = sum(p.numel() for p in wide.parameters())

    assert several.size_bytes - alone.size_bytes < 4 * weights / 2
    assert small[0].size_bytes - small[1].size_bytes < weights / 2


def test_a_model_that_is_told_no_lengths_is_never_padded(model: Tagger, untold: Artifact) -> None:
    exact, shorter = ({"x": np.zeros((1, time, WIDTH), np.float32)} for time in (4, 3))

    assert fixed_lengths.pick(untold.signatures, exact) == "forward_4"
    with pytest.raises(RequestError, match=r"3 steps padded to 4 could change the result.*run 'forward' itself"):
        fixed_lengths.pick(untold.signatures, shorter)


def test_longer_inputs_are_refused_with_the_lengths_there_are(untold: Artifact) -> None:
    with pytest.raises(RequestError, match="13 long or longer; lengths are: 4, 12"):
        fixed_lengths.pick(untold.signatures, {"x": np.zeros((1, 13, WIDTH), np.float32)})


def test_cases_of_a_reference_are_those_that_fixed_signatures_take(untold: Artifact) -> None:
    def case(time: int) -> Case:
        return Case(name=str(time), kind="parity", inputs={"x": np.zeros((2, time, WIDTH), np.float32)}, outputs={})

    found = fixed_lengths.cases([case(3), case(4), case(12), case(13)], untold.signatures)

    assert [(case.name, case.signature) for case in found] == [
        ("4 by forward_4", "forward_4"),
        ("12 by forward_12", "forward_12"),
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [((4, 4), "name one twice"), ((4, 65), "out of the bounds of 'time', 1 to 64"), ((0,), "out of the bounds")],
)
def test_lengths_that_cannot_be_are_refused(given: tuple[int, ...], words: str, model: Tagger, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=words):
        convert(model, tmp_path, given=given)


def test_a_model_without_a_dynamic_length_takes_no_lengths(model: Tagger, tmp_path: Path) -> None:
    captured = capture(model, {"x": torch.randn(2, 6, WIDTH)}, {"x": {0: BATCH}})

    with pytest.raises(RequestError, match="no single dynamic dimension beside the batch"):
        converters.convert(captured, "tflite", tmp_path, model="tagger", given={"lengths": [4]})
