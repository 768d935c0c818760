"""Models in half precision: captured in float32, where their weights are the same numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeseq import converters
from edgeseq.capture import capture
from edgeseq.devices import runtimes
from edgeseq.errors import UnsupportedError
from edgeseq.signature import Dim
from edgeseq.sources import _usage
from edgeseq.sources._script import usages

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.export warns of its own parts


class Recurrent(nn.Module):
    """x (B, T, 6) -> (B, T, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(6, 8, 2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.layer(x)[0])
        return y


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("format", converters.names())
def test_an_lstm_computes_in_float32_with_the_same_weights(format: str, dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Recurrent().to(dtype).eval()
    shapes = {"x": {1: Dim(name="time", min=1, max=32)}}
    captured = capture(model, {"x": torch.randn(2, 5, 6).to(dtype)}, shapes)
    x = np.random.default_rng(0).standard_normal((2, 11, 6)).astype(np.float32)

    artifact = converters.convert(captured, format, tmp_path, model="model")

    session = runtimes.for_format(format).load(artifact.path, artifact.signatures, threads=1)
    assert artifact.signatures[0].input("x").dtype == "float32"
    assert model.head.weight.dtype == dtype  # the user's own model is left alone
    with torch.no_grad():
        expected = Recurrent().eval().requires_grad_(False)
        expected.load_state_dict({name: value.float() for name, value in model.state_dict().items()})
        np.testing.assert_allclose(session.run({"x": x})["logits"], expected(torch.from_numpy(x)).numpy(), atol=1e-5)


def test_a_script_with_a_half_precision_model_says_so() -> None:
    class Script:
        __name__ = "script"

        def get_model(self) -> nn.Module:
            return nn.Linear(4, 3).half()

        def get_args(self) -> tuple[Tensor]:
            return (torch.randn(2, 4).half(),)

    loaded = _usage.load(usages(Script()), values="random values")  # type: ignore[arg-type]  # has a module's functions

    assert "the model is float16, and was captured in float32" in loaded.about["input"]
    assert all(case.outputs["logits"].dtype == np.float32 for case in loaded.cases)


def test_casts_to_half_precision_in_the_model_are_refused_by_place() -> None:
    class Casting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.half() * 2

    with pytest.raises(UnsupportedError, match="module '0' computes in float16 whatever its weights are"):
        capture(nn.Sequential(Casting()), {"x": torch.ones(2, 4)})


def test_half_precision_inputs_of_float32_weights_are_refused() -> None:
    class Narrowing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.half())

    with pytest.raises(UnsupportedError, match="module 'linear' computes in float16 whatever its weights are"):
        capture(Narrowing().half(), {"x": torch.ones(2, 4)})


def test_rounding_to_half_precision_is_kept() -> None:
    class Rounding(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.half().float()

    program = capture(Rounding(), {"x": torch.ones(2, 4)}).programs["forward"]

    x = torch.full((2, 4), 0.1)
    assert torch.equal(program.module()(x)[0], x.half().float())
