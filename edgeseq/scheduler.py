"""Runs stages, each in a process of its own, as many side by side as there are cores."""

import queue
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edgeseq import errors, stage_process
from edgeseq.errors import ConversionError, EdgeseqError
from edgeseq.limits import Limits
from edgeseq.stage_process import Event, Running
from edgeseq.stages import Done, Stage, cores, find_done, finish, in_order, key_of

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
    done = {name: stage for name, stage in given.items() if name not in {s.name for s in stages}}
    pending = list(in_order(stages, after=done))
    listener = _Listener(limits=limits or Limits.of_machine())
    work = _Run(root=root, watcher=watcher, listener=listener, done=done, pending=pending)
    try:
        while work.pending or work.running:
            work.begin()
            if work.running:
                work.handle(listener.next_event(work.running))
    finally:
        for left in work.running.values():
            stage_process.kill(left.process)
            stage_process.end(left.process)
    return work.done


def _fits(stage: Stage, running: Mapping[str, Running]) -> bool:
    if not running:
        return True
    if stage.threads is None or any(r.stage.threads is None for r in running.values()):
        return False
    return stage.threads + sum(r.stage.threads or 0 for r in running.values()) <= cores()


@dataclass(kw_only=True)
class _Listener:
    """Waits for a stage to say something, looking now and then at what each of them uses."""

    events: "queue.Queue[Event]" = field(default_factory=queue.Queue)
    limits: Limits
    next_look: float = 0.0

    def next_event(self, running: Mapping[str, Running]) -> Event:
        while True:
            if time.monotonic() >= self.next_look:
                for job in running.values():
                    stage_process.check(job, self.limits)
                self.next_look = time.monotonic() + LOOK_S
            try:
                return self.events.get(timeout=max(self.next_look - time.monotonic(), 0.001))
            except queue.Empty:
                continue


@dataclass(kw_only=True)
class _Run:
    """What is done, what runs and what waits."""

    root: Path
    watcher: Watcher
    listener: _Listener
    done: dict[str, Done]
    pending: list[Stage]  # in the order of their needs
    running: dict[str, Running] = field(default_factory=dict)

    def begin(self) -> None:
        """Take over or start, in order, every stage that can be."""
        for stage in [s for s in self.pending if all(n in self.done for n in s.needs)]:
            key = key_of(stage, self.done)
            earlier = find_done(stage, key, self.root)
            if earlier:
                self.done[stage.name] = earlier
                self.watcher.reused(stage)
            elif _fits(stage, self.running):
                self.running[stage.name] = stage_process.start(stage, key, self.root, self.listener.events)
                self.watcher.started(stage)
            elif stage.threads is None:
                break  # it waits for all cores: nothing behind it may take one
            else:
                continue
            self.pending.remove(stage)

    def handle(self, event: Event) -> None:
        """Take note of what a stage said."""
        name, message = event
        job = self.running[name]
        if message is None:
            del self.running[name]
            stage_process.end(job.process)
            if name not in self.done:
                raise stage_process.died(job)
            self.watcher.finished(job.stage)
        elif "progress" in message:
            self.watcher.progressed(job.stage, *message["progress"])
        elif "finished" in message:
            self.done[name] = finish(job.stage, job.key, job.partial, self.root)
        elif "error" in message:
            kind: type[EdgeseqError] = getattr(errors, message["type"], EdgeseqError)
            raise kind(message["error"])
        else:
            raise ConversionError(f"stage '{name}' failed: {message['crash']} (details: {job.log})")
