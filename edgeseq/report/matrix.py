"""The parity matrix: a table for each signature of each model, artifacts down, cases across."""

from collections.abc import Iterable
from dataclasses import dataclass

from edgeseq.parity import ParityCase
from edgeseq.report.contents import ArtifactRow, Report
from edgeseq.report.quantities import decibels, error, percent

ROW_BY_ROW = "*"
FAILED = "✗"
LEGEND = "largest absolute error against PyTorch; %: highest logits, or greedy tokens, that are the same, where not all of them"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One case of one artifact."""

    text: str
    failure: str  # empty: it passed
    tooltip: str
    is_row_by_row: bool


@dataclass(frozen=True, kw_only=True)
class Line:
    """One artifact. A cell of None: the case was not run for it."""

    format: str
    scheme: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """One signature of one model."""

    student: str
    signature: str
    dims: str  # what a column's sizes are of, such as `batch×time`
    columns: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def title(self) -> str:
        """The model, the signature and its dimensions."""
        return f"{self.student} · {self.signature}" + (f" · {self.dims}" if self.dims else "")

    @property
    def files_of_one_batch(self) -> tuple[str, ...]:
        """Formats with cells that were run row by row."""
        return tuple(dict.fromkeys(x.format for x in self.lines for c in x.cells if c is not None and c.is_row_by_row))


def matrices(report: Report) -> list[Matrix]:
    """Every signature that any artifact was run by, in the artifacts' order."""
    keys = dict.fromkeys((row.student, case.signature) for row in report.artifacts for case in row.cases)
    return [_matrix(student, signature, report.artifacts) for student, signature in keys]


def footnote(matrix: Matrix) -> str:
    """What the mark means; empty where no cell has it."""
    formats = ", ".join(matrix.files_of_one_batch)
    return f"{ROW_BY_ROW} {formats} files hold batch 1: run row by row" if formats else ""


def _matrix(student: str, signature: str, artifacts: Iterable[ArtifactRow]) -> Matrix:
    rows = [row for row in artifacts if row.student == student]
    found = [{_column(c): c for c in row.cases if c.signature == signature} for row in rows]
    columns = tuple(dict.fromkeys(column for cases in found for column in cases))
    dims = next(("×".join(case.sizes) for cases in found for case in cases.values() if case.kind == "parity"), "")
    lines = [
        Line(
            format=row.format,
            scheme=row.scheme,
            cells=tuple(_cell(row, cases[column]) if column in cases else None for column in columns),
        )
        for row, cases in zip(rows, found, strict=True)
        if cases
    ]
    return Matrix(student=student, signature=signature, dims=dims, columns=columns, lines=tuple(lines))


def _column(case: ParityCase) -> str:
    """The sizes, after what was done if that was not one call."""
    sizes = "×".join(map(str, case.sizes.values())) or case.name
    return {"parity": sizes, "chunked": f"in chunks\n{sizes}", "greedy": f"greedy\n{case.name}"}[case.kind]


def _cell(row: ArtifactRow, case: ParityCase) -> Cell:
    failure = case.failure(row.tolerance)
    shown = [] if case.max_abs_error is None else [error(case.max_abs_error)]
    if case.agreement is not None and (not shown or case.agreement < 1):
        shown.append(percent(case.agreement, 0 if case.agreement == 1 else 1))
    is_row_by_row = row.batch is not None and (case.batch or 1) > row.batch
    text = " ".join(shown) + (ROW_BY_ROW if is_row_by_row else "")
    return Cell(
        text=f"{FAILED} {text}" if failure else text,
        failure=failure,
        tooltip=_told(case, failure),
        is_row_by_row=is_row_by_row,
    )


def _told(case: ParityCase, failure: str) -> str:
    """Everything that is known of a case."""
    parts = [case.title, failure]
    if case.relative_error is not None:
        parts.append(f"{error(case.relative_error)} of the largest value")
    if case.sqnr_db is not None:
        parts.append(f"SQNR {decibels(case.sqnr_db)}")
    if case.agreement is not None:
        parts.append(f"choices that agree: {percent(case.agreement)}")
    return "; ".join(part for part in parts if part)
