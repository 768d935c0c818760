"""Latency, size and memory of every artifact, next to the teacher's; each picture can be drawn wide or for a phone."""

from collections.abc import Sequence

import numpy as np

from edgeseq.report import names
from edgeseq.report.contents import ArtifactRow, Report
from edgeseq.report.quantities import milliseconds, size
from edgeseq.report.rows import Frame, Row, by_student
from edgeseq.report.svg import Drawing, Scale

_STRIP_PX = 13  # samples are spread over this height
_GOLDEN = 0.618  # multiples of it, modulo one, spread evenly without repeating


def latencies(report: Report, width: float) -> str:
    """Every raw sample, a box from the 25th to the 75th percentile, the median, and a tick at the 90th; log scale."""
    rows = by_student(report, _samples_row)
    if not rows:
        return ""
    if (teacher := report.teacher) and teacher.samples_ms:
        rows.insert(0, _row(f"{teacher.name} (teacher)", "ink light", teacher.samples_ms))
    frame = Frame.of(rows, width=width, describe="Latency of every inference, one thread")
    samples = [value for row in rows for value in row.values if value > 0]
    x = Scale(low=min(samples) / 1.1, high=max(samples) * 1.1, start=frame.left, end=frame.right, is_log=True)
    frame.draw_scale(x, "ms (log scale)")
    for row, y in frame.placed():
        _draw_samples(frame.drawing, row, x, y)
    return frame.finish()


def sizes(report: Report, width: float) -> str:
    """Bytes on disk."""
    rows = by_student(report, lambda row, kind: _bar(names.artifact(row), kind, row.size_bytes))
    if rows and (teacher := report.teacher):
        rows.insert(0, _bar(f"{teacher.name} (teacher)", "ink light", teacher.size_bytes))
    return _bars(rows, width, "Size on disk")


def memories(report: Report, width: float) -> str:
    """Peak memory above the process's baseline, of what was measured."""
    rows = by_student(
        report,
        lambda row, kind: (
            _bar(names.artifact(row), kind, row.peak_rss_bytes) if row.peak_rss_bytes is not None else None
        ),
    )
    if rows and (teacher := report.teacher) and teacher.peak_rss_bytes is not None:
        kind = "" if teacher.memory_kind == "resident memory" else f", {teacher.memory_kind}"
        rows.insert(0, _bar(f"{teacher.name} (teacher{kind})", "ink light", teacher.peak_rss_bytes))
    return _bars(rows, width, "Peak memory")


def _samples_row(row: ArtifactRow, kind: str) -> Row | None:
    return _row(names.artifact(row), kind, row.samples_ms) if any(value > 0 for value in row.samples_ms) else None


def _row(label: str, kind: str, samples: Sequence[float]) -> Row:
    p50, p90 = np.percentile(samples, (50, 90))
    text = milliseconds(float(p50))
    told = f"{label}: median {text}, 90th percentile {milliseconds(float(p90))}, {len(samples)} samples"
    return Row(label=label, kind=kind, values=tuple(samples), text=text, tooltip=told)


def _draw_samples(drawing: Drawing, row: Row, x: Scale, y: float) -> None:
    low, p25, p50, p75, p90, high = (x(float(v)) for v in np.percentile(row.values, (0, 25, 50, 75, 90, 100)))
    offsets = ((i * _GOLDEN % 1 - 0.5) * _STRIP_PX for i in range(len(row.values)))
    dots = "".join(f"M{x(value):.1f} {y + offset:.1f}h0" for value, offset in zip(row.values, offsets, strict=True))
    drawing.add("path", {"d": dots, "class": f"dots {row.kind}"})
    drawing.add("rect", {"x": p25, "y": y - 5, "width": max(p75 - p25, 1), "height": 10, "class": "box"})
    drawing.line(p50, y - 8, p50, y + 8, "median")
    drawing.line(p90, y - 4, p90, y + 4, "box")
    # An invisible rectangle over the whole strip, so that the tooltip needs no aim.
    over: dict[str, str | float] = {"x": low, "y": y - 9, "width": max(high - low, 6), "height": 18, "class": "over"}
    drawing.add("rect", over, tooltip=row.tooltip)


def _bar(label: str, kind: str, count: int) -> Row:
    return Row(label=label, kind=kind, values=(float(count),), text=size(count), tooltip=f"{label}: {size(count)}")


def _bars(rows: list[Row], width: float, describe: str) -> str:
    if not rows:
        return ""
    frame = Frame.of(rows, width=width, describe=describe)
    unit, scale = next(
        (u, s) for u, s in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0)) if s <= max(_largest(rows), 1.0)
    )
    x = Scale(low=0, high=max(_largest(rows), 1.0), start=frame.left, end=frame.right)
    frame.draw_scale(x, unit, shown=lambda value: f"{value / scale:g}")
    for row, y in frame.placed():
        long = max(x(row.values[0]) - x.start, 1)
        place: dict[str, str | float] = {
            "x": x.start,
            "y": y - 6,
            "width": long,
            "height": 12,
            "class": f"bar {row.kind}",
        }
        frame.drawing.add("rect", place, tooltip=row.tooltip)
    return frame.finish()


def _largest(rows: list[Row]) -> float:
    return max(value for row in rows for value in row.values)
