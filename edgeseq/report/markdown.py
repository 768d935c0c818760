"""The report as Markdown tables: for a README, a pull request or a job's summary."""

from collections.abc import Iterable, Sequence

from edgeseq.report.contents import ArtifactRow, Report
from edgeseq.report.headline import speedup
from edgeseq.report.matrix import LEGEND, Matrix, footnote, matrices
from edgeseq.report.quantities import DASH, error, milliseconds, percent, points, size, times

ARTIFACTS = (
    "student",
    "format",
    "scheme",
    "size",
    "accuracy",
    "max abs error",
    "p50",
    "p90",
    "speed-up",
    "memory",
    "verdict",
)
STUDENTS = ("student", "parameters", "accuracy", "kept of the teacher's", "control", "distillation bought")


def render(report: Report) -> str:
    """The teacher and the students, then every artifact, then the parity matrix."""
    parts = [_artifacts(report)]
    if report.teacher is not None:
        parts.insert(0, _students(report))
    parts += [_matrix(matrix) for matrix in matrices(report)]
    return "\n\n".join(parts) + "\n"


def _students(report: Report) -> str:
    teacher = report.teacher
    assert teacher is not None
    rows = [(f"{teacher.name} (teacher)", f"{teacher.parameters:,}", percent(teacher.accuracy), "", "", "")]
    for name, student in report.students.items():
        control = student.control_accuracy
        gain = None if control is None else student.accuracy - control
        kept = percent(student.accuracy / teacher.accuracy, 1)
        rows.append(
            (
                name,
                f"{student.parameters:,}",
                percent(student.accuracy),
                kept,
                percent(control),
                f"{points(gain)} points",
            )
        )
    return _table(STUDENTS, rows)


def _artifacts(report: Report) -> str:
    rows = [_artifact(row, report) for row in report.artifacts]
    teacher = report.teacher
    if teacher is not None:
        first = (teacher.name, "PyTorch", "fp32", size(teacher.size_bytes), percent(teacher.accuracy), "")
        p50 = milliseconds(teacher.latency_ms_p50_1thread)
        rows.insert(0, (*first, p50, "", times(1.0), size(teacher.peak_rss_bytes), "teacher"))
    return _table(ARTIFACTS, rows)


def _matrix(matrix: Matrix) -> str:
    header = ("format", "scheme", *(column.replace("\n", " ") for column in matrix.columns))
    rows = [(line.format, line.scheme, *(cell.text if cell else "" for cell in line.cells)) for line in matrix.lines]
    note = footnote(matrix).replace("*", "\\*", 1)
    table = _table(header, [[cell.replace("*", "\\*") for cell in row] for row in rows])
    return "\n\n".join(part for part in (f"Parity of {matrix.title}: {LEGEND}", table, note) if part)


def _artifact(row: ArtifactRow, report: Report) -> tuple[str, ...]:
    ratio = speedup(report.teacher, row)
    return (
        row.student,
        row.format,
        row.scheme,
        size(row.size_bytes),
        percent(row.accuracy),
        error(row.max_abs_error),
        milliseconds(row.latency_ms_p50_1thread),
        milliseconds(row.latency_ms_p90_1thread),
        DASH if ratio is None else times(ratio),
        size(row.peak_rss_bytes),
        "passed" if row.passed else "; ".join(row.failures),
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
