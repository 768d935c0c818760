"""What the ONNX converter fuses: fewer operators, the same values."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseq import converters, inspection, models
from edgeseq.capture import Call, capture, capture_calls
from edgeseq.converters.onnx import attention
from edgeseq.devices import runtimes
from edgeseq.signature import Dim

BATCH, TIME, SOURCE = (Dim(name=name, min=1, max=64) for name in ("batch", "time", "source"))
HEADS, WIDTH = 3, 24


class Attention(nn.Module):
    """One layer of attention from x (B, T, D) to y (B, S, D), with a mask made of `valid` (B, S)."""

    def __init__(self, mask: str) -> None:
        super().__init__()
        self.mask = mask
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Tensor, y: Tensor, valid: Tensor) -> Tensor:
        q, k, v = (
            layer(z).view(z.shape[0], z.shape[1], HEADS, -1).transpose(1, 2)
            for layer, z in ((self.q, x), (self.k, y), (self.v, y))
        )
        seen = valid > 0  # (B, S)
        masks = {
            "none": None,
            "causal": None,
            "additive": ((~seen).float() * -1e4)[:, None, None, :],
            "boolean": seen[:, None, None, :],
            "every query": seen[:, None, None, :].expand(-1, 1, x.shape[1], -1),
        }
        joined = F.scaled_dot_product_attention(q, k, v, attn_mask=masks[self.mask], is_causal=self.mask == "causal")
        return joined.transpose(1, 2).flatten(2) + 0 * valid.sum()


def converted(model: nn.Module, examples: dict[str, Tensor], shapes: dict[str, dict[int, Dim]], folder: Path) -> Path:
    return converters.convert(capture(model, examples, shapes), "onnx", folder, model="m").path


def operators(path: Path) -> list[str]:
    return [node.op_type for node in ir.load(path).graph]


def run(path: Path, **inputs: np.ndarray) -> np.ndarray:
    return runtimes.for_format("onnx").load(path, (), threads=1).run(inputs)["logits"]


@pytest.mark.parametrize("mask", ["none", "causal", "additive", "boolean", "every query"])
def test_attention_is_one_operator_between_rows_and_equals_torch_at_any_shape(mask: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Attention(mask).eval()
    examples = {"x": torch.randn(2, 5, WIDTH), "y": torch.randn(2, 7, WIDTH), "valid": torch.ones(2, 7)}
    shapes = {"x": {0: BATCH, 1: TIME}, "y": {0: BATCH, 1: SOURCE}, "valid": {0: BATCH, 1: SOURCE}}

    path = converted(model, examples, shapes, tmp_path)

    assert operators(path).count("Attention") == 1
    assert not {"Softmax", "Transpose", "Reshape"} & set(operators(path))
    for batch, time, source in ((1, 1, 1), (3, 6, 4), (2, 1, 9), (2, 8, 8)):
        x, y, valid = torch.randn(batch, time, WIDTH), torch.randn(batch, source, WIDTH), torch.ones(batch, source)
        valid[0, source // 2 + 1 :] = 0
        with torch.no_grad():
            expected = model(x, y, valid)
        actual = run(path, x=x.numpy(), y=y.numpy(), valid=valid.numpy())
        np.testing.assert_allclose(actual, expected.numpy(), atol=1e-5)


class Neighbours(nn.Module):
    """A sum of three products, two of them without a bias, and then a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.here, self.after = (nn.Linear(size, 6, bias=size == 4) for size in (3, 4, 5))
        self.norm = nn.LayerNorm(6)

    def forward(self, x: Tensor, y: Tensor, z: Tensor, residual: Tensor) -> Tensor:
        normed: Tensor = self.norm(residual + (self.before(x) + self.here(y) + self.after(z)).relu())
        return normed


