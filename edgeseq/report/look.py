"""Which colour and shape each thing has: colour tells the format, shape the student, and filling the scheme."""

from dataclasses import dataclass

from edgeseq.report import names
from edgeseq.report.contents import ArtifactRow, Report
from edgeseq.report.svg import Drawing

_COLOURS = 6  # as many as `page.css` defines
TEACHER = 4  # the shape of the teacher, in the colour of text


@dataclass(frozen=True, kw_only=True)
class Look:
    """The order of first appearance decides; the same in every picture of a report."""

    formats: tuple[str, ...]
    students: tuple[str, ...]

    @classmethod
    def of(cls, report: Report) -> "Look":
        """The look of everything in a report."""
        students = dict.fromkeys([*report.students, *(row.student for row in report.artifacts)])
        return cls(formats=tuple(dict.fromkeys(row.format for row in report.artifacts)), students=tuple(students))

    def colour(self, format: str) -> str:
        """The class of a format's colour."""
        return f"c{self.formats.index(format) % _COLOURS}"

    def shape(self, student: str) -> int:
        """The shape's number."""
        return self.students.index(student)

    def kind(self, row: ArtifactRow) -> str:
        """The classes of an artifact's marker or bar."""
        filling = "solid" if names.is_integer(row.scheme) else "light"
        return f"{self.colour(row.format)} {filling}" + ("" if row.passed else " failed")

    def legend(self, report: Report) -> list[tuple[str, str]]:
        """Swatches with what they stand for."""
        entries = [(_swatch(TEACHER, "ink light"), "teacher")] if report.teacher else []
        entries += [(_swatch(0, f"{self.colour(name)} solid"), name) for name in self.formats]
        if len(self.students) > 1:
            entries += [(_swatch(self.shape(name), "outline"), name) for name in self.students]
        if self.formats:
            entries += [(_swatch(0, "ink solid"), "integer weights"), (_swatch(0, "ink light"), "float weights")]
        if any(not row.passed for row in report.artifacts):
            entries.append((_swatch(0, "ink failed"), "failed its checks"))
        return entries


def _swatch(shape: int, kind: str) -> str:
    drawing = Drawing(16)
    drawing.marker(8, 8, 5.5, shape, kind)
    return drawing.finish(16, "swatch")
