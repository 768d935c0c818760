"""Runs stages, each in a process of its own, as many side by side as there are cores."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edgeseq import errors
from edgeseq.errors import ConversionError, EdgeseqError
from edgeseq.limits import Limits, amount, resident_bytes
from edgeseq.stages import Done, Stage, cores, find_done, finish, in_order, key_of, open_partial

LAST_WORDS = 12  # lines of a dead stage's log that its error quotes at most
LOOK_S = 0.2  # between two looks at what the stages use


class Watcher(Protocol):
    """Whoever shows a run's progress."""

    def reused(self, stage: Stage) -> None:
        """An earlier outcome was taken over."""

    def started(self, stage: Stage) -> None:
        """The stage's process runs."""

    def progressed(self, stage: Stage, done: int, total: int, what: str) -> None:
        """The stage is at `done` of `total`."""

    def finished(self, stage: Stage) -> None:
        """The stage's folder is in place."""


@dataclass(frozen=True, kw_only=True)
class _Running:
    stage: Stage
    key: str
    process: "subprocess.Popen[str]"
    partial: Path
    log: Path
    began: float = field(default_factory=time.monotonic)


Event = tuple[str, dict[str, Any] | None]  # (stage, message); None: its process closed the pipe


def run(
    stages: Sequence[Stage],
    root: Path,
    watcher: Watcher,
    *,
    given: Mapping[str, Done],
    limits: Limits | None = None,
) -> dict[str, Done]:
    """Bring every stage up to date, in the order of their needs.

    Args:
        stages: In an order in which each comes after all that it needs.
        root: The run folder.
        watcher: Whoever shows the progress.
        given: Stages that are done and stay as they are.
        limits: What each stage may use; None: what suits this machine.

    Raises:
        EdgeseqError: What the first failing stage raised; the others are stopped. What is finished stays.
    """
    listener = _Listener(limits=limits or Limits.of_machine())
    done = {name: stage for name, stage in given.items() if name not in {s.name for s in stages}}
    running: dict[str, _Running] = {}
    pending = list(in_order(stages, after=done))
    try:
        while pending or running:
            for stage in [s for s in pending if all(n in done for n in s.needs)]:
                key = key_of(stage, done)
                earlier = find_done(stage, key, root)
                if earlier:
                    done[stage.name] = earlier
                    watcher.reused(stage)
                elif _fits(stage, running):
                    running[stage.name] = _start(stage, key, root, done, listener.events)
                    watcher.started(stage)
                elif stage.threads is None:
                    break  # it waits for all cores: nothing behind it may take one
                else:
                    continue
                pending.remove(stage)
            if running:
                _handle(listener.next_event(running), running, done, root, watcher)
    finally:
        for left in running.values():
            _kill(left.process)
            _end(left.process)
    return done


def _fits(stage: Stage, running: Mapping[str, _Running]) -> bool:
    if not running:
        return True
    if stage.threads is None or any(r.stage.threads is None for r in running.values()):
        return False
    return stage.threads + sum(r.stage.threads or 0 for r in running.values()) <= cores()


def _start(stage: Stage, key: str, root: Path, done: Mapping[str, Done], events: "queue.Queue[Event]") -> _Running:
    partial = open_partial(stage, root)
    log = root / "logs" / f"{stage.name.replace('/', '-')}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "edgeseq.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=_environment(stage.threads or cores()),
            start_new_session=True,  # a group of its own, so that what it starts can be stopped with it
        )
    assert process.stdin is not None and process.stdout is not None
    request = {
        "work": stage.work,
        "settings": stage.settings,
        "needs": {name: str((root / name).resolve()) for name in stage.needs},
        "out": str(partial.resolve()),
        "log": str(log.resolve()),
    }
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()  # and left open: its end tells the worker that this process is gone
    threading.Thread(target=_listen, args=(stage.name, process.stdout, events), daemon=True).start()
    return _Running(stage=stage, key=key, process=process, partial=partial, log=log)