@pytest.fixture(scope="module")
def neighbours(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    model = Neighbours().eval()
    examples = {name: torch.randn(2, 5, size) for name, size in (("x", 3), ("y", 4), ("z", 5), ("residual", 6))}
    shapes = {name: {0: BATCH, 1: TIME} for name in examples}
    return model, converted(model, examples, shapes, tmp_path_factory.mktemp("neighbours"))


def test_a_sum_of_products_is_one_product(neighbours: tuple[nn.Module, Path]) -> None:
    names = operators(neighbours[1])

    assert names.count("MatMul") == 1
    assert names.count("Concat") == 1
    assert names.count("Add") == 1  # of the bias


def test_a_residual_is_not_added_where_onnxruntime_would_fuse_it(neighbours: tuple[nn.Module, Path]) -> None:
    graph = ir.load(neighbours[1]).graph
    norm = next(node for node in graph if node.op_type == "LayerNormalization")

    added = norm.inputs[0]
    assert added is not None and added.producer() is not None
    assert added.producer().op_type == "Sum"  # type: ignore[union-attr]  # asserted above


def test_rewritten_sums_equal_torch(neighbours: tuple[nn.Module, Path]) -> None:
    model, path = neighbours
    inputs = {name: torch.randn(3, 4, size) for name, size in (("x", 3), ("y", 4), ("z", 5), ("residual", 6))}

    with torch.no_grad():
        expected = model(**inputs)

    actual = run(path, **{name: value.numpy() for name, value in inputs.items()})
    np.testing.assert_allclose(actual, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(("name", "opset"), [("bilstm", 20), ("transformer_encoder", 23)])
def test_the_operator_set_is_no_newer_than_the_model_needs(name: str, opset: int, tmp_path: Path) -> None:
    tokens = {0: BATCH, 1: TIME}
    model = models.build(name, {"n_vocab": 20, "d_model": 16})

    path = converted(model, {"tokens": torch.ones(2, 5, dtype=torch.int64)}, {"tokens": tokens}, tmp_path)

    assert ir.load(path).opset_imports == {"": opset}


def test_masks_are_looked_for_where_there_is_attention_only() -> None:
    constant = ir.node("Constant", [], {"value_float": 1.0})
    graph = ir.Graph([], constant.outputs, nodes=[constant], opset_imports={"": 23})

    attention.give_masks_every_query(ir.Model(graph, ir_version=10))

    assert list(graph) == [constant]


def test_sizes_in_a_file_have_the_names_of_dimensions(tmp_path: Path) -> None:
    class Longer(nn.Module):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return torch.cat([x * mask[..., None], x[:, :1]], dim=1)

    batch, time = Dim(name="batch", min=1, max=8), Dim(name="time", min=1, max=64)
    shapes = {"x": {0: batch, 1: time}, "mask": {0: batch, 1: time}}
    examples = {"x": torch.ones(2, 5, 8), "mask": torch.ones(2, 5)}

    artifact = converters.convert(capture(Longer(), examples, shapes), "onnx", tmp_path, model="longer")

    graph = ir.load(artifact.path).graph
    assert [str(value.shape) for value in (*graph.inputs, *graph.outputs)] == [
        "[batch,time,8]",
        "[batch,time]",
        "[batch,time + 1,8]",
    ]
    (product,) = (node.outputs[0] for node in graph if node.op_type == "Mul")
    assert str(product.shape) == "[batch,time,8]"


def test_one_program_of_a_folder_is_read_as_its_own_signature(tmp_path: Path) -> None:
    batch = Dim(name="batch", min=1, max=8)
    calls = [
        Call(
            name=name,
            method=lambda model, x: model(x),
            examples={"x": torch.ones(2, 4)},
            dynamic_shapes={"x": {0: batch}},
        )
        for name in ("encode", "score")
    ]
    artifact = converters.convert(capture_calls(nn.Linear(4, 3), calls), "onnx", tmp_path, model="several")

    (signature,) = inspection.inspect(artifact.path / "score.onnx").contents.signatures

    assert (signature.name, signature.inputs[0].shape) == ("score", ("batch", 4))
