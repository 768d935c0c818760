"""Verification against slow formulas, and verdicts at their bounds."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeseq.artifact import Artifact
from edgeseq.parity import sqnr_db
from edgeseq.reference import Case, Kind, Reference
from edgeseq.signature import Tensors
from edgeseq.tolerance import INTEGER_TOLERANCE, Tolerance, tolerance_for
from edgeseq.verify import ParityReport, verify

ARTIFACT = Artifact(
    path=Path("m.onnx"),
    model="m",
    format="onnx",
    scheme="fp32",
    signatures=(),
    size_bytes=1,
    sha256="ab",
    parent_sha256=None,
)
FLOATS = arrays.arrays(np.float32, (3, 2), elements=st.floats(-100, 100, width=32))


def case(name: str, kind: Kind, outputs: np.ndarray, labels: list[int] | None = None) -> Case:
    """A case whose input is its own number, so that a stand-in for an engine can look its answer up."""
    asked = {"x": np.array([int(name)])}
    given = None if labels is None else np.array(labels)
    return Case(name=name, kind=kind, inputs=asked, outputs={"logits": outputs}, labels=given)


def report(cases: list[Case], answers: list[np.ndarray], *, scheme: str = "fp32") -> ParityReport:
    def run(inputs: Tensors, signature: str) -> dict[str, np.ndarray]:
        assert signature == "forward"
        return {"logits": answers[int(inputs["x"][0])]}

    artifact = replace(ARTIFACT, scheme=scheme)
    return verify(artifact, Reference(model="m", cases=tuple(cases)), run, verified_by="a table")


@given(expected=st.lists(FLOATS, min_size=1, max_size=3), data=st.data())
def test_errors_are_those_of_the_slow_formulas_over_all_cases(expected: list[np.ndarray], data: st.DataObject) -> None:
    actual = [data.draw(FLOATS) for _ in expected]
    found = report([case(str(i), "parity", e) for i, e in enumerate(expected)], actual)

    pairs = [
        (float(e), float(a))
        for es, xs in zip(expected, actual, strict=True)
        for e, a in zip(es.flat, xs.flat, strict=True)
    ]
    noise, signal = sum((a - e) ** 2 for e, a in pairs), sum(e**2 for e, _ in pairs)
    assert found.max_abs_error == max(abs(a - e) for e, a in pairs)
    if noise == 0:
        assert found.sqnr_db == math.inf
    elif signal == 0:
        assert found.sqnr_db == -math.inf
    else:
        assert found.sqnr_db == pytest.approx(10 * math.log10(signal / noise), abs=1e-6)
    assert found.max_abs_error == max(c.max_abs_error or 0.0 for c in found.cases)


def test_sqnr_of_a_tenth_of_the_signal_is_twenty_decibels() -> None:
    signal = np.array([3.0, -4.0])

    assert sqnr_db(signal, signal / 10) == pytest.approx(20.0)


@given(data=st.data(), batches=st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_accuracy_and_agreement_count_every_sentence_once(data: st.DataObject, batches: list[int]) -> None:
    def logits(batch: int) -> np.ndarray:
        return data.draw(arrays.arrays(np.float32, (batch, 3), elements=st.floats(-9, 9, width=32), unique=True))

    expected, actual = [logits(b) for b in batches], [logits(b) for b in batches]
    labels = [data.draw(st.lists(st.integers(0, 2), min_size=b, max_size=b)) for b in batches]
    cases = [case(str(i), "task", expected[i], labels[i]) for i in range(len(batches))]

    found = report(cases, actual)

    rows = [
        (max(range(3), key=lambda k: a[k]), max(range(3), key=lambda k: e[k]), label)
        for es, xs, ls in zip(expected, actual, labels, strict=True)
        for e, a, label in zip(es, xs, ls, strict=True)
    ]
    assert found.accuracy == sum(a == label for a, _, label in rows) / len(rows)
    assert found.reference_accuracy == sum(e == label for _, e, label in rows) / len(rows)
    assert found.agreement == sum(a == e for a, e, _ in rows) / len(rows)


def test_model_without_a_test_set_has_no_accuracy_and_is_judged_by_its_errors() -> None:
    ones = np.ones((2, 3), np.float32)

    found = report([case("0", "parity", ones)], [ones])

    assert (found.accuracy, found.reference_accuracy, found.agreement) == (None, None, None)
    assert found.passed


def test_what_is_fed_while_measuring_is_not_verified() -> None:
    ones = np.ones((1, 3), np.float32)

    found = report([case("0", "parity", ones), case("1", "bench", ones)], [ones, ones + 1])

    assert [c.name for c in found.cases] == ["0"]
    assert found.max_abs_error == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_value_that_is_no_number_fails(value: float) -> None:
    expected = np.ones((2, 3), np.float32)
    actual = expected.copy()
    actual[1, 1] = value

    with np.errstate(invalid="ignore"):
        found = report([case("0", "parity", expected)], [actual])

    assert not found.passed
    assert "max abs error" in found.failures[0]


@pytest.mark.parametrize("scheme", ["fp32", "dynamic_wi8_afp32"])
def test_outputs_of_another_shape_fail_even_where_they_could_be_broadcast(scheme: str) -> None:
    expected = np.ones((2, 3), np.float32)

    found = report([case("0", "parity", expected)], [np.ones((1, 3), np.float32)], scheme=scheme)

    assert not found.passed


@pytest.mark.parametrize(("offset", "passes"), [(0.0, True), (0.9e-4, True), (1.1e-4, False), (-1.1e-4, False)])
def test_float32_may_differ_by_its_tolerance_and_no_more(offset: float, passes: bool) -> None:
    expected = np.zeros((1, 3))

    assert report([case("0", "parity", expected)], [expected + offset]).passed is passes


def test_one_sentence_lost_fails_under_float32() -> None:
    right, wrong = np.array([[1.0, 0.0]], np.float32), np.array([[0.0, 1.0]], np.float32)
    cases = [case("0", "task", right, [0]), case("1", "task", right, [0])]

    found = report(cases, [right, wrong])

    assert found.failures == ("accuracy 0.5000 is 0.5000 under 1.0000",)


def test_sentence_won_does_not_fail() -> None:
    right, wrong = np.array([[1.0, 0.0]], np.float32), np.array([[0.0, 1.0]], np.float32)

    assert report([case("0", "task", wrong, [0])], [right]).passed


@pytest.mark.parametrize(("noise", "passes"), [(0.17, True), (0.19, False)])
def test_integer_schemes_need_fifteen_decibels(noise: float, passes: bool) -> None:
    signal = np.ones((10, 10))

    found = report([case("0", "parity", signal)], [signal + noise], scheme="dynamic_wi8_afp32")

    assert found.tolerance == INTEGER_TOLERANCE
    assert found.passed is passes  # 15 dB is noise of 10^(-15/20) = 0.178 of the signal


@pytest.mark.parametrize("scheme", ["weight_only_wi4b32_afp32", "static_wi8_ai8", "dynamic_wi8_afp32"])
def test_every_integer_scheme_has_a_tolerance(scheme: str) -> None:
    assert tolerance_for(scheme) == INTEGER_TOLERANCE


def test_limit_of_none_is_reported_and_not_judged() -> None:
    far = replace(report([case("0", "parity", np.zeros((1, 1)))], [np.ones((1, 1))]), tolerance=Tolerance())

    assert far.passed
    assert far.max_abs_error == 1


@pytest.mark.parametrize("actual", [1.0, 1.5, math.nan, math.inf])
def test_report_survives_a_round_trip(actual: float, tmp_path: Path) -> None:
    outputs = np.ones((1, 2), np.float32)
    with np.errstate(invalid="ignore"):
        written = report(
            [case("0", "parity", outputs), case("1", "task", outputs, [1])], [outputs * np.float32(actual)] * 2
        )

    written.save(tmp_path / "fp32.json")
    text = (tmp_path / "fp32.json").read_text()

    assert repr(ParityReport.load(tmp_path / "fp32.json")) == repr(written)  # repr, since NaN differs from itself
    plain = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert plain["passed"] is written.passed
