"""The report: its numbers, its safety, and that it works with whatever a run could not measure."""

import hashlib
import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from edgeseq.report import html, names, quantities, table
from edgeseq.report.contents import ArtifactRow, Report, StudentRow, TeacherRow
from edgeseq.report.headline import best_artifact, headline
from edgeseq.report.svg import Scale

SVG = re.compile(r"<svg .*?</svg>", re.DOTALL)
HOSTILE = """<script>alert("&'1")</script>\x1b[31m\x00"""
VOID = {"meta", "br"}


def artifact(student: str, format: str, scheme: str, *, latency_ms: float | None, size_bytes: int) -> ArtifactRow:
    """An artifact that passed; untimed where the latency is None."""
    return ArtifactRow(
        student=student,
        format=format,
        scheme=scheme,
        path=f"artifacts/{student}/{format}/{scheme}/model",
        sha256=hashlib.sha256(f"{student}{format}{scheme}".encode()).hexdigest(),
        size_bytes=size_bytes,
        accuracy=0.84,
        agreement=0.995,
        max_abs_error=1.9e-6,
        sqnr_db=121.3,
        passed=True,
        failures=(),
        verified_by=f"{format} engine 1.0" if latency_ms else "evaluated, not run on Apple hardware",
        note="",
        engine=f"{format} engine 1.0" if latency_ms else None,
        load_ms=20.0 if latency_ms else None,
        first_inference_ms=2.0 if latency_ms else None,
        latency_ms_p50_1thread=latency_ms,
        latency_ms_p90_1thread=latency_ms and 1.1 * latency_ms,
        latency_ms_p99_1thread=latency_ms and 1.2 * latency_ms,
        latency_ms_p50_all_threads=latency_ms,
        peak_rss_bytes=9_000_000 if latency_ms else None,
        samples_ms=(0.9 * latency_ms, latency_ms, 1.3 * latency_ms) if latency_ms else (),
    )


@pytest.fixture
def full() -> Report:
    """The report that the variants start from."""
    return build()


def build() -> Report:
    """A teacher, two students, three formats; Core ML is not timed."""
    latencies = {"onnx": {"fp32": 0.8, "dynamic_wi8_afp32": 0.4}, "tflite": {"fp32": 1.0, "dynamic_wi8_afp32": 0.25}}
    sizes = {"fp32": 8_000_000, "dynamic_wi8_afp32": 2_000_000}
    return Report(
        title="sentiment",
        teacher=TeacherRow(
            name="MiniLM-L6",
            accuracy=0.875,
            shift_accuracy={"tweets": 0.76},
            parameters=22_700_000,
            size_bytes=90_000_000,
            latency_ms_p50_1thread=12.0,
            samples_ms=(11.5, 12.0, 13.0),
            peak_rss_bytes=150_000_000,
            device="cpu (test)",
            memory_kind="resident memory",
        ),
        students={
            name: StudentRow(
                accuracy=0.845,
                control_accuracy=0.77,
                shift_accuracy={"tweets": 0.73},
                parameters=2_000_000,
                distillation=("soft targets",),
            )
            for name in ("bilstm", "transformer")
        },
        artifacts=tuple(
            artifact(student, format, scheme, latency_ms=latencies.get(format, {}).get(scheme), size_bytes=size)
            for student in ("bilstm", "transformer")
            for format in ("onnx", "tflite", "coreml")
            for scheme, size in sizes.items()
        ),
        input="32 tokens",
        test_set="872 sentences",
        environment={"device": "test machine", "torch": "2.13.0"},
        sources=("SST-2 (CC0)",),
    )


def unchanged(report: Report) -> Report:
    """As it is."""
    return report


def converted(report: Report) -> Report:
    """What `convert` would report."""
    rows = tuple(replace(row, accuracy=None, agreement=None) for row in report.artifacts)
    return replace(report, teacher=None, students={}, artifacts=rows, test_set="")


def without_timing(report: Report) -> Report:
    """Nothing was timed."""
    rows = (artifact(r.student, r.format, r.scheme, latency_ms=None, size_bytes=r.size_bytes) for r in report.artifacts)
    return replace(report, artifacts=tuple(rows))


def without_artifacts(report: Report) -> Report:
    """Nothing was converted."""
    return replace(report, artifacts=())


def with_gpu_teacher(report: Report) -> Report:
    """The teacher ran elsewhere."""
    assert report.teacher is not None
    return replace(report, teacher=replace(report.teacher, device="NVIDIA H100", memory_kind="GPU memory"))


