"""Pictures made of labelled rows: grouped by student, with one scale below all of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edgeseq.report.contents import ArtifactRow, Report
from edgeseq.report.look import Look
from edgeseq.report.svg import Drawing, Scale, shortened, text_width

ROW_PX, HEADING_PX = 22, 30
_TOP, _BOTTOM, _GAP = 4, 40, 10


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a picture: what it is, how it looks, and its numbers; a heading has none."""

    label: str
    kind: str = ""
    values: tuple[float, ...] = ()
    text: str = ""  # written at the right end
    tooltip: str = ""

    @property
    def is_heading(self) -> bool:
        """Whether the row only names those that follow."""
        return not self.values


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where everything of a picture of rows goes."""

    drawing: Drawing
    rows: tuple[Row, ...]
    left: float  # of what is drawn; labels are before it
    right: float  # of what is drawn; texts are behind it
    bottom: float
    height: float

    @classmethod
    def of(cls, rows: Sequence[Row], *, width: float, describe: str) -> "Frame":
        """Columns as wide as labels and texts need, but labels never take half."""
        labels = max(text_width(row.label) for row in rows if not row.is_heading)
        texts = max(text_width(row.text) for row in rows)
        bottom = _TOP + sum(HEADING_PX if row.is_heading else ROW_PX for row in rows) + 4
        told = "; ".join(row.tooltip for row in rows if row.tooltip)
        return cls(
            drawing=Drawing(width, f"{describe}: {told}"),
            rows=tuple(rows),
            left=min(labels + _GAP, 0.44 * width),
            right=width - (texts + _GAP if texts else 0),
            bottom=bottom,
            height=bottom + _BOTTOM,
        )

    def placed(self) -> Iterator[tuple[Row, float]]:
        """Every row that has numbers, with the middle of its line; labels are written on the way."""
        y: float = _TOP
        for row in self.rows:
            if row.is_heading:
                y += HEADING_PX
                self.drawing.text(0, y - 8, shortened(row.label, self.drawing.width), kind="strong", tooltip=row.label)
                continue
            middle, y = y + ROW_PX / 2, y + ROW_PX
            self.drawing.text(0, middle + 4, shortened(row.label, self.left - _GAP), tooltip=row.label)
            yield row, middle
            if row.text:
                self.drawing.text(self.drawing.width, middle + 4, row.text, kind="value", anchor="end")

    def draw_scale(self, scale: Scale, unit: str, *, shown: Callable[[float], str] = "{:g}".format) -> None:
        """Vertical lines at round values, written below with their unit."""
        most = max(int((scale.end - scale.start) / 42), 2)
        for tick in scale.ticks(most):
            self.drawing.line(scale(tick), _TOP, scale(tick), self.bottom)
            self.drawing.text(scale(tick), self.bottom + 15, shown(tick), kind="tick", anchor="middle")
        self.drawing.text((scale.start + scale.end) / 2, self.bottom + 33, unit, kind="name", anchor="middle")

    def finish(self) -> str:
        """The SVG as text."""
        return self.drawing.finish(self.height)


def by_student(report: Report, row_of: Callable[[ArtifactRow, str], Row | None]) -> list[Row]:
    """A heading for each student that has rows, and its rows."""
    looks, rows = Look.of(report), []
    for student in looks.students:
        artifacts = [row for row in report.artifacts if row.student == student]
        found = [row for row in (row_of(artifact, looks.kind(artifact)) for artifact in artifacts) if row]
        rows += [Row(label=student), *found] if found else []
    return rows
