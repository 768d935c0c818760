"""What a report says, gathered from a run folder; `report.json` is this, written out."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgeseq.parity import ParityCase
from edgeseq.tolerance import Tolerance


@dataclass(frozen=True, kw_only=True)
class TeacherRow:
    """The full-size training model: in PyTorch, float32 (bfloat16 autocast on a GPU)."""

    name: str
    accuracy: float
    shift_accuracy: Mapping[str, float]  # other test sets by name, under a shift of domain
    parameters: int
    size_bytes: int  # of its weights file
    latency_ms_p50_1thread: float  # on a GPU: of CUDA events, and threads play no part
    samples_ms: tuple[float, ...]
    peak_rss_bytes: int | None  # on a GPU: max_memory_allocated
    device: str  # "cpu (...)" or the GPU's name
    memory_kind: str  # "resident memory" or "GPU memory"


@dataclass(frozen=True, kw_only=True)
class StudentRow:
    """One student, in PyTorch float32, and the control that was trained without the teacher."""

    accuracy: float
    control_accuracy: float | None  # None: the recipe trains no control
    shift_accuracy: Mapping[str, float]
    parameters: int
    distillation: tuple[str, ...]  # the parts that were switched on, in words


@dataclass(frozen=True, kw_only=True)
class ArtifactRow:
    """One artifact: proof and measurement. None: not measured here; `verified_by` and `note` say why."""

    student: str
    format: str
    scheme: str
    path: str  # relative to the run folder
    sha256: str
    size_bytes: int
    accuracy: float | None
    agreement: float | None  # fraction of the test set on which it chooses the same class as PyTorch
    max_abs_error: float
    sqnr_db: float
    passed: bool
    failures: tuple[str, ...]
    verified_by: str
    note: str
    engine: str | None
    load_ms: float | None
    first_inference_ms: float | None
    latency_ms_p50_1thread: float | None
    latency_ms_p90_1thread: float | None
    latency_ms_p99_1thread: float | None
    latency_ms_p50_all_threads: float | None
    latency_ms_p90_all_threads: float | None = None
    latency_ms_p99_all_threads: float | None = None
    peak_rss_bytes: int | None  # above the process's baseline
    samples_ms: tuple[float, ...]  # one thread
    tolerance: Tolerance = field(default_factory=Tolerance)  # of each case
    cases: tuple[ParityCase, ...] = ()  # the artifact's row of the parity matrix
    batch: int | None = None  # of the format's files; None: any


@dataclass(frozen=True, kw_only=True)
class Report:
    """All of it. A run of `convert` has no teacher and no students."""

    title: str
    teacher: TeacherRow | None
    students: Mapping[str, StudentRow]
    artifacts: tuple[ArtifactRow, ...]
    input: str  # what was fed while measuring, in words
    test_set: str  # what accuracy was computed on, in words; empty if there is none
    environment: Mapping[str, str]
    sources: tuple[str, ...]  # data and weights, with their licences

    def to_json(self) -> str:
        """The text of `report.json`; numbers that are not finite become null."""
        return json.dumps(_plain(asdict(self)), indent=1) + "\n"


def save(report: Report, path: Path) -> None:
    """Write `report.json`."""
    path.write_text(report.to_json())


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
