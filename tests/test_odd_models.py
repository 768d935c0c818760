"""Models that are out of the ordinary: each is converted and computes the same in every format, or is refused in one line."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from edgeseq import artifact, converters, onnx_file, quantize
from edgeseq.capture import CapturedModel, capture
from edgeseq.converters.tflite import _flatbuffer
from edgeseq.devices import runtimes
from edgeseq.errors import EdgeseqError, RequestError, UnsupportedError
from edgeseq.quantize import Scheme
from edgeseq.signature import Dim
from tests import tiny

pytestmark = pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning", "ignore::FutureWarning")

FORMATS = converters.names()
BATCH = Dim(name="batch", min=1, max=8)
UNSEEN_BATCH = 3


class Model(nn.Module):
    """A linear layer inside any function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.head = nn.Linear(4, 3)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self.head, *inputs)


@dataclass(frozen=True)
class Case:
    function: Callable[..., Any]
    others: Mapping[str, Tensor]  # inputs besides x (batch, 4)


CASES = {
    "an input that nothing reads": Case(lambda head, x, u: head(x), {"u": torch.ones(2, 3)}),
    "an input without axes": Case(lambda head, x, t: head(x) * t, {"t": torch.tensor(2.0)}),
    "int64 inputs": Case(lambda head, x, i: head(x) + i[:, None], {"i": torch.tensor([5, 7])}),
    "boolean inputs": Case(lambda head, x, m: head(x) * m, {"m": torch.tensor([[True], [False]])}),
    "axes of size 1": Case(lambda head, x: head(x[:, None, None]).mean(1, keepdim=True), {}),
    "an empty part": Case(lambda head, x: torch.cat([head(x), x[:, :0]], 1), {}),
    "a tuple of outputs": Case(lambda head, x: (head(x), (x * 2, x.sum(1))), {}),
    "an output that is constant": Case(lambda head, x: (head(x), torch.arange(3.0)), {}),
    "integer outputs": Case(lambda head, x: head(x).argmax(-1), {}),
    "boolean outputs": Case(lambda head, x: head(x) > 0, {}),
}


def captured(function: Callable[..., Any], others: Mapping[str, Tensor] | None = None) -> tuple[Model, CapturedModel]:
    model = Model(function).eval()
    examples = {"x": torch.randn(2, 4), **(others or {})}
    shapes = {name: {0: BATCH} for name, value in examples.items() if value.dim()}
    return model, capture(model, examples, shapes)


def run(program: CapturedModel, format: str, feeds: Mapping[str, np.ndarray], folder: Path) -> list[np.ndarray]:
    made = converters.convert(program, format, folder, model="odd")
    outputs = runtimes.for_format(format).load(made.path, made.signatures, threads=1).run(dict(feeds))
    return [outputs[spec.name] for spec in made.signatures[0].outputs]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", CASES)
def test_it_computes_the_same_at_an_unseen_batch(name: str, format: str, tmp_path: Path) -> None:
    case = CASES[name]
    model, program = captured(case.function, case.others)
    inputs = {"x": torch.randn(UNSEEN_BATCH, 4)}
    for key, value in case.others.items():
        inputs[key] = value[torch.tensor([0, 1, 0])] if value.dim() else value * 3
    feeds = {key: (value.int() if value.dtype == torch.int64 else value).numpy() for key, value in inputs.items()}

    actual = run(program, format, feeds, tmp_path)

    with torch.no_grad():
        expected = [t for t in torch.utils._pytree.tree_leaves(model(*inputs.values())) if isinstance(t, Tensor)]
    for have, want in zip(actual, expected, strict=True):
        np.testing.assert_allclose(have, want.numpy(), atol=1e-6)


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_an_output_may_be_an_input(format: str, tmp_path: Path) -> None:
    _, program = captured(lambda head, x: (head(x), x))
    x = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)

    assert np.array_equal(run(program, format, {"x": x}, tmp_path)[1], x)


@pytest.mark.parametrize("function", [lambda head, x: (head(x), x), lambda head, x: (x * 2,) * 2])
def test_core_ml_says_that_it_cannot_give_one_tensor_two_names(function: Callable[..., Any], tmp_path: Path) -> None:
    _, program = captured(function)

    with pytest.raises(UnsupportedError, match="cannot give one tensor two names, but output 'output_1' is"):
        run(program, "coreml", {}, tmp_path)


