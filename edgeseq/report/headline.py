"""What a run came to, in one sentence and a few numbers; every one of them computed from the rows."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from edgeseq.report import names
from edgeseq.report.contents import ArtifactRow, Report, TeacherRow
from edgeseq.report.quantities import compared, milliseconds, percent, points, size, times

_DEVICE_KEYS = ("device", "processor", "cpu", "machine")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number, large, with what it means and what it was computed from."""

    value: str
    meaning: str
    detail: str
    is_bad: bool = False


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The first thing a reader sees."""

    sentence: str
    basis: str  # which artifact was chosen, where and how it was measured
    figures: tuple[Figure, ...]


def headline(report: Report) -> Headline:
    """The verdict: the best artifact next to the teacher where there is one."""
    best = best_artifact(report)
    return Headline(
        sentence=_sentence(report, best),
        basis=_basis(report, best),
        figures=(*_against_teacher(report.teacher, best), *_latency(report, best), *_checks(report)),
    )


def best_artifact(report: Report) -> ArtifactRow | None:
    """The fastest one with integer weights that passed and was timed; without any, the fastest that passed."""
    timed = [row for row in report.artifacts if row.passed and row.latency_ms_p50_1thread]
    integer = [row for row in timed if names.is_integer(row.scheme)]
    return min(integer or timed, key=lambda row: row.latency_ms_p50_1thread or 0.0, default=None)


def device(report: Report) -> str:
    """Where the artifacts were measured, as the environment tells it."""
    return next((report.environment[key] for key in _DEVICE_KEYS if report.environment.get(key)), "this machine")


def is_on_gpu(teacher: TeacherRow) -> bool:
    """Whether the teacher was measured on another kind of processor than the artifacts."""
    return not teacher.device.lower().startswith("cpu")


def teacher_precision(teacher: TeacherRow) -> str:
    """What the teacher computed in."""
    return "bf16 autocast" if is_on_gpu(teacher) else "fp32"


def speedup(teacher: TeacherRow | None, row: ArtifactRow) -> float | None:
    """How many times the artifact's median latency goes into the teacher's, both on one thread."""
    if teacher is None or not row.latency_ms_p50_1thread:
        return None
    return teacher.latency_ms_p50_1thread / row.latency_ms_p50_1thread


def teacher_percentile(teacher: TeacherRow | None, q: float) -> float | None:
    """The q-th percentile of the teacher's samples."""
    return float(np.percentile(teacher.samples_ms, q)) if teacher and teacher.samples_ms else None


def _sentence(report: Report, best: ArtifactRow | None) -> str:
    if not report.artifacts:
        return "This run holds no artifact yet."
    checked = _checked(report)
    if best is None:
        return f"{checked}. None that passed was timed here."
    name = f"{best.student} as {best.format}, {names.short_scheme(best.scheme)},"
    ratio = speedup(report.teacher, best)
    if report.teacher is None or ratio is None:
        return f"{checked}. The fastest, {name} answers in {milliseconds(best.latency_ms_p50_1thread)}."
    faster = compared(ratio, "faster", "slower")
    if is_on_gpu(report.teacher):
        faster = f"{faster} on one CPU thread than {report.teacher.name} is on {report.teacher.device}"
    else:
        faster = f"{faster} than {report.teacher.name}"
    smaller = compared(report.teacher.size_bytes / best.size_bytes, "smaller", "larger")
    sentence = f"{name} is {faster}, {smaller}"
    if best.accuracy is None or report.teacher.accuracy <= 0:
        return f"{sentence}."
    kept = f"{percent(best.accuracy, 1)} against {percent(report.teacher.accuracy, 1)}"
    return f"{sentence}, and keeps {percent(best.accuracy / report.teacher.accuracy, 1)} of its accuracy ({kept})."


def _basis(report: Report, best: ArtifactRow | None) -> str:
    if best is None:
        return ""
    kind = "fastest artifact with integer weights" if names.is_integer(best.scheme) else "fastest artifact"
    runs = f"median of {len(best.samples_ms)} single inferences" if best.samples_ms else "median"
    text = (
        f"Chosen as the {kind} that passed every check. Latency is the {runs} on one thread of {device(report)}, "
        f"with {best.engine or best.verified_by}, in a process of its own."
    )
    if report.teacher is None:
        return text
    if is_on_gpu(report.teacher):
        return f"{text} The teacher ran on {report.teacher.device}: the speed-up compares machines as well as models."
    return f"{text} The teacher: PyTorch, float32, one thread, {report.teacher.device}."


def _against_teacher(teacher: TeacherRow | None, best: ArtifactRow | None) -> tuple[Figure, ...]:
    ratio = speedup(teacher, best) if best else None
    if teacher is None or best is None or ratio is None:
        return ()
    latency = f"{milliseconds(best.latency_ms_p50_1thread)} against {milliseconds(teacher.latency_ms_p50_1thread)}"
    if is_on_gpu(teacher):
        latency += f" on {teacher.device}"
    faster = Figure(value=times(max(ratio, 1 / ratio)), meaning="faster" if ratio >= 1 else "slower", detail=latency)
    shrink = teacher.size_bytes / best.size_bytes
    sizes = f"{size(best.size_bytes)} against {size(teacher.size_bytes)}"
    smaller = Figure(value=times(max(shrink, 1 / shrink)), meaning="smaller" if shrink >= 1 else "larger", detail=sizes)
    if best.accuracy is None:
        return faster, smaller
    change = points(best.accuracy - teacher.accuracy)
    accuracies = f"{percent(best.accuracy, 1)} against {percent(teacher.accuracy, 1)}"
    return faster, smaller, Figure(value=change, meaning="points of accuracy", detail=accuracies)


def _latency(report: Report, best: ArtifactRow | None) -> tuple[Figure, ...]:
    """Without a teacher there is nothing to divide by: the plain numbers."""
    if report.teacher is not None or best is None:
        return ()
    return (
        Figure(
            value=milliseconds(best.latency_ms_p50_1thread),
            meaning="median latency, one thread",
            detail=names.artifact(best),
        ),
        Figure(value=size(best.size_bytes), meaning="on disk", detail=names.artifact(best)),
    )


def _checks(report: Report) -> tuple[Figure, ...]:
    total = len(report.artifacts)
    if not total:
        return ()
    passed = sum(row.passed for row in report.artifacts)
    untimed = [row for row in report.artifacts if row.latency_ms_p50_1thread is None]
    detail = f"{total - len(untimed)} timed"
    for reason, count in Counter(names.why_not_timed(row).split(", ")[-1] for row in untimed).items():
        detail += f", {count} verified but {reason}"
    return (Figure(value=f"{passed} of {total}", meaning="artifacts passed", detail=detail, is_bad=passed < total),)


def _checked(report: Report) -> str:
    passed, total = sum(row.passed for row in report.artifacts), len(report.artifacts)
    if passed < total:
        return f"{passed} of {total} artifacts agree with PyTorch within tolerance; {total - passed} failed"
    agree = "The artifact agrees" if total == 1 else f"All {total} artifacts agree"
    return f"{agree} with PyTorch within tolerance"