def with_failures(report: Report) -> Report:
    """Each artifact has numbers that are not finite and two reasons."""
    rows = (
        replace(
            row,
            passed=False,
            failures=("SQNR 3 dB < 15 dB", "accuracy fell"),
            max_abs_error=math.nan,
            sqnr_db=-math.inf,
        )
        for row in report.artifacts
    )
    return replace(report, artifacts=tuple(rows))


def with_hostile_names(report: Report) -> Report:
    """Every text is an attack."""
    assert report.teacher is not None
    rows = tuple(
        replace(
            row,
            student=HOSTILE,
            format=HOSTILE,
            scheme=HOSTILE,
            path=HOSTILE,
            verified_by=HOSTILE,
            note=HOSTILE,
            engine=HOSTILE,
            passed=False,
            failures=(HOSTILE,),
        )
        for row in report.artifacts
    )
    student = replace(report.students["bilstm"], shift_accuracy={HOSTILE: 0.7}, distillation=(HOSTILE,))
    return Report(
        title=HOSTILE,
        teacher=replace(report.teacher, name=HOSTILE, device=HOSTILE, memory_kind=HOSTILE),
        students={HOSTILE: student},
        artifacts=rows,
        input=HOSTILE,
        test_set=HOSTILE,
        environment={HOSTILE: HOSTILE},
        sources=(HOSTILE,),
    )


@cache
def page_of(vary: Callable[[Report], Report]) -> str:
    """The page of a variant, drawn once for all tests that look at it."""
    return html.render(vary(build()))


VARIANTS = (
    unchanged,
    converted,
    without_timing,
    without_artifacts,
    with_gpu_teacher,
    with_failures,
    with_hostile_names,
    lambda report: without_artifacts(converted(report)),
    lambda report: without_timing(converted(report)),
)
variants = pytest.mark.parametrize("vary", VARIANTS)


