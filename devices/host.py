"""This machine. Each artifact is measured in a process of its own, so that nothing loaded before it counts.

`python -m edgeseq.devices.host` is that process: one request as JSON on standard input, one measurement on standard output.
"""

import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeseq.errors import UnavailableError
from edgeseq.measure import Measurement, Protocol
from edgeseq.signature import Signature, Tensors

STATUS = Path("/proc/self/status")
MACOS = sys.platform == "darwin"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is measured: an artifact, or a model as it was trained (format "pytorch")."""

    path: Path
    format: str
    sha256: str
    signatures: tuple[Signature, ...] = ()


def measure(
    subject: Subject, inputs: Tensors, *, input: str, threads: int, protocol: Protocol, signature: str = "forward"
) -> Measurement:
    """Load, first inference, warm inferences and memory of one artifact in a fresh process; `input` says what is fed.

    Raises:
        UnavailableError: The process failed; its last words are quoted.
    """
    request = {
        "path": str(subject.path),
        "format": subject.format,
        "sha256": subject.sha256,
        "signatures": [s.to_json() for s in subject.signatures],
        "inputs": {
            key: {"dtype": str(v.dtype), "shape": v.shape, "values": v.ravel().tolist()} for key, v in inputs.items()
        },
        "input": input,
        "signature": signature,
        "threads": threads,
        "protocol": asdict(protocol),
    }
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "ORT_DISABLE_TELEMETRY": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, "-m", "edgeseq.devices.host"]
    result = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, env=environment)
    lines = result.stdout.splitlines()
    if result.returncode != 0 or not lines:
        words = [line for line in result.stderr.splitlines() if line.strip()][-3:]
        raise UnavailableError(
            f"measuring '{subject.path}' failed with exit code {result.returncode}: {' | '.join(words)}"
        )
    return Measurement.from_json(json.loads(lines[-1]))


def measure_here(request: Mapping[str, Any]) -> Measurement:
    """What `measure` asks for, in this process."""
    from edgeseq.devices import runtimes  # a light import: nothing may be loaded before the baseline is known

    runtime = runtimes.for_format(request["format"])
    protocol = Protocol(**request["protocol"])
    signatures = tuple(Signature.from_json(s) for s in request["signatures"])
    inputs = {k: np.array(v["values"], v["dtype"]).reshape(v["shape"]) for k, v in request["inputs"].items()}
    reset_peak_memory()
    baseline = resident_bytes()
    start = time.perf_counter()
    session = runtime.load(Path(request["path"]), signatures, threads=request["threads"])
    load_ms = 1e3 * (time.perf_counter() - start)
    first_ms = runtime.time_ms(session, inputs, request["signature"])
    for _ in range(protocol.warmup_runs):
        session.run(inputs, request["signature"])
    samples: list[float] = []
    end = time.perf_counter() + protocol.max_seconds
    while len(samples) < protocol.runs and (len(samples) < protocol.min_runs or time.perf_counter() < end):
        samples.append(runtime.time_ms(session, inputs, request["signature"]))
    peak = peak_bytes()
    return Measurement(
        artifact_sha256=request["sha256"],
        device=runtime.accelerator() or device_name(),
        engine=runtime.verified_by,
        threads=request["threads"],
        input=request["input"],
        warmup_runs=protocol.warmup_runs,
        load_ms=load_ms,
        first_inference_ms=first_ms,
        samples_ms=tuple(samples),
        baseline_rss_bytes=baseline,
        peak_rss_bytes=runtime.peak_accelerator_bytes() or (None if peak is None else max(0, peak - baseline)),
        environment=environment(),
    )


def environment() -> dict[str, str]:
    """The machine and its software, for a reader who wants to repeat a number."""
    return {
        "processor": processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def device_name() -> str:
    """This machine's processor and instruction set, as measurements name it."""
    return f"{processor()} ({platform.machine()})"


def processor() -> str:
    """The processor's name."""
    if MACOS:
        name = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True).stdout
        return name.strip()
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.*)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def resident_bytes() -> int:
    """Resident size now; on systems without /proc, the highest so far."""
    return _status("VmRSS") if STATUS.exists() else _highest_so_far()


def peak_bytes() -> int | None:
    """Highest resident size since `reset_peak_memory`."""
    return _status("VmHWM") if STATUS.exists() else _highest_so_far()


def reset_peak_memory() -> None:
    """Have Linux start the high-water mark anew; a process that may not keeps its whole history, which is still a bound."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _status(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    assert found, f"/proc/self/status has no {field}"
    return int(found[1]) * 1024


def _highest_so_far() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if MACOS else 1024)


if __name__ == "__main__":
    print(json.dumps(asdict(measure_here(json.load(sys.stdin)))))
