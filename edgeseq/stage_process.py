"""A stage's process: how it is started, heard, held to its limits and ended."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeseq.errors import ConversionError, EdgeseqError
from edgeseq.limits import Limits, amount, resident_bytes
from edgeseq.stages import Stage, cores, open_partial

LAST_WORDS = 12  # lines of a dead stage's log that its error quotes at most


@dataclass(frozen=True, kw_only=True)
class Running:
    """A stage whose process runs."""

    stage: Stage
    key: str
    process: "subprocess.Popen[str]"
    partial: Path  # the folder that it writes
    log: Path
    began: float = field(default_factory=time.monotonic)


Event = tuple[str, dict[str, Any] | None]  # (stage, message); None: its process closed the pipe


def start(stage: Stage, key: str, root: Path, events: "queue.Queue[Event]") -> Running:
    """Start a stage; what it says becomes events."""
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
    threading.Thread(target=listen, args=(stage.name, process.stdout, events), daemon=True).start()
    return Running(stage=stage, key=key, process=process, partial=partial, log=log)


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


def listen(name: str, stream: Any, events: "queue.Queue[Event]") -> None:
    """Hand over every message of a stage; the last is always None, even after a line that its end cut short."""
    try:
        with stream, contextlib.suppress(ValueError):
            for line in stream:
                events.put((name, json.loads(line)))
    finally:
        events.put((name, None))


def check(job: Running, limits: Limits) -> None:
    """Refuse a stage that uses more than it may; all of them are then stopped."""
    if job.process.poll() is not None:
        kill(job.process)  # what it started may outlive it, and keep its pipe open
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


def end(process: "subprocess.Popen[str]") -> None:
    """Wait for a stage's process, and end what it started and left behind."""
    assert process.stdin is not None
    process.stdin.close()
    process.wait()
    kill(process)


def kill(process: "subprocess.Popen[str]") -> None:
    """End a stage's process and all that it started."""
    if not hasattr(os, "killpg"):  # Windows
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended meanwhile
        os.killpg(process.pid, signal.SIGKILL)


def died(job: Running) -> EdgeseqError:
    """A process that ended without a word: say how, and its log's last lines."""
    code = job.process.returncode
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    hint = (
        ", as systems do when memory runs out; --memory-limit stops a stage before that"
        if code == -signal.SIGKILL
        else ""
    )
    return ConversionError(f"stage '{job.stage.name}' {how}{hint}{_last_words(job)}")


def _last_words(job: Running) -> str:
    lines = [line for line in job.log.read_text(errors="replace").splitlines() if line.strip()][-LAST_WORDS:]
    words = f"; last words: {' | '.join(lines)}" if lines else ""
    return f"{words} (details: {job.log})"
