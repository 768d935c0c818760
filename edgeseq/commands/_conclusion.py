"""How a command that works on a run folder ends: its table, where everything lies, and the verdict."""

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseq.errors import GateError, RequestError

if TYPE_CHECKING:
    from edgeseq.report.contents import Report


def conclude(report: "Report", root: Path, options: argparse.Namespace) -> int:
    """Print the tables and where everything lies.

    Raises:
        GateError: An artifact is out of tolerance.
    """
    from edgeseq.report import table

    columns = shutil.get_terminal_size(fallback=(140, 40)).columns
    print(table.render(report, width=columns, color=sys.stdout.isatty()))
    print(f"Report: {root / 'report.html'}   All of it: {root}")
    if options.json:
        write(options.json, report.to_json())
    failed = [row for row in report.artifacts if not row.passed]
    if failed:
        listed = "; ".join(f"{row.path}: {', '.join(row.failures)}" for row in failed)
        raise GateError(f"{len(failed)} of {len(report.artifacts)} artifacts are out of tolerance: {listed}")
    return 0


def write(path: Path, text: str) -> None:
    """Write what `--json` asks for.

    Raises:
        RequestError: It cannot be written there.
    """
    try:
        path.write_text(text)
    except OSError as error:
        raise RequestError(f"'{path}' cannot be written: {error.strerror}") from error
