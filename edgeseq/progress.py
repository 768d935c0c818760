"""Progress of a run: bars in a terminal, plain lines elsewhere."""

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from edgeseq.stages import Stage

LINE_EVERY_S = 10.0


class Bars:
    """One bar a running stage; finished ones stay as a line."""

    def __init__(self, console: Console):
        columns = (
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[what]}"),
        )
        self._progress = Progress(*columns, console=console)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def reused(self, stage: Stage) -> None:
        self._progress.add_task(stage.name, total=1, completed=1, what="as before")

    def started(self, stage: Stage) -> None:
        self._tasks[stage.name] = self._progress.add_task(stage.name, total=None, what="")

    def progressed(self, stage: Stage, done: int, total: int, what: str) -> None:
        self._progress.update(self._tasks[stage.name], completed=done, total=total, what=what)

    def finished(self, stage: Stage) -> None:
        self._progress.update(self._tasks[stage.name], total=1, completed=1, what="done")


class Lines:
    """A line when a stage starts, every ten seconds, and when it ends."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._begun: dict[str, float] = {}
        self._last_line: dict[str, float] = {}

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def reused(self, stage: Stage) -> None:
        self._say(stage, "as before")

    def started(self, stage: Stage) -> None:
        self._begun[stage.name] = self._last_line[stage.name] = time.monotonic()
        self._say(stage, "started")

    def progressed(self, stage: Stage, done: int, total: int, what: str) -> None:
        if time.monotonic() - self._last_line[stage.name] >= LINE_EVERY_S:
            self._last_line[stage.name] = time.monotonic()
            self._say(stage, f"{100 * done // max(total, 1)} % {what}".rstrip())

    def finished(self, stage: Stage) -> None:
        self._say(stage, f"done in {time.monotonic() - self._begun[stage.name]:.0f} s")

    def _say(self, stage: Stage, what: str) -> None:
        print(f"[{time.strftime('%H:%M:%S')}] {stage.name}: {what}", file=self._stream, flush=True)


def watcher() -> Bars | Lines:
    """Bars on standard error if that is a terminal, else lines."""
    console = Console(stderr=True)
    return Bars(console) if console.is_terminal else Lines(sys.stderr)
