"""The parity matrix for a terminal; cases that do not fit are left out, those that failed last."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeseq.report import names
from edgeseq.report.matrix import LEGEND, Line, Matrix, footnote


def tables(found: Sequence[Matrix], console: Console) -> list[Table | Text]:
    """Each signature's table under its title; then what the cells mean."""
    parts: list[Table | Text] = []
    left_out = 0
    for matrix in found:
        columns = _that_fit(matrix, console)
        left_out += len(matrix.columns) - len(columns)
        parts += [Text(f"parity of {matrix.title}", style="bold"), _table(matrix, columns)]
    notes = dict.fromkeys(footnote(matrix) for matrix in found)
    parts += [Text(note, style="dim") for note in (LEGEND, *notes) if note and found]
    if left_out:
        parts.append(Text(f"{left_out} more cases are in report.html, and left out at this width", style="dim"))
    return parts


def _that_fit(matrix: Matrix, console: Console) -> list[int]:
    """Numbers of the columns, as many as fit; the middle ones without a failure give way first."""
    columns = list(range(len(matrix.columns)))
    endless = console.options.update(width=10_000)  # else the answer is never more than the console's width
    while len(columns) > 1 and console.measure(_table(matrix, columns), options=endless).maximum > console.width:
        sound = [i for i in columns if not any(_failed(line, i) for line in matrix.lines)]
        candidates = sound or columns
        columns.remove(candidates[len(candidates) // 2])
    return columns


def _failed(line: Line, column: int) -> bool:
    cell = line.cells[column]
    return cell is not None and bool(cell.failure)


def _table(matrix: Matrix, columns: Sequence[int]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for title in ("format", "scheme"):
        table.add_column(title, no_wrap=True, overflow="ellipsis", vertical="bottom")
    for i in columns:
        table.add_column(matrix.columns[i], no_wrap=True, overflow="ellipsis", justify="right", vertical="bottom")
    for line, following in zip(matrix.lines, [*matrix.lines[1:], None], strict=True):
        cells = [line.cells[i] for i in columns]
        texts = [Text(c.text if c else "", style="bold red" if c and c.failure else "") for c in cells]
        is_last = following is not None and following.format != line.format
        table.add_row(line.format, names.short_scheme(line.scheme), *texts, end_section=is_last)
    return table
