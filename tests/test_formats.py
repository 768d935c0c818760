"""The contract of every format: what it converts computes the same, under every scheme it offers, at any length."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from edgeseq import converters, models, quantize
from edgeseq.artifact import Artifact
from edgeseq.capture import capture
from edgeseq.devices import runtimes
from edgeseq.errors import UnsupportedError
from edgeseq.parity import sqnr_db
from edgeseq.quantize import Scheme
from edgeseq.signature import Dim
from tests.benchmarks.recurrent import COUNTERS

FORMATS = converters.names()
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
SCHEMES = [(format, scheme) for format in FORMATS for scheme in quantize.get(format).schemes]
UNSEEN = ((1, 1), (1, 29), (3, 7), (2, 64))
DIMS = {0: Dim(name="batch", min=1, max=64), 1: Dim(name="time", min=1, max=128)}


class UsersEncoder(nn.Module):
    """What people write: torch's own encoder layers, mean over time."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(300, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(tokens)).mean(1))


class UsersLSTM(nn.Module):
    """What people write: two layers, time first, the last state of both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(300, 24)
        self.rnn = nn.LSTM(24, 20, 2, bidirectional=True)
        self.head = nn.Linear(40, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        _, (hidden, _) = self.rnn(self.embed(tokens).transpose(0, 1))
        return self.head(torch.cat([hidden[-2], hidden[-1]], dim=1))


class UsersRecurrent(nn.Module):
    """What people write: padded rows packed, other recurrent layers than LSTMs, and a projected one."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(300, 32)
        self.gru = nn.GRU(32, 32, 2, batch_first=True, bidirectional=True)
        self.rnn = nn.RNN(64, 32, batch_first=True, bidirectional=True)
        self.lstm = nn.LSTM(64, 64, batch_first=True, proj_size=32)
        self.head = nn.Linear(32 + 32, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        lengths = (tokens > 60).sum(1).clamp(min=1)
        x = pack_padded_sequence(self.embed(tokens), lengths.cpu(), batch_first=True, enforce_sorted=False)
        x, _ = self.gru(x)
        x, last = self.rnn(x)
        y, _ = pad_packed_sequence(self.lstm(x)[0], batch_first=True)
        return self.head(torch.cat([y.sum(1) / lengths[:, None], last[-1]], dim=1))


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "users_encoder":
        return UsersEncoder().eval()
    if name == "users_lstm":
        return UsersLSTM().eval()
    if name == "users_recurrent":
        return UsersRecurrent().eval()
    return models.build(name, {"n_vocab": 300, "d_model": 32}).eval()


MODELS = ("bilstm", "transformer_encoder", "users_encoder", "users_lstm", "users_recurrent")


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Artifact]:
    """Each model in each format, converted when it is first asked for."""
    folder = tmp_path_factory.mktemp("artifacts")

    class OnDemand(dict[tuple[str, str], Artifact]):
        def __missing__(self, key: tuple[str, str]) -> Artifact:
            name, format = key
            self[key] = convert(build(name), format, folder / name / format, length=16)
            return self[key]

    return OnDemand()


def convert(model: nn.Module, format: str, folder: Path, *, length: int) -> Artifact:
    captured = capture(model, {"tokens": torch.randint(1, 300, (2, length))}, {"tokens": DIMS})
    return converters.convert(captured, format, folder, model="model")


def compared(artifact: Artifact, model: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """(expected, actual) logits of both at shapes that the export never saw, all rows different."""
    session = runtimes.for_format(artifact.format).load(artifact.path, artifact.signatures, threads=1)
    expected, actual = [], []
    for shape in UNSEEN:
        tokens = np.random.default_rng(shape).integers(1, 300, shape, dtype=np.int32)
        with torch.no_grad():
            expected.append(model(torch.from_numpy(tokens).long()).numpy())
        actual.append(session.run({"tokens": tokens})["logits"])
    return np.concatenate(expected), np.concatenate(actual)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", MODELS)
def test_a_converted_model_computes_the_same(
    name: str, format: str, artifacts: dict[tuple[str, str], Artifact]
) -> None:
    expected, actual = compared(artifacts[name, format], build(name))

    np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize(("format", "scheme"), SCHEMES)
@pytest.mark.parametrize("name", ["bilstm", "transformer_encoder", "users_recurrent"])
def test_every_scheme_that_a_format_offers_works(
    name: str, format: str, scheme: str, artifacts: dict[tuple[str, str], Artifact], tmp_path: Path
) -> None:
    parsed, source = Scheme.parse(scheme), artifacts[name, format]

    quantized = quantize.quantize(source, parsed, tmp_path)

    expected, actual = compared(quantized, build(name))
    least_db = {16: 50.0, 8: 25.0, 4: 8.0}[parsed.weight_bits]  # some 6 dB a bit, less what activations lose
    assert sqnr_db(expected, actual - expected) >= least_db
    assert quantized.size_bytes < source.size_bytes
    assert quantized.parent_sha256 == source.sha256


@pytest.mark.parametrize("format", FORMATS)
def test_the_number_of_operators_does_not_depend_on_the_length(
    format: str, artifacts: dict[tuple[str, str], Artifact], tmp_path: Path
) -> None:
    longer = convert(build("bilstm"), format, tmp_path, length=128)

    assert COUNTERS[format](longer.path) == COUNTERS[format](artifacts["bilstm", format].path)


@torch.library.custom_op("tests::whiten", mutates_args=())
def whiten(x: Tensor) -> Tensor:
    """An operator that no format has."""
    return x - x.mean()


@whiten.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Whitening(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return whiten(x)


@pytest.mark.parametrize("format", FORMATS)
def test_a_lacking_operator_is_named_with_its_module_and_nothing_is_written(format: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ModuleDict({"front": Whitening()})["front"], nn.Linear(8, 2))
    captured = capture(model, {"x": torch.randn(2, 8)})

    with pytest.raises(UnsupportedError, match=r"lacks 1 operator.*tests\.whiten\.default in module '1'"):
        converters.convert(captured, format, tmp_path / "out", model="model")
    assert list((tmp_path / "out").iterdir()) == []


class EveryType(nn.Module):
    """x (B, 6) -> what models give besides float32."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.linear(x)
        positive = y > 0
        small = {"count": positive.sum(-1), "byte": positive.to(torch.uint8), "half": y.half()}
        return {"logits": y, "best": y.argmax(-1), "positive": positive, "wide": 2 * y.double(), **small}


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_gives_float32_and_int32_whatever_the_model_gives(format: str, tmp_path: Path) -> None:
    model = EveryType().eval()
    shapes = {"x": {0: Dim(name="batch", min=1, max=8)}}
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))

    artifact = converters.convert(capture(model, {"x": torch.ones(2, 6)}, shapes), format, tmp_path, model="m")
    given = runtimes.for_format(format).load(artifact.path, artifact.signatures, threads=1).run({"x": x.numpy()})

    with torch.no_grad():
        expected = model(x)
    assert {spec.name: spec.dtype for spec in artifact.signatures[0].outputs} == {
        name: "float32" if value.is_floating_point() else "int32" for name, value in expected.items()
    }
    for spec in artifact.signatures[0].outputs:
        assert given[spec.name].dtype == np.dtype(spec.dtype)
        np.testing.assert_allclose(given[spec.name], expected[spec.name].float().numpy(), atol=1e-3)
