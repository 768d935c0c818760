"""Stage functions that test_stages.py runs in real worker processes."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from edgeseq.errors import GateError, UnavailableError
from edgeseq.worker import Job


def join(job: Job) -> None:
    """Write the setting `text`, then what every needed stage wrote. A line is added to the file `calls`, if there is one."""
    if "calls" in job.settings:
        with Path(job.settings["calls"]).open("a") as stream:
            stream.write(f"{job.settings['text']}\n")
    job.progress(1, 2, "half")
    needed = [(folder / "text").read_text() for _, folder in sorted(job.needs.items())]
    (job.out / "inner").mkdir()
    (job.out / "inner" / "copy").write_text("same")
    (job.out / "text").write_text("+".join([job.settings["text"], *needed]))
    print("something that a third party says")


def hold(job: Job) -> None:
    """Like `join`, but while the file `hold` exists: write half, lock `lock`, and wait."""
    if Path(job.settings["hold"]).exists():
        (job.out / "text").write_text("hal")
        with Path(job.settings["lock"]).open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            Path(job.settings["ready"]).write_text("")
            time.sleep(60)
    join(job)


def refuse(job: Job) -> None:
    raise GateError(f"the answer is {job.settings['text']}")


def lack(job: Job) -> None:
    raise UnavailableError("there is no such device; pip install 'edgeseq[device]'")


def crash(job: Job) -> None:
    raise ZeroDivisionError("by zero, of all numbers")


def die(job: Job) -> None:
    """End by signal 9, after a last word."""
    (job.out / "text").write_text("hal")
    print("the memory is full", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def eat(job: Job) -> None:
    """Take memory until stopped, a little at a time; `child`: another process takes it, and writes its number there."""
    print("about to eat", flush=True)
    if "child" in job.settings:
        code = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); x = b'x' * 300_000_000; time.sleep(60)"
        subprocess.run([sys.executable, "-c", code, job.settings["child"]], check=True)
    eaten: list[bytearray] = []
    while len(eaten) < 100:
        eaten.append(bytearray(b"x" * 10_000_000))
        time.sleep(0.02)
    time.sleep(60)


def sleep(job: Job) -> None:
    print("about to sleep", flush=True)
    time.sleep(60)


def leave(job: Job) -> None:
    """End without a word and without an error."""
    os._exit(3)


def environment(job: Job) -> None:
    names = ("OMP_NUM_THREADS", "PYTHONHASHSEED", "ORT_DISABLE_TELEMETRY")
    (job.out / "text").write_text(" ".join(os.environ[name] for name in names))


def touch_and_wait(job: Job) -> None:
    """Say that it runs, and wait for another stage to say so too."""
    Path(job.settings["mine"]).write_text("")
    deadline = time.monotonic() + 10
    while not Path(job.settings["other"]).exists():
        assert time.monotonic() < deadline, "the other stage never ran beside this one"
        time.sleep(0.01)


def abandon(job: Job) -> None:
    """End without a word, and leave a process behind that has everything open that this one had."""
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    Path(job.settings["child"]).write_text(str(child))
    os._exit(3)