class Balance(HTMLParser):
    """Fails on a tag that closes what is not open; collects table headers without a scope and all tags."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.unscoped = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.unscoped += tag == "th" and "scope" not in dict(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@variants
def test_page_is_balanced_and_its_tables_name_their_headers(vary: Callable[[Report], Report]) -> None:
    parser = Balance()

    parser.feed(page_of(vary))

    assert parser.open == []
    assert parser.unscoped == 0
    assert "script" not in parser.tags


@variants
def test_every_picture_is_well_formed_and_described(vary: Callable[[Report], Report]) -> None:
    for picture in SVG.findall(page_of(vary)):
        root = ElementTree.fromstring(picture)
        assert root.get("aria-label") or root.get("aria-hidden")
        assert "nan" not in picture.split(">", 1)[1].lower().replace("not a number", "")


@variants
def test_page_refers_to_nothing_outside(vary: Callable[[Report], Report]) -> None:
    page = page_of(vary)

    assert not re.search(r"""\b(src|href|srcset|action)\s*=|url\(|@import|https?://|<(script|link|iframe)""", page)


def test_hostile_names_are_shown_as_text(full: Report) -> None:
    page = page_of(with_hostile_names)

    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in table.render(with_hostile_names(full), width=140, color=False)


def test_every_artifact_appears_with_its_hash(full: Report) -> None:
    page = page_of(unchanged)

    for row in full.artifacts:
        assert f'title="{row.sha256}"' in page
        assert row.path in page


def test_headline_numbers_are_those_of_the_fastest_integer_artifact(full: Report) -> None:
    said = headline(full)

    # 12 ms / 0.25 ms, 90 MB / 2 MB, 84 % / 87.5 %
    assert said.sentence.replace("\u00a0", " ") == (
        "bilstm as tflite, int8 dynamic, is 48× faster than MiniLM-L6, 45× smaller, "
        "and keeps 96.0 % of its accuracy (84.0 % against 87.5 %)."
    )
    assert [figure.value for figure in said.figures] == ["48×", "45×", "−3.5", "12 of 12"]
    assert said.figures[-1].detail == "8 timed, 4 verified but not run on Apple hardware"
    assert "test machine" in said.basis
    assert said.sentence in unescape(page_of(unchanged))


def test_headline_says_slower_where_it_is(full: Report) -> None:
    assert full.teacher is not None
    fast = replace(full, teacher=replace(full.teacher, latency_ms_p50_1thread=0.125))

    assert "2.0× slower than MiniLM-L6" in headline(fast).sentence


def test_headline_names_the_gpu_that_the_teacher_ran_on(full: Report) -> None:
    said = headline(with_gpu_teacher(full))

    assert "48× faster on one CPU thread than MiniLM-L6 is on NVIDIA H100" in said.sentence
    assert "compares machines" in said.basis


def test_failed_artifacts_are_no_headline_and_give_their_reasons(full: Report) -> None:
    failed = with_failures(full)

    assert best_artifact(failed) is None
    assert headline(failed).figures[-1].is_bad
    assert "SQNR 3 dB &lt; 15 dB; accuracy fell" in page_of(with_failures)
    assert "FAILED bilstm onnx fp32: SQNR 3 dB < 15 dB" in table.render(failed, width=140, color=False)


def test_convert_reports_parity_and_latency_only() -> None:
    page = page_of(converted)

    assert "All 12 artifacts agree with PyTorch within tolerance. The fastest, bilstm as tflite" in page
    assert "Every inference" in page
    assert "Accuracy against latency" not in page
    assert "distillation bought" not in page


def test_untimed_artifacts_say_why(full: Report) -> None:
    reason = "evaluated, not run on Apple hardware"

    assert reason in page_of(unchanged)
    assert f"– coreml: {reason}" in table.render(full, width=140, color=False)


@variants
@pytest.mark.parametrize("width", [40, 80, 100, 140])
def test_table_fits(vary: Callable[[Report], Report], width: int, full: Report) -> None:
    lines = table.render(vary(full), width=width, color=False).splitlines()

    assert max(map(cell_len, lines)) <= width


def test_table_drops_columns_rather_than_shorten_numbers(full: Report) -> None:
    narrow = table.render(full, width=80, color=False)

    assert "…" not in narrow
    assert "left out at this width" in narrow
    assert narrow.count("passed") == len(full.artifacts)
    assert "left out" not in table.render(full, width=140, color=False)


def test_table_is_plain_without_colour(full: Report) -> None:
    assert "\x1b" not in table.render(full, width=120, color=False)
    assert "\x1b[" in table.render(full, width=120, color=True)


def test_table_names_no_teacher_where_there_is_none(full: Report) -> None:
    text = table.render(converted(full), width=140, color=False)

    assert "teacher" not in text
    assert "speed-up" not in text
    assert "accuracy" not in text


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("fp16", "fp16"),
        ("dynamic_wi8_afp32", "int8 dynamic"),
        ("weight_only_wi4b32_afp32", "int4 weights only b32"),
        ("static_wi8_ai16", "int8/16 static"),
        ("of my own", "of my own"),
    ],
)
def test_schemes_have_short_names(name: str, short: str) -> None:
    assert names.short_scheme(name) == short
    assert names.explained_scheme(name).endswith(".")


@given(st.floats(min_value=1e-9, max_value=1e12))
def test_three_digits_are_within_half_a_unit_of_the_third(value: float) -> None:
    text = quantities.significant(value)

    assert "e" not in text
    assert float(text) == pytest.approx(value, rel=0.0051)


def test_quantities_read_well() -> None:
    assert quantities.size(2_203_456).replace("\u00a0", " ") == "2.20 MB"
    assert quantities.milliseconds(9.996).replace("\u00a0", " ") == "10.0 ms"
    assert quantities.points(-0.0173) == "−1.7"
    assert quantities.points(-0.00001) == "0.0"
    assert quantities.error(1.9e-6) == "1.9e-6"
    assert quantities.decibels(float("inf")) == "∞"


@settings(max_examples=50)
@given(st.floats(min_value=1e-4, max_value=1e4), st.floats(min_value=1.01, max_value=1e6), st.integers(3, 9))
def test_ticks_are_few_and_inside(low: float, ratio: float, most: int) -> None:
    for is_log in (True, False):
        scale = Scale(low=low, high=low * ratio, start=0, end=100, is_log=is_log)

        ticks = scale.ticks(most)

        assert 1 <= len(ticks) <= most + 1
        assert all(-0.01 <= scale(tick) <= 100.01 for tick in ticks)


def test_report_imports_no_engine() -> None:
    folder = Path(html.__file__).parent

    assert not [
        path
        for path in folder.glob("*.py")
        if re.search(r"^(import|from) (torch|tensorflow|onnx)", path.read_text(), re.M)
    ]
