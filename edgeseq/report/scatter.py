"""Accuracy against latency: up is better, left is faster, and a marker's area is the size on disk."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from edgeseq.report import look, names
from edgeseq.report.contents import Report
from edgeseq.report.headline import best_artifact
from edgeseq.report.look import Look
from edgeseq.report.quantities import milliseconds, percent, significant, size
from edgeseq.report.svg import FONT_PX, Drawing, Scale, text_width

_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 16, 30, 44  # around the plot, in pixels
_LARGEST_PX, _SMALLEST_PX = 34.0, 3.5
_GAP = 4  # between a marker and its label


@dataclass(frozen=True, kw_only=True)
class Point:
    """One marker and what is written beside it."""

    latency_ms: float
    accuracy: float
    size_bytes: int
    shape: int
    kind: str
    label: str
    tooltip: str
    is_named_first: bool = False


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle that is taken."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        """Whether two rectangles share an area."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def is_within(self, other: "Box") -> bool:
        """Whether this rectangle lies inside the other."""
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )


def scatter(report: Report, width: float, height: float) -> str:
    """The picture; empty where no artifact has both numbers."""
    points = _points(report)
    if all(point.shape == look.TEACHER for point in points):
        return ""
    drawing = Drawing(width, _description(points))
    x = _latency_axis(points, width)
    y = _accuracy_axis(points, height)
    _draw_axes(drawing, x, y, height)
    radius = _radii(points)
    for point in sorted(points, key=lambda p: -p.size_bytes):
        drawing.marker(
            x(point.latency_ms),
            y(point.accuracy),
            radius[point.size_bytes],
            point.shape,
            point.kind,
            tooltip=point.tooltip,
        )
    _draw_labels(drawing, points, x, y, radius, Box(left=_LEFT, top=_TOP, right=width, bottom=height - _BOTTOM))
    return drawing.finish(height)


def _points(report: Report) -> list[Point]:
    looks, best = Look.of(report), best_artifact(report)
    found = []
    if (teacher := report.teacher) is not None:
        numbers = _numbers(teacher.accuracy, teacher.latency_ms_p50_1thread, teacher.size_bytes)
        found.append(
            Point(
                latency_ms=teacher.latency_ms_p50_1thread,
                accuracy=teacher.accuracy,
                size_bytes=teacher.size_bytes,
                shape=look.TEACHER,
                kind="ink light",
                label=f"{teacher.name} (teacher)",
                tooltip=f"teacher {teacher.name}, {teacher.device}: {numbers}",
                is_named_first=True,
            )
        )
    for row in report.artifacts:
        if row.accuracy is None or not row.latency_ms_p50_1thread:
            continue
        found.append(
            Point(
                latency_ms=row.latency_ms_p50_1thread,
                accuracy=row.accuracy,
                size_bytes=row.size_bytes,
                shape=looks.shape(row.student),
                kind=looks.kind(row),
                label=f"{row.student}, {names.artifact(row)}" if row is best else names.short_scheme(row.scheme),
                tooltip=f"{row.student} · {row.format} · {row.scheme}: "
                + _numbers(row.accuracy, row.latency_ms_p50_1thread, row.size_bytes),
                is_named_first=row is best,
            )
        )
    return found


def _numbers(accuracy: float, latency_ms: float, size_bytes: int) -> str:
    return f"{percent(accuracy)}, {milliseconds(latency_ms)}, {size(size_bytes)}"


def _description(points: list[Point]) -> str:
    return "Accuracy against median latency. " + "; ".join(point.tooltip for point in points)


def _latency_axis(points: list[Point], width: float) -> Scale:
    values = [point.latency_ms for point in points]
    return Scale(low=min(values) / 1.35, high=max(values) * 1.6, start=_LEFT, end=width - _RIGHT, is_log=True)


def _accuracy_axis(points: list[Point], height: float) -> Scale:
    values = [point.accuracy for point in points]
    margin = max(0.22 * (max(values) - min(values)), 0.002)
    return Scale(low=min(values) - margin, high=max(values) + margin, start=height - _BOTTOM, end=_TOP)


def _radii(points: list[Point]) -> dict[int, float]:
    """Radius by size on disk, in proportion to its root; the smallest stay large enough to see."""
    largest = max(point.size_bytes for point in points)
    return {
        point.size_bytes: max(_LARGEST_PX * math.sqrt(point.size_bytes / max(largest, 1)), _SMALLEST_PX)
        for point in points
    }


def _draw_axes(drawing: Drawing, x: Scale, y: Scale, height: float) -> None:
    bottom = height - _BOTTOM
    for tick in y.ticks(6):
        drawing.line(x.start, y(tick), x.end, y(tick))
        drawing.text(x.start - 8, y(tick) + 4, f"{significant(100 * tick)}", kind="tick", anchor="end")
    for tick in x.ticks(8):
        drawing.line(x(tick), y.end, x(tick), bottom)
        drawing.text(x(tick), bottom + 18, f"{tick:g}", kind="tick", anchor="middle")
    drawing.line(x.start, bottom, x.end, bottom, "axis")
    drawing.text(0, 14, "↑ accuracy, %", kind="name")
    drawing.text(x.end, bottom + 38, "median latency, ms (log scale)", kind="name", anchor="end")
    drawing.text(x.start, bottom + 38, "← faster", kind="name")


def _draw_labels(
    drawing: Drawing, points: list[Point], x: Scale, y: Scale, radius: dict[int, float], area: Box
) -> None:
    """Write each label where it covers nothing; one that fits nowhere is left to its tooltip."""
    taken = [_around(x(p.latency_ms), y(p.accuracy), radius[p.size_bytes]) for p in points]
    for point in sorted(points, key=lambda p: not p.is_named_first):
        reach = radius[point.size_bytes]
        places = list(_places(x(point.latency_ms), y(point.accuracy), reach, text_width(point.label), _GAP))
        if point.is_named_first:  # in bold, so that it can stand a line away and still be told from the others
            places += _places(x(point.latency_ms), y(point.accuracy), reach, text_width(point.label), _GAP + FONT_PX)
        free = (box for box in places if box.is_within(area) and not any(box.meets(other) for other in taken))
        box = next(free, None)
        if box is not None:
            taken.append(box)
            kind = "strong" if point.is_named_first else "small"
            drawing.text((box.left + box.right) / 2, box.bottom - 3, point.label, kind=kind, anchor="middle")


def _around(x: float, y: float, reach: float) -> Box:
    return Box(left=x - reach, top=y - reach, right=x + reach, bottom=y + reach)


def _places(x: float, y: float, reach: float, width: float, gap: float) -> Iterator[Box]:
    """Right, left, above, below, and the corners."""
    tall = FONT_PX + 2
    away = 1.1 * reach + gap  # corners reach further than the circle of the same area
    for left, top in (
        (x + away, y - tall / 2),
        (x - away - width, y - tall / 2),
        (x - width / 2, y - away - tall),
        (x - width / 2, y + away),
        (x - reach, y - away - tall),
        (x - reach, y + away),
        (x + reach - width, y - away - tall),
        (x + reach - width, y + away),
    ):
        yield Box(left=left, top=top, right=left + width, bottom=top + tall)
