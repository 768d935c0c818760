"""Plans of sample stages, and a process that carries one out and can be killed. Light: it loads no model library."""

from dataclasses import dataclass, field
from pathlib import Path

from edgeseq import scheduler
from edgeseq.stages import Stage, exclusive


@dataclass
class Diary:
    """A watcher that remembers."""

    lines: list[tuple[str, str]] = field(default_factory=list)

    def reused(self, stage: Stage) -> None:
        self.lines.append(("reused", stage.name))

    def started(self, stage: Stage) -> None:
        self.lines.append(("started", stage.name))

    def progressed(self, stage: Stage, done: int, total: int, what: str) -> None:
        self.lines.append((f"{done}/{total} {what}", stage.name))

    def finished(self, stage: Stage) -> None:
        self.lines.append(("finished", stage.name))

    def of(self, kind: str) -> list[str]:
        return sorted(name for what, name in self.lines if what == kind)


def stage(name: str, function: str = "join", *needs: str, **settings: str) -> Stage:
    return Stage(name=name, work=f"tests.sample_stages:{function}", settings={"text": name, **settings}, needs=needs)


def interrupted(tmp_path: Path) -> list[Stage]:
    """Three stages; the second waits, half done, for as long as the file `hold` exists."""
    signs = {name: str(tmp_path / name) for name in ("hold", "lock", "ready")}
    calls = str(tmp_path / "calls")
    return [
        stage("first", "join", calls=calls),
        Stage(
            name="second",
            work="tests.sample_stages:hold",
            settings={"text": "second", "calls": calls, **signs},
            needs=("first",),
        ),
        stage("third", "join", "first", "second", calls=calls),
    ]


def main(root: Path) -> None:
    """Carry the plan out."""
    with exclusive(root):
        scheduler.run(interrupted(root.parent), root, Diary(), given={})