def _environment(threads: int) -> dict[str, str]:
    """The worker's environment: quiet, reproducible, and no more threads than its share of the cores."""
    return os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "PYTHONHASHSEED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "ORT_DISABLE_TELEMETRY": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def _listen(name: str, stream: Any, events: "queue.Queue[Event]") -> None:
    """Hand over every message of a stage; the last is always None, even after a line that its end cut short."""
    try:
        with stream, contextlib.suppress(ValueError):
            for line in stream:
                events.put((name, json.loads(line)))
    finally:
        events.put((name, None))


def _end(process: "subprocess.Popen[str]") -> None:
    """Wait for a stage's process, and end what it started and left behind."""
    assert process.stdin is not None
    process.stdin.close()
    process.wait()
    _kill(process)


@dataclass(kw_only=True)
class _Listener:
    """Waits for a stage to say something, looking now and then at what each of them uses."""

    events: "queue.Queue[Event]" = field(default_factory=queue.Queue)
    limits: Limits
    next_look: float = 0.0

    def next_event(self, running: Mapping[str, _Running]) -> Event:
        while True:
            if time.monotonic() >= self.next_look:
                for job in running.values():
                    _check(job, self.limits)
                self.next_look = time.monotonic() + LOOK_S
            try:
                return self.events.get(timeout=max(self.next_look - time.monotonic(), 0.001))
            except queue.Empty:
                continue


def _check(job: _Running, limits: Limits) -> None:
    """Refuse a stage that uses more than it may; `run` then stops all of them."""
    if job.process.poll() is not None:
        _kill(job.process)  # what it started may outlive it, and keep its pipe open
        return
    used = (resident_bytes(job.process.pid) or 0) if limits.memory_bytes is not None else 0
    if limits.memory_bytes is not None and used > limits.memory_bytes:
        raise ConversionError(
            f"stage '{job.stage.name}' was stopped: it held {amount(used)} of memory, and the limit is "
            f"{amount(limits.memory_bytes)}; allow more by --memory-limit, or convert a smaller model{_last_words(job)}"
        )
    took = time.monotonic() - job.began
    if limits.time_s is not None and took > limits.time_s:
        raise ConversionError(
            f"stage '{job.stage.name}' was stopped after {took:.0f} s, and the limit is {limits.time_s:g} s; "
            f"allow more by --time-limit{_last_words(job)}"
        )


def _kill(process: "subprocess.Popen[str]") -> None:
    """End a stage's process and all that it started."""
    if not hasattr(os, "killpg"):  # Windows
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended meanwhile
        os.killpg(process.pid, signal.SIGKILL)


def _handle(event: Event, running: dict[str, _Running], done: dict[str, Done], root: Path, watcher: Watcher) -> None:
    name, message = event
    job = running[name]
    if message is None:
        del running[name]
        _end(job.process)
        if name not in done:
            raise _died(job)
        watcher.finished(job.stage)
    elif "progress" in message:
        watcher.progressed(job.stage, *message["progress"])
    elif "finished" in message:
        done[name] = finish(job.stage, job.key, job.partial, root)
    elif "error" in message:
        kind: type[EdgeseqError] = getattr(errors, message["type"], EdgeseqError)
        raise kind(message["error"])
    else:
        raise ConversionError(f"stage '{name}' failed: {message['crash']} (details: {job.log})")


def _died(job: _Running) -> EdgeseqError:
    """A process that ended without a word: say how, and its log's last lines."""
    code = job.process.returncode
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    hint = (
        ", as systems do when memory runs out; --memory-limit stops a stage before that"
        if code == -signal.SIGKILL
        else ""
    )
    return ConversionError(f"stage '{job.stage.name}' {how}{hint}{_last_words(job)}")


def _last_words(job: _Running) -> str:
    lines = [line for line in job.log.read_text(errors="replace").splitlines() if line.strip()][-LAST_WORDS:]
    words = f"; last words: {' | '.join(lines)}" if lines else ""
    return f"{words} (details: {job.log})"
