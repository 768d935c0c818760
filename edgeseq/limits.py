"""What a stage's process may use: memory and time. Converters can take several times their model's memory.

The memory is watched, not fenced in: under RLIMIT_AS torch fails at once, since it reserves far more addresses than it uses.
Counted is what the system could not drop and read again from a file.
"""

import contextlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from edgeseq.errors import RequestError

SHARE = 0.8  # of the machine's memory, by default: what is left keeps it alive
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SECONDS = {"s": 1, "m": 60, "h": 3600}
NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that one stage may use. None: no limit."""

    memory_bytes: int | None = None  # of its process and their descendants
    time_s: float | None = None

    @classmethod
    def of_machine(cls) -> Self:
        """A share of this machine's memory, and all the time."""
        total = machine_bytes()
        return cls(memory_bytes=int(SHARE * total) if total and resident_bytes(os.getpid()) is not None else None)

    @classmethod
    def parse(cls, memory: str | None, time: str | None) -> Self:
        """From what a user wrote, such as `4GB`, `50%` and `30m`; None: the machine's.

        Raises:
            RequestError: It is no amount, or memory cannot be watched here.
        """
        usual = cls.of_machine()
        if memory not in (None, NONE) and resident_bytes(os.getpid()) is None:
            raise RequestError(f"memory cannot be watched on {sys.platform}; leave --memory-limit out")
        return cls(
            memory_bytes=usual.memory_bytes if memory is None else _bytes(memory),
            time_s=usual.time_s if time is None else _seconds(time),
        )


def machine_bytes() -> int | None:
    """Memory of this machine, or of the container that it is; None: the system does not tell."""
    known = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):  # no container, or "max"
        known.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(known, default=None)


def resident_bytes(pid: int) -> int | None:
    """Memory that a process and its descendants hold for themselves; None: this system does not tell, or it has ended."""
    if not Path("/proc/self/statm").exists():
        return _told_by_ps(pid)
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (OSError, ValueError):
        return None
    own = (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
    return own + sum(resident_bytes(child) or 0 for child in _children(pid))


def amount(count: float) -> str:
    """Bytes as a user may write them, in three digits: 4GB, 1.23GB."""
    unit, factor = next(((u, f) for u, f in reversed(UNITS.items()) if count >= f), ("KB", UNITS["KB"]))
    return f"{count / factor:.3g}{unit}"


def _children(pid: int) -> list[int]:
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in path.read_text().split()]
        except OSError:  # the thread has ended
            continue
    return found


def _told_by_ps(pid: int) -> int | None:
    """Macs have no /proc; what `ps` tells leaves descendants out and counts files that are mapped in."""
    try:
        told = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)
        return 1024 * int(told.stdout)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def _bytes(text: str) -> int | None:
    if text == NONE:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(KB|MB|GB|TB|%)", text.strip(), re.IGNORECASE)
    total = machine_bytes()
    if found and found[2] == "%" and total:
        count = int(float(found[1]) / 100 * total)
    elif found and found[2] != "%":
        count = int(float(found[1]) * UNITS[found[2].upper()])
    else:
        count = 0
    if count <= 0:
        raise RequestError(f"--memory-limit '{text}' is no amount of memory; write 4GB, 800MB, 50% or none")
    return count


def _seconds(text: str) -> float | None:
    if text == NONE:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    if not found or float(found[1]) <= 0:
        raise RequestError(f"--time-limit '{text}' is no time; write 90s, 30m, 2h or none")
    return float(found[1]) * SECONDS[found[2]]
