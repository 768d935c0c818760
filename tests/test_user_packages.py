"""Packages that users made by coremltools alone: the Core ML evaluator computes what torch does, and `verify` takes them."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

if find_spec("coremltools") is None:
    pytest.skip("coremltools is not installed", allow_module_level=True)

import edgeseq.quiet_coremltools  # noqa: F401  # first: it decides how coremltools is imported

# isort: split
import coremltools as ct

from edgeseq import crosscheck
from edgeseq.devices.runtimes._mil.evaluate import load_functions
from edgeseq.quiet_coremltools import quietly

pytestmark = pytest.mark.filterwarnings(
    "ignore:Implicitly cleaning up:ResourceWarning", "ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning"
)


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(50, 16), nn.Linear(48, 5)
        self.lstm = nn.LSTM(16, 24, 2, batch_first=True, bidirectional=True)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.lstm(self.table(ids))[0]).log_softmax(-1)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm, self.qkv = nn.Embedding(50, 32), nn.LayerNorm(32), nn.Linear(32, 96)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.table(ids))
        q, k, v = self.qkv(x).chunk(3, -1)
        x = x + functional.scaled_dot_product_attention(q, k, v)
        return torch.tanh(x + self.down(functional.gelu(self.up(x))))[:, 0]


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6(), nn.MaxPool2d(2))
        self.second = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.ConvTranspose2d(8, 4, 2, 2))
        self.third = nn.Sequential(nn.InstanceNorm2d(4, affine=True), nn.PReLU(4), nn.AvgPool2d(4), nn.Hardswish())

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x))).flatten(1).topk(5)[0]


class Decoder(nn.Module):
    """A step with a cache in buffers, which become states."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.qkv, self.head = nn.Embedding(30, 16), nn.Linear(16, 48), nn.Linear(16, 30)
        self.register_buffer("keys", torch.zeros(1, 12, 16))
        self.register_buffer("values", torch.zeros(1, 12, 16))

    def forward(self, token: Tensor, position: Tensor) -> Tensor:
        q, k, v = self.qkv(self.table(token)).chunk(3, -1)
        here = (torch.arange(12) == position)[None, :, None].float()
        keys, values = self.get_buffer("keys"), self.get_buffer("values")
        keys.mul_(1 - here)
        keys.add_(here * k)
        values.mul_(1 - here)
        values.add_(here * v)
        scores = (q @ keys.transpose(1, 2) / 4).masked_fill(torch.arange(12) > position, -1e4)
        return self.head(scores.softmax(-1) @ values)


class Cell(nn.Module):
    """Scripted: a loop and a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros_like(x[0])
        for t in range(5):
            h = torch.tanh(self.cell(h) + x[t])
        if bool(h.sum() > 0):
            h = h * 2
        return h


def tensor(name: str, *sizes: Any, dtype: Any = np.float32) -> Any:
    return ct.TensorType(name=name, shape=sizes, dtype=dtype)


LENGTH = ct.RangeDim(1, 32, 7)
IDS, IMAGE, STEPS = torch.randint(0, 30, (2, 7)).int(), torch.randn(1, 3, 16, 16), torch.randn(5, 3, 6)
STATES = [
    ct.StateType(wrapped_type=ct.TensorType(shape=(1, 12, 16), dtype=np.float16), name=n) for n in ("keys", "values")
]
PACKAGES: dict[str, tuple[type[nn.Module], tuple[Tensor, ...], list[Any], dict[str, Any]]] = {
    "lstm": (Tagger, (IDS,), [tensor("ids", 2, LENGTH, dtype=np.int32)], {}),
    "encoder": (Encoder, (IDS,), [tensor("ids", 2, LENGTH, dtype=np.int32)], {"minimum_deployment_target": ct.target.iOS18}),
    "convolutions": (ConvNet, (IMAGE,), [tensor("x", 1, 3, 16, 16)], {"minimum_deployment_target": ct.target.iOS16}),
    "states": (
        Decoder,
        (torch.tensor([[3]]).int(), torch.tensor([2]).int()),
        [tensor("token", 1, 1, dtype=np.int32), tensor("position", 1, dtype=np.int32)],
        {"minimum_deployment_target": ct.target.iOS18, "states": STATES},
    ),
    "control flow": (Cell, (STEPS,), [tensor("x", 5, 3, 6)], {}),
}  # fmt: skip


@pytest.mark.parametrize("precision", ["FLOAT16", "FLOAT32"])
@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_computes_what_torch_does(name: str, precision: str, tmp_path: Path) -> None:
    make, examples, inputs, options = PACKAGES[name]
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        traced = torch.jit.script(model) if name == "control flow" else torch.jit.trace(make_like(model), examples)  # type: ignore[no-untyped-call]  # torch has no types there
        expected = model(*examples).numpy()
    path = tmp_path / "model.mlpackage"
    with quietly():
        made = ct.convert(
            traced,
            inputs=inputs,
            convert_to="mlprogram",
            compute_precision=ct.precision[precision],
            skip_model_load=True,
            **options,
        )
    made.save(str(path))

    feeds = {i.name: x.numpy() for i, x in zip(inputs, examples, strict=True)}
    (actual,) = load_functions(path)["main"](feeds).values()
    report = crosscheck.check(path)

    np.testing.assert_allclose(actual, expected, atol=1e-2 if precision == "FLOAT16" or name == "states" else 1e-5)
    assert report.failures == ()


def make_like(model: nn.Module) -> nn.Module:
    """Another one with the same weights: tracing runs it, and its buffers change."""
    other = type(model)().eval()
    other.load_state_dict(model.state_dict())
    return other
