"""GRUs whose reset gate acts before the recurrent product, and Core ML's operators for both forms."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeseq import converters, operators, quantize
from edgeseq.capture import capture
from edgeseq.devices import runtimes
from edgeseq.signature import Dim

WIDTH, HIDDEN, LAYERS = 5, 4, 2
BATCH, TIME = Dim(name="batch", min=1, max=8), Dim(name="time", min=1, max=64)

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Implicitly cleaning up:ResourceWarning"),
]


class ResetBefore(nn.Module):
    """Two layers in both directions, over padded rows."""

    def __init__(self) -> None:
        super().__init__()
        operators.load_all()
        layer = nn.GRU(WIDTH, HIDDEN, LAYERS, bidirectional=True)
        self.listed = nn.ParameterList(layer._flat_weights)

    def forward(self, x: Tensor, lengths: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
        h0 = h0.transpose(0, 1)  # (B, L*D, H) -> (L*D, B, H)
        y, hn = torch.ops.edgeseq.gru(x, h0, lengths, list(self.listed), LAYERS, True, False)
        return y, hn.transpose(0, 1)

    def expected(self, x: np.ndarray, h0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of one row without padding, by Cho et al. 2014: x (T, I), h0 (L*D, H)."""
        weights, final = [weight.detach().double().numpy() for weight in self.listed], []
        for row in range(0, 2 * LAYERS, 2):
            ahead = unrolled(x, h0[row], *weights[4 * row : 4 * row + 4])
            back = unrolled(x[::-1], h0[row + 1], *weights[4 * row + 4 : 4 * row + 8])[::-1]
            x = np.concatenate([ahead, back], axis=1)
            final += [ahead[-1], back[0]]
        return x, np.stack(final)


def unrolled(x: np.ndarray, h: np.ndarray, w: np.ndarray, u: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Every h (T, H) of one direction."""
    (w_r, w_z, w_n), (u_r, u_z, u_n), (b_r, b_z, b_n) = (np.split(part, 3) for part in (w, u, b + c))
    outputs = []
    for step in x:
        r = 1 / (1 + np.exp(-(w_r @ step + u_r @ h + b_r)))
        z = 1 / (1 + np.exp(-(w_z @ step + u_z @ h + b_z)))
        h = (1 - z) * np.tanh(w_n @ step + u_n @ (r * h) + b_n) + z * h
        outputs.append(h)
    return np.stack(outputs)


def feeds(batch: int, time: int) -> dict[str, Tensor]:
    """Rows of different lengths, the last one whole."""
    lengths = torch.randint(1, time + 1, (batch,), dtype=torch.int32)
    lengths[-1] = time
    return {
        "x": torch.randn(batch, time, WIDTH),
        "lengths": lengths,
        "h0": torch.randn(batch, 2 * LAYERS, HIDDEN),
    }


def assert_expected(model: ResetBefore, fed: dict[str, Tensor], y: np.ndarray, hn: np.ndarray) -> None:
    for row, length in enumerate(fed["lengths"].tolist()):
        outputs, final = model.expected(fed["x"][row, :length].double().numpy(), fed["h0"][row].double().numpy())
        np.testing.assert_allclose(y[row, :length], outputs, atol=1e-5)
        assert not y[row, length:].any()
        np.testing.assert_allclose(hn[row], final, atol=1e-5)


@pytest.mark.parametrize(("batch", "time"), [(1, 1), (3, 6)])
def test_reset_before_the_product_is_as_in_the_paper(batch: int, time: int) -> None:
    torch.manual_seed(0)
    model, fed = ResetBefore(), feeds(batch, time)

    y, hn = model(**fed)

    assert_expected(model, fed, y.detach().numpy(), hn.detach().numpy())


@pytest.mark.parametrize("format", converters.names())
def test_every_format_resets_before_the_product(format: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, axes = ResetBefore().eval(), {0: BATCH}
    shapes = {"x": {0: BATCH, 1: TIME}, "lengths": axes, "h0": axes}
    captured = capture(model, feeds(2, 6), shapes, output_names=("y", "hn"))

    artifact = converters.convert(captured, format, tmp_path, model="model")

    session = runtimes.for_format(format).load(artifact.path, artifact.signatures, threads=1)
    for batch, time in ((1, 1), (1, 23), (3, 9)):
        fed = feeds(batch, time)
        found = session.run({name: value.numpy() for name, value in fed.items()})
        assert_expected(model, fed, found["y"], found["hn"])


@pytest.mark.parametrize(("target", "is_loop"), [("ios16", True), ("ios18", False)])
def test_core_ml_runs_torchs_gru_in_a_loop_until_its_operator_can(target: str, is_loop: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.GRU(WIDTH, HIDDEN, batch_first=True)).eval()
    captured = capture(model, {"x": torch.randn(2, 6, WIDTH)}, {"x": {0: BATCH, 1: TIME}}, output_names=("y", "hn"))

    artifact = converters.convert(captured, "coreml", tmp_path, model="model", given={"target": target})

    session = runtimes.for_format("coreml").load(artifact.path, artifact.signatures, threads=1)
    x = torch.randn(3, 11, WIDTH)
    y, hn = model(x)
    for found, expected in zip(session.run({"x": x.numpy()}).values(), (y, hn), strict=True):
        np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-5)
    (program,) = artifact.path.rglob("*.mlmodel")
    assert (b"while_loop" in program.read_bytes()) == is_loop


def test_the_recurrent_weights_of_core_mls_loop_are_quantized(tmp_path: Path) -> None:
    model = nn.Sequential(nn.GRU(64, 64, batch_first=True)).eval()
    captured = capture(model, {"x": torch.randn(2, 6, 64)}, {"x": {0: BATCH, 1: TIME}}, output_names=("y", "hn"))
    artifact = converters.convert(captured, "coreml", tmp_path, model="model", given={"target": "ios16"})

    smaller = quantize.quantize(artifact, quantize.Scheme.parse("weight_only_wi8_afp32"), tmp_path / "int8")

    held = next(smaller.path.rglob("weight.bin")).stat().st_size
    assert held <= 0.35 * 4 * sum(parameter.numel() for parameter in model.parameters())
