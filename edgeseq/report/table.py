"""The report as one table for the terminal; columns that matter least give way when it is narrow."""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from edgeseq.report import matrix_table, names
from edgeseq.report.contents import ArtifactRow, Report, TeacherRow
from edgeseq.report.headline import headline, is_on_gpu, speedup, teacher_percentile, teacher_precision
from edgeseq.report.matrix import matrices
from edgeseq.report.quantities import DASH, error, percent, points, significant, times

_NARROWEST = 40


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column's title, what it says of the teacher and of an artifact, and how soon it gives way (0: never)."""

    title: str
    teacher: Callable[[TeacherRow], str]
    artifact: Callable[[ArtifactRow, Report], str]
    gives_way: int = 0
    is_number: bool = True
    needs_teacher: bool = False


SCHEME = Column(title="scheme", teacher=teacher_precision, artifact=lambda row, _: row.scheme, is_number=False)
SHORT_SCHEME = replace(SCHEME, artifact=lambda row, _: names.short_scheme(row.scheme))
ACCURACY = Column(
    title="accuracy\n%",
    teacher=lambda t: _number(percent(t.accuracy)),
    artifact=lambda row, _: _number(percent(row.accuracy)),
    gives_way=1,
)
COLUMNS = (
    Column(title="format", teacher=lambda _: "pytorch", artifact=lambda row, _: row.format, is_number=False),
    SCHEME,
    Column(title="size\nMB", teacher=lambda t: _mega(t.size_bytes), artifact=lambda row, _: _mega(row.size_bytes)),
    ACCURACY,
    Column(
        title="Δ teacher\npoints",
        teacher=lambda _: "",
        artifact=lambda row, report: points(_change(row, report), 2),
        gives_way=3,
        needs_teacher=True,
    ),
    Column(title="max abs\nerror", teacher=lambda _: "", artifact=lambda row, _: error(row.max_abs_error), gives_way=4),
    Column(
        title="p50\nms",
        teacher=lambda t: significant(t.latency_ms_p50_1thread),
        artifact=lambda row, _: _plain(row.latency_ms_p50_1thread),
    ),
    Column(
        title="p90\nms",
        teacher=lambda t: _plain(teacher_percentile(t, 90)),
        artifact=lambda row, _: _plain(row.latency_ms_p90_1thread),
        gives_way=6,
    ),
    Column(
        title="speed-up",
        teacher=lambda _: "1×",
        artifact=lambda row, report: _times(speedup(report.teacher, row)),
        gives_way=2,
        needs_teacher=True,
    ),
    Column(
        title="memory\nMB",
        teacher=lambda t: _mega(t.peak_rss_bytes),
        artifact=lambda row, _: _mega(row.peak_rss_bytes),
        gives_way=5,
    ),
    Column(
        title="verdict",
        teacher=lambda _: "teacher",
        artifact=lambda row, _: "passed" if row.passed else "FAILED",
        is_number=False,
    ),
)


def render(report: Report, *, width: int, color: bool) -> str:
    """The headline, the table and its footnotes, no line wider than `width`."""
    width = max(width, _NARROWEST)
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,
        legacy_windows=False,
        highlight=False,
    )
    columns = _that_fit(report, console)
    parts: list[Table | Text] = [Text(_printable(headline(report).sentence), style="bold")]
    if report.artifacts or report.teacher:
        parts.append(_table(report, columns))
    parts += [Text(_printable(note), style=style) for note, style in _notes(report, columns)]
    parts += matrix_table.tables(matrices(report), console)
    console.print(Group(*parts))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _sensible(report: Report) -> tuple[Column, ...]:
    has_accuracy = any(row.accuracy is not None for row in report.artifacts)
    return tuple(
        column
        for column in COLUMNS
        if (report.teacher or not column.needs_teacher) and (report.teacher or has_accuracy or column is not ACCURACY)
    )


def _that_fit(report: Report, console: Console) -> tuple[Column, ...]:
    """All columns, or as many as fit without wrapping, the scheme in fewer letters."""
    columns = _sensible(report)
    endless = console.options.update(width=10_000)  # else the answer is never more than the console's width
    while console.measure(_table(report, columns), options=endless).maximum > console.width:
        if SCHEME in columns:
            columns = tuple(SHORT_SCHEME if column is SCHEME else column for column in columns)
        elif any(column.gives_way for column in columns):
            first = max(columns, key=lambda column: column.gives_way)
            columns = tuple(column for column in columns if column is not first)
        else:
            break  # the rest is shortened by the table itself
    return columns


def _table(report: Report, columns: tuple[Column, ...]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("student", no_wrap=True, overflow="ellipsis", vertical="bottom")
    for column in columns:
        justify = "right" if column.is_number else "left"
        table.add_column(column.title, no_wrap=True, overflow="ellipsis", justify=justify)  # type: ignore[arg-type]  # of two literals
    if report.teacher:
        cells = [_cell(column.teacher(report.teacher)) for column in columns]
        table.add_row(_cell(report.teacher.name), *cells, end_section=True)
    for row, is_first, is_last in _grouped(report):
        cells = [_cell(column.artifact(row, report)) for column in columns]
        table.add_row(_cell(row.student if is_first else ""), *cells, end_section=is_last)
    return table


def _grouped(report: Report) -> list[tuple[ArtifactRow, bool, bool]]:
    """Artifacts by student, each with whether it is its student's first and last."""
    groups = {row.student: [r for r in report.artifacts if r.student == row.student] for row in report.artifacts}
    return [(row, row is group[0], row is group[-1]) for group in groups.values() for row in group]


def _notes(report: Report, columns: tuple[Column, ...]) -> list[tuple[str, str]]:
    """What a reader must know of the cells above, with a style each."""
    failed = [row for row in report.artifacts if not row.passed]
    notes = [
        (
            f"FAILED {row.student} {row.format} {row.scheme}: {'; '.join(row.failures) or 'no reason was recorded'}",
            "red",
        )
        for row in failed
    ]
    reasons = dict.fromkeys(
        (row.format, names.why_not_timed(row)) for row in report.artifacts if row.latency_ms_p50_1thread is None
    )
    notes += [(f"{DASH} {format}: {reason}", "dim") for format, reason in reasons]
    if any(row.samples_ms for row in report.artifacts):
        fed = f"; input: {report.input}" if report.input else ""
        notes.append((f"latency: one inference at a time, one thread{fed}", "dim"))
    if report.teacher and is_on_gpu(report.teacher):
        notes.append((f"teacher on {report.teacher.device}: the speed-up compares machines as well as models", "dim"))
    left_out = [
        column.title.replace("\n", " ") for column in _sensible(report) if column.gives_way and column not in columns
    ]
    if left_out and report.artifacts:
        notes.append((f"left out at this width: {', '.join(left_out)}", "dim"))
    return notes


def _cell(text: str) -> Text:
    return Text(_printable(text), style={"passed": "green", "FAILED": "bold red"}.get(text, ""))


def _printable(text: str) -> str:
    """Control characters could move the cursor or recolour the terminal."""
    return "".join(c if c.isprintable() or c == "\u00a0" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _change(row: ArtifactRow, report: Report) -> float | None:
    return row.accuracy - report.teacher.accuracy if report.teacher and row.accuracy is not None else None


def _mega(count: int | None) -> str:
    return significant(count / 1e6) if count is not None else DASH


def _plain(value: float | None) -> str:
    return significant(value) if value is not None else DASH


def _times(ratio: float | None) -> str:
    return times(ratio) if ratio is not None else DASH


def _number(text: str) -> str:
    """A percentage without its sign, which the title has."""
    return text.split("\u00a0")[0]
