"""Ways to call a model: what cannot be captured is said first, and every output has a name of its own."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeseq import converters
from edgeseq.call_checks import output_names
from edgeseq.capture import Call, capture, capture_calls
from edgeseq.devices import runtimes
from edgeseq.errors import RequestError
from edgeseq.signature import Dim

BATCH, TIME = Dim(name="batch", min=1, max=8), Dim(name="time", min=1, max=64)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Implicitly cleaning up:ResourceWarning")


class Stateful(nn.Module):
    """x and h (B, 4) -> the new state h under the name of the old one, and its tanh y."""

    def forward(self, x: Tensor, h: Tensor) -> dict[str, Tensor]:
        new = x * 2 + h
        return {"y": new.tanh(), "h": new}


@pytest.mark.parametrize("format", converters.names())
def test_a_state_may_be_returned_by_the_name_that_it_is_taken_by(format: str, tmp_path: Path) -> None:
    examples = {"x": torch.randn(2, 4), "h": torch.randn(2, 4)}
    captured = capture(Stateful(), examples, {"x": {0: BATCH}, "h": {0: BATCH}})
    x, h = np.random.default_rng(0).standard_normal((2, 3, 4), dtype=np.float32)

    made = converters.convert(captured, format, tmp_path, model="m")

    outputs = runtimes.for_format(format).load(made.path, made.signatures, threads=1).run({"x": x, "h": h})
    assert list(outputs) == ["y", "new_h"]
    np.testing.assert_allclose(outputs["new_h"], x * 2 + h, atol=1e-6)
    np.testing.assert_allclose(outputs["y"], np.tanh(x * 2 + h), atol=1e-6)


@pytest.mark.parametrize(
    ("given", "found", "inputs", "names"),
    [
        ((), ("logits", "h"), ("x", "h"), ("logits", "new_h")),
        ((), ("h", "new_h"), ("h",), ("output_0", "new_h")),
        (("a",), ("logits", "output_1"), ("output_1", "new_output_1"), ("a", "output_2")),
        (("output_1",), ("logits", "output_1"), (), ("output_1", "new_output_1")),
        ((), ("logits",), ("x",), ("logits",)),
    ],
)
def test_outputs_are_named_apart_from_inputs_and_each_other(
    given: tuple[str, ...], found: tuple[str, ...], inputs: tuple[str, ...], names: tuple[str, ...]
) -> None:
    assert output_names(given, found, inputs) == names


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("a", "b", "c"), r"3 output names are given \(a, b, c\), but the model returns 2 tensors"),
        (("a", "a"), "output name 'a' is given 2 times"),
        (("a", "h"), "output name 'h' is an input's; give it another, such as 'new_h'"),
    ],
)
def test_impossible_names_of_outputs_are_refused(given: tuple[str, ...], message: str) -> None:
    examples = {"x": torch.randn(2, 4), "h": torch.randn(2, 4)}

    with pytest.raises(RequestError, match=message):
        capture(Stateful(), examples, output_names=given)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"X": {0: BATCH}}, "there is no input 'X'; .*known: x"),
        ({"x": {0: Dim(name="seq len", min=1, max=8)}}, "dimension 'seq len' of axis 0 of 'x' needs a name of letters"),
        (
            {"x": {0: BATCH, 1: Dim(name="batch", min=1, max=9)}},
            "'batch' runs from 1 to 8, but at axis 1 of 'x' from 1 to 9",
        ),
        ({"x": {3: BATCH}}, r"axis 3 of 'x' is dynamic, but its example has shape \[2, 5, 1\]"),
        ({"x": {2: BATCH}}, "axis 2 of 'x' is dynamic, but its example is 1 long"),
        ({"x": {1: Dim(name="time", min=8, max=9)}}, "axis 1 of 'x' runs from 8 to 9, but its example is 5 long"),
        ({"x": {1: Dim(name="time", min=9, max=9)}}, "dimension 'time' runs from 9 to 9; it must rise"),
        ({"x": {1: "time"}}, "axis 1 of 'x' is given as 'time'; give an edgeseq.signature.Dim"),
    ],
)
def test_impossible_dynamic_shapes_are_refused(shapes: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        capture(nn.Identity(), {"x": torch.randn(2, 5, 1)}, shapes)


@pytest.mark.parametrize(
    "names", [lambda name: {"name": name}, lambda name: {"cases": {name: {"time": 1}}}], ids=["call", "case"]
)
@pytest.mark.parametrize("name", ["", "a/b", "a\\b"])
def test_signatures_have_names_that_files_can_have(name: str, names: Callable[[str], Any]) -> None:
    call = Call(examples={"x": torch.randn(2, 5)}, dynamic_shapes={"x": {1: TIME}}, **names(name))

    with pytest.raises(RequestError, match="a signature cannot be called"):
        capture_calls(nn.Identity(), [call])


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"tiem": 1}, "there is no dimension of 'forward' called 'tiem'; did you mean 'time'"),
        ({"time": 99}, "signature 'step' fixes dimension 'time' at 99, but it runs from 1 to 64"),
        ({"time": 0}, "signature 'step' fixes dimension 'time' at 0"),
    ],
)
def test_a_case_fixes_dimensions_that_there_are_within_their_bounds(sizes: Mapping[str, int], message: str) -> None:
    call = Call(examples={"x": torch.randn(2, 5)}, dynamic_shapes={"x": {1: TIME}}, cases={"step": sizes})

    with pytest.raises(RequestError, match=message):
        capture_calls(nn.Tanh(), [call])
