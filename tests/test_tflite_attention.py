"""Attention in TFLite files: head by head where heads lie side by side, against torch's own."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ai_edge_litert import schema_py_generated as schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeseq import converters, inspection
from edgeseq.artifact import Artifact
from edgeseq.capture import Call, capture, capture_calls
from edgeseq.devices import runtimes
from edgeseq.signature import Dim

WIDTH = 8  # of a head
MODEL = 24
LENGTHS = (1, 2, 17, 40)
AXES = {0: Dim(name="batch", min=1, max=4), 1: Dim(name="time", min=1, max=64)}

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:copyreg", "ignore:.*LeafSpec.*:FutureWarning")


class Attention(nn.Module):
    """x (B, T, D) -> (B, T, D), by H heads of which several may share keys and values, under a kind of mask."""

    def __init__(self, heads: int, groups: int, mask: str):
        super().__init__()
        self.heads, self.groups, self.mask = heads, groups, mask
        self.query = nn.Linear(MODEL, heads * WIDTH)
        self.key, self.value = (nn.Linear(MODEL, groups * WIDTH) for _ in range(2))
        self.output = nn.Linear(heads * WIDTH, MODEL)

    def forward(self, x: Tensor) -> Tensor:
        q = self.query(x).view(*x.shape[:2], self.heads, WIDTH).transpose(1, 2)
        k, v = (layer(x).view(*x.shape[:2], self.groups, WIDTH).transpose(1, 2) for layer in (self.key, self.value))
        is_low = (x[..., 0] < 0) | (torch.arange(x.shape[1]) == 0)  # (B, T); no row is masked altogether
        mask = {
            "none": None,
            "causal": None,
            "keys": is_low.float()[:, None, None] * -2,  # (B, 1, 1, T)
            "booleans": is_low[:, None, None],
            "pairs": x @ x.mT.exp(),  # (B, T, T)
            "heads": (x @ x.mT)[:, None] * torch.arange(1.0, self.heads + 1)[:, None, None],  # (B, H, T, T)
        }[self.mask]
        mask = mask[:, None] if self.mask == "pairs" and mask is not None else mask
        y = F.scaled_dot_product_attention(
            q, k, v, mask, is_causal=self.mask == "causal", enable_gqa=self.heads != self.groups
        )
        return self.output(y.transpose(1, 2).reshape(*x.shape[:2], self.heads * WIDTH))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sharing=st.sampled_from([1, 2, 3]),
    groups=st.sampled_from([1, 2, 5]),
    mask=st.sampled_from(["none", "causal", "keys", "booleans", "pairs", "heads"]),
)
def test_attention_equals_torch(sharing: int, groups: int, mask: str, tmp_path: Path) -> None:
    model = Attention(sharing * groups, groups, mask).eval()
    artifact = converted(model, tmp_path)

    assert max(largest_error(model, artifact, length) for length in LENGTHS) <= 2e-5


@pytest.mark.parametrize("mask", ["causal", "keys"])
def test_heads_side_by_side_need_no_transposition_and_one_projection(mask: str, tmp_path: Path) -> None:
    kinds = operators(converted(Attention(6, 3, mask), tmp_path))

    assert kinds["TRANSPOSE"] == 0
    assert kinds["FULLY_CONNECTED"] == 2
    assert kinds["BATCH_MATMUL"] == 2 * 6


class SelfAttention(nn.Module):
    """torch's own module, which projects by one packed weight."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(MODEL, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return result


def test_a_packed_projection_gives_heads_without_transpositions(tmp_path: Path) -> None:
    model = SelfAttention().eval()
    artifact = converted(model, tmp_path)

    assert operators(artifact)["TRANSPOSE"] == 0
    assert max(largest_error(model, artifact, length) for length in LENGTHS) <= 2e-5


class PackedFromTheEnd(nn.Module):
    """Parts of one projection, by indices of both signs."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(MODEL, 3 * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.projection(x).view(*x.shape[:2], 3, WIDTH).permute(2, 0, 1, 3)
        return torch.cat([parts[-1], parts[0], parts[-2], parts[-3]], 2)


def test_parts_of_a_packed_projection_may_be_counted_from_the_end(tmp_path: Path) -> None:
    model = PackedFromTheEnd().eval()

    assert largest_error(model, converted(model, tmp_path), 5) <= 1e-5


def test_signatures_share_the_projections_of_their_heads(tmp_path: Path) -> None:
    model = Attention(3, 3, "none").eval()
    call = Call(
        name="prefill",
        method="forward",
        examples={"x": torch.randn(2, 5, MODEL)},
        dynamic_shapes={"x": AXES},
        output_names=("y",),
        cases={"step": {"time": 1}},
    )
    artifact = converters.convert(capture_calls(model, (call,)), "tflite", tmp_path, model="both")
    model_file = schema.ModelT.InitFromPackedBuf(artifact.path.read_bytes(), 0)

    held = sum(len(buffer.data) for buffer in model_file.buffers if buffer.data is not None)
    assert held <= 1.1 * sum(parameter.numel() * 4 for parameter in model.parameters())


def converted(model: nn.Module, folder: Path) -> Artifact:
    """In float32, with any batch and length."""
    program = capture(model.eval(), {"x": torch.randn(2, 5, MODEL)}, {"x": AXES}, output_names=("y",))
    return converters.convert(program, "tflite", folder, model="attention")


def operators(artifact: Artifact) -> Counter[str]:
    """How many operators of each kind the file has."""
    return Counter(operator.kind for operator in inspection.inspect(artifact.path).contents.operators)


def largest_error(model: nn.Module, artifact: Artifact, length: int) -> float:
    """At a batch of 2."""
    x = torch.randn(2, length, MODEL)
    session = runtimes.for_format("tflite").load(artifact.path, artifact.signatures, threads=1)
    with torch.no_grad():
        return float(np.abs(session.run({"x": x.numpy()})["y"] - model(x).numpy()).max())
