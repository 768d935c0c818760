"""Stages: a run is a graph of them. Each runs in a process of its own and leaves one folder, whole or not at all.

A stage is done when its folder holds a record with the right key and every file in it still has the recorded hash. The key
covers the code's version, the settings and the hashes of all it reads, so a run that was killed at any point goes on where
it stood, and a changed setting redoes what depends on it and nothing else.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from edgeseq.artifact import file_sha256, tree_files
from edgeseq.errors import RequestError
from edgeseq.version import __version__

RECORD = "stage.json"
PARTIAL = ".partial"  # below the run folder; holds what is not finished


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a run."""

    name: str  # its folder below the run folder, such as "artifacts/bilstm/onnx"
    work: str  # "module:function", called with a `Job`
    settings: Mapping[str, Any] = field(default_factory=dict)  # plain data
    needs: tuple[str, ...] = ()  # names of the stages whose folders it reads
    threads: int | None = 1  # cores it uses; None: all of them, with no other stage beside it
    is_repeatable: bool = True  # False: it measures, so its files differ from run to run
    is_kept: bool = True  # False: what it did before never counts, since it reads more than its key covers


@dataclass(frozen=True)
class Done:
    """A finished stage: the hash of each of its files, by name relative to its folder."""

    key: str
    files: Mapping[str, str]
    is_repeatable: bool = True  # as its stage says

    @property
    def sha256(self) -> str:
        """One hash over all files."""
        return hashlib.sha256(json.dumps(dict(self.files), sort_keys=True).encode()).hexdigest()


def key_of(stage: Stage, done: Mapping[str, Done]) -> str:
    """What the stage's outcome depends on, as one hash."""
    parts = [__version__, stage.work, stage.settings, stage.threads, [done[n].sha256 for n in stage.needs]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def find_done(stage: Stage, key: str, root: Path) -> Done | None:
    """The stage's earlier outcome, if it has one for this key and every byte of it is still there."""
    if not stage.is_kept:
        return None
    folder = root / stage.name
    try:
        record = json.loads((folder / RECORD).read_text())
        intact = record["key"] == key and all(file_sha256(folder / f) == h for f, h in record["files"].items())
    except (OSError, json.JSONDecodeError, KeyError, TypeError):
        return None
    return Done(key, record["files"], stage.is_repeatable) if intact else None


def recorded(name: str, root: Path) -> Done:
    """A finished stage of a run folder, whatever its key.

    Raises:
        RequestError: A file of it is missing or was changed.
    """
    folder = root / name
    record = json.loads((folder / RECORD).read_text())
    for file, expected in record["files"].items():
        if not (folder / file).exists() or file_sha256(folder / file) != expected:
            raise RequestError(
                f"'{folder / file}' is not the file that the run wrote; repeat the command that began the run"
            )
    return Done(record["key"], record["files"], record["is_repeatable"])


def open_partial(stage: Stage, root: Path) -> Path:
    """A fresh folder for a stage to write into, its own even if a killed run's process still writes."""
    folder = root / PARTIAL / f"{stage.name.replace('/', '-')}-{uuid4().hex}"
    folder.mkdir(parents=True)
    return folder


def finish(stage: Stage, key: str, partial: Path, root: Path) -> Done:
    """Record the hashes of what a stage wrote and move its folder into place."""
    files = {path.relative_to(partial).as_posix(): file_sha256(path) for path in tree_files(partial)}
    record = {"key": key, "is_repeatable": stage.is_repeatable, "files": files}
    (partial / RECORD).write_text(json.dumps(record, indent=1))
    final = root / stage.name
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.exists():
        stale = root / PARTIAL / "stale"
        shutil.rmtree(stale, ignore_errors=True)
        final.rename(stale)
    partial.rename(final)
    return Done(key, files, stage.is_repeatable)


def in_order(stages: Sequence[Stage], *, after: Collection[str]) -> tuple[Stage, ...]:
    """The stages as planned; each must come after all that it needs."""
    seen = set(after)
    for stage in stages:
        missing = set(stage.needs) - seen
        assert not missing, f"stage '{stage.name}' is planned before {sorted(missing)}"
        seen.add(stage.name)
    return tuple(stages)


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Hold a run folder for this process alone; the lock ends with the process, however it ends.

    Raises:
        RequestError: The folder cannot be written, or another process is at work in it.
    """
    import fcntl  # not on Windows, where the rest of the package can still be imported

    try:
        (root / PARTIAL).mkdir(parents=True, exist_ok=True)
        stream = (root / ".lock").open("w")
    except OSError as error:
        raise RequestError(
            f"output folder '{root}' cannot be written: {error.strerror}; choose another by --output"
        ) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RequestError(
                f"another edgeseq is at work in '{root}'; wait for it or choose another --output"
            ) from error
        yield
        shutil.rmtree(root / PARTIAL, ignore_errors=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