@pytest.mark.parametrize(
    ("function", "advice"),
    [
        (
            lambda head, x: head(x) if x.sum() > 0 else x[:, :3],
            "the model's path depends on the values of a tensor; use torch.where",
        ),
        (lambda head, x: head(x)[: int((x > 0).sum())], "a size depends on the values of a tensor; mask"),
        (lambda head, x: None, "the model returns no tensor"),
    ],
)
def test_what_torch_cannot_export_is_explained_in_one_line(function: Callable[..., Any], advice: str) -> None:
    with pytest.raises(UnsupportedError) as refused:
        captured(function)

    assert advice in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("format", ["coreml", "tflite"])
def test_sizes_that_depend_on_values_are_refused(format: str, tmp_path: Path) -> None:
    _, program = captured(lambda head, x: head(x)[x[:, 0] > 0])

    with pytest.raises(EdgeseqError) as refused:
        run(program, format, {}, tmp_path)

    assert format in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.uint8, torch.complex64])
def test_inputs_of_other_types_are_refused_by_name(dtype: torch.dtype) -> None:
    with pytest.raises(UnsupportedError, match=r"input 'x' is \w+, which not every format can take"):
        capture(nn.Linear(4, 3), {"x": torch.ones(2, 4, dtype=dtype)})


def test_weights_of_other_types_are_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2).double())

    with pytest.raises(
        UnsupportedError, match=r"2 weight\(s\) of the model are \w+, the first is '1.weight'.*model.float"
    ):
        capture(model, {"x": torch.ones(2, 4)})


def test_an_example_that_holds_nothing_is_refused() -> None:
    with pytest.raises(RequestError, match=r"input 'x' has shape \[0, 4\], which holds no value"):
        capture(nn.Linear(4, 3), {"x": torch.ones(0, 4)})


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "NaN"), (float("inf"), "infinite")])
def test_weights_that_are_no_numbers_are_refused_by_layer(value: float, word: str) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    next(model[1].parameters()).data[0, 0] = value

    with pytest.raises(RequestError, match=rf"parameter '1.weight' \(1 of 6 values are {word}\)"):
        capture(model, {"x": torch.ones(2, 4)})


def test_masks_may_be_infinite_but_not_nan() -> None:
    class Masked(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.mask: Tensor
            self.register_buffer("mask", torch.full((4, 4), value).triu(1))

        def forward(self, x: Tensor) -> Tensor:
            return (x + self.mask).softmax(-1)

    capture(Masked(float("-inf")), {"x": torch.ones(4, 4)})

    with pytest.raises(RequestError, match="buffer 'mask'"):
        capture(Masked(float("nan")), {"x": torch.ones(4, 4)})


@pytest.mark.parametrize("format", FORMATS)
def test_lacking_operators_come_with_what_replaces_them(format: str, tmp_path: Path) -> None:
    class Bessel(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.bessel_j0(x) + torch.special.bessel_j1(x)

    model = nn.Sequential(nn.Linear(4, 3), Bessel())

    with pytest.raises(UnsupportedError) as refused:
        converters.convert(capture(model, {"x": torch.ones(2, 4)}), format, tmp_path, model="odd")

    message = str(refused.value)
    assert "lacks 2 operator(s)" in message
    assert (
        "aten.special_bessel_j0.default in module '1' (instead: a polynomial (Abramowitz and Stegun 9.4.1))" in message
    )
    assert (
        "aten.special_bessel_j1.default in module '1' (instead: a polynomial (Abramowitz and Stegun 9.4.4))" in message
    )


@pytest.mark.parametrize("format", FORMATS)
def test_names_may_have_spaces_and_letters_of_any_language(format: str, tmp_path: Path) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.größe = nn.Linear(4, 3)

        def forward(self, eingabe: Tensor) -> Tensor:
            return self.größe(eingabe)

    model, x = Named().eval(), torch.randn(2, 4)
    made = converters.convert(
        capture(model, {"eingabe": x}), format, tmp_path / "ein Ordner, größer", model="mein Modell ü"
    )

    session = runtimes.for_format(format).load(made.path, made.signatures, threads=1)

    assert artifact.Artifact.load(made.path.parent) == made
    np.testing.assert_allclose(session.run({"eingabe": x.numpy()})["logits"], model(x).detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("format", FORMATS)
def test_an_input_may_be_called_what_its_format_can_say(format: str, tmp_path: Path) -> None:
    class Named(nn.Module):
        def forward(self, größe: Tensor) -> Tensor:
            return größe * 2

    program = capture(Named(), {"größe": torch.ones(2, 4)})
    x = np.arange(8, dtype=np.float32).reshape(2, 4)

    if format == "coreml":
        with pytest.raises(UnsupportedError, match=r"names of ASCII letters, digits and '_', but one is 'größe'"):
            run(program, format, {}, tmp_path)
    else:
        assert np.array_equal(run(program, format, {"größe": x}, tmp_path)[0], 2 * x)


def test_weights_too_large_for_an_onnx_file_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tiny.to_onnx(tmp_path / "whole")
    monkeypatch.setattr(onnx_file.save, "__kwdefaults__", {"most": 1000})
    split = tiny.to_onnx(tmp_path / "split")
    half = quantize.quantize(split, Scheme.parse("fp16"), tmp_path / "half")
    int8 = quantize.quantize(split, Scheme.parse("dynamic_wi8_afp32"), tmp_path / "int8")
    tokens = {"tokens": np.random.default_rng(0).integers(0, tiny.VOCABULARY, (2, 9), dtype=np.int32)}

    def logits(made: artifact.Artifact) -> np.ndarray:
        return runtimes.for_format("onnx").load(made.path, made.signatures, threads=1).run(tokens)["logits"]

    assert not artifact.companion(whole.path).exists()
    assert split.path.stat().st_size < 6000 < artifact.companion(split.path).stat().st_size
    assert split.size_bytes == split.path.stat().st_size + artifact.companion(split.path).stat().st_size
    np.testing.assert_array_equal(logits(split), logits(whole))
    np.testing.assert_allclose(logits(half), logits(whole), atol=1e-2)
    np.testing.assert_allclose(logits(int8), logits(whole), atol=2e-2)
    assert artifact.companion(int8.path).stat().st_size < artifact.companion(split.path).stat().st_size / 2
    assert isinstance(ir.load(split.path).graph.initializers["model.embedding.weight"].const_value, ir.ExternalTensor)


def test_programs_of_an_earlier_save_go(tmp_path: Path) -> None:
    graph = ir.Graph([], [], nodes=[], name="empty", opset_imports={"": 20})
    model = ir.Model(graph, ir_version=10)
    onnx_file.save_programs({"prefill": model, "step": model}, tmp_path)

    onnx_file.save_programs({"encode": model, "step": model}, tmp_path)

    assert {file.stem for file in tmp_path.glob("*.onnx")} == {"encode", "step"}


def test_a_changed_weight_beside_an_onnx_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file.save, "__kwdefaults__", {"most": 1000})
    made = tiny.to_onnx(tmp_path / "split")
    data = bytearray(artifact.companion(made.path).read_bytes())
    data[100] ^= 1
    artifact.companion(made.path).write_bytes(data)

    with pytest.raises(RequestError, match=r"is not the file that artifact\.json describes"):
        artifact.Artifact.load(made.path.parent)


def test_weights_too_large_for_a_tflite_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_flatbuffer, "MOST", 1000)

    with pytest.raises(UnsupportedError, match="format 'tflite' holds 2 GB in one file, but the model's weights take"):
        converters.convert(tiny.captured(tiny.model()), "tflite", tmp_path, model="tiny")


class Choosing(nn.Module):
    """x (B, 4) -> one of two layers, by a value."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        chosen: Tensor = torch.cond(x.sum() > 0, self.a, self.b, (x,))
        return chosen


class Cutting(nn.Module):
    """x (B, T, 4), n () -> the first n steps."""

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        steps: Any = n.item()
        return x[:, :steps] * 2


@pytest.mark.parametrize("format", ["tflite", "coreml"])
@pytest.mark.parametrize(
    ("model", "examples", "message"),
    [
        (Choosing(), {"x": torch.ones(2, 4)}, r"cond in the model itself \(instead: torch\.where"),
        (
            Cutting(),
            {"x": torch.ones(2, 5, 4), "n": torch.tensor(3)},
            "the size of its result depends on values; instead",
        ),
    ],
)
def test_what_depends_on_values_is_refused_with_what_would_work(
    format: str, model: nn.Module, examples: dict[str, Tensor], message: str, tmp_path: Path
) -> None:
    captured = capture(model.eval(), examples)

    with pytest.raises(UnsupportedError, match=message):
        converters.convert(captured, format, tmp_path, model="m")


class Special(nn.Module):
    """What torch takes apart by itself, and one operator that it does not."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cdist(x, x).double(), torch.special.bessel_j0(x)


def test_onnx_names_only_what_it_really_lacks(tmp_path: Path) -> None:
    captured = capture(Special(), {"x": torch.ones(2, 3)})

    with pytest.raises(
        UnsupportedError, match=r"lacks 1 operator\(s\) of the model: aten\.special_bessel_j0\.default in"
    ):
        converters.convert(captured, "onnx", tmp_path, model="m")
