"""Gather a run folder's results into a report, and write it as JSON and as a page."""

import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from edgeseq import lookup
from edgeseq.artifact import Artifact
from edgeseq.devices import host
from edgeseq.measure import Measurement
from edgeseq.recipe import Distillation, options_from
from edgeseq.report.contents import ArtifactRow, Report, StudentRow, TeacherRow
from edgeseq.result import TrainingResult
from edgeseq.stages import write_atomically
from edgeseq.verify import ParityReport

PACKAGES = ("torch", "onnxruntime", "onnx", "ai-edge-litert", "ai-edge-quantizer", "coremltools", "numpy")
TEACHER = "teacher"


def write(root: Path, *, title: str) -> Report:
    """Write `report.json` and `report.html` into the run folder.

    Raises:
        UnavailableError: The page's template engine is not installed; `report.json` is written all the same.
    """
    report = gather(root, title=title)
    write_atomically(root / "report.json", report.to_json())
    try:
        from edgeseq.report import html
    except ModuleNotFoundError as error:
        raise lookup.missing_package(error, wanted_by="report.html", extra="report") from error
    write_atomically(root / "report.html", html.render(report))
    return report


def gather(root: Path, *, title: str) -> Report:
    """What the folder holds so far; what is missing is None."""
    request = _json(root / "request.json")["request"]
    about, data = _about(root), _json(root / "data" / "about.json")
    measured = dict(measurements(root))
    one_thread = {stem: m for (stem, threads), m in measured.items() if threads == 1}
    all_threads = {stem: m for (stem, threads), m in measured.items() if threads > 1}
    return Report(
        title=title,
        teacher=_teacher(root, request, one_thread.get(TEACHER)),
        students=dict(_students(root, request)),
        artifacts=tuple(_artifacts(root, one_thread, all_threads)),
        input=about.get("input", ""),
        test_set=about.get("test_set", ""),
        environment=host.environment() | _versions(),
        sources=tuple(data.get("sources", ())),
    )


def measurements(root: Path) -> Iterator[tuple[tuple[str, int], Measurement]]:
    """((stem, threads), all rounds of it as one) of every artifact that was measured."""
    rounds: dict[tuple[str, int], list[Measurement]] = {}
    for path in sorted((root / "measurements").glob("*threads.*.json")):
        stem, threads, _, _ = path.name.rsplit(".", 3)
        rounds.setdefault((stem, int(threads.removesuffix("threads"))), []).append(Measurement.load(path))
    for key, found in rounds.items():
        yield key, pooled(found)


def pooled(rounds: list[Measurement]) -> Measurement:
    """All samples of all rounds; of what a process has one of, the median over processes."""
    peaks = [m.peak_rss_bytes for m in rounds if m.peak_rss_bytes is not None]
    return replace(
        rounds[0],
        samples_ms=tuple(sample for m in rounds for sample in m.samples_ms),
        load_ms=statistics.median(m.load_ms for m in rounds),
        first_inference_ms=statistics.median(m.first_inference_ms for m in rounds),
        peak_rss_bytes=int(statistics.median(peaks)) if peaks else None,
    )


def _teacher(root: Path, request: Mapping[str, Any], measured: Measurement | None) -> TeacherRow | None:
    if measured is None or not (root / TEACHER / "result.json").exists():
        return None
    result = TrainingResult.load(root / TEACHER)
    on_gpu = measured.device != host.device_name()
    return TeacherRow(
        name=request["recipe"]["teacher"]["weights"],
        accuracy=result.accuracy,
        shift_accuracy=result.shift_accuracy,
        parameters=result.parameters,
        size_bytes=(root / TEACHER / "weights.safetensors").stat().st_size,
        latency_ms_p50_1thread=measured.latency_ms_p50,
        samples_ms=measured.samples_ms,
        peak_rss_bytes=measured.peak_rss_bytes,
        device=measured.device if on_gpu else f"cpu: {measured.device}",
        memory_kind="GPU memory" if on_gpu else "resident memory",
    )


def _students(root: Path, request: Mapping[str, Any]) -> Iterator[tuple[str, StudentRow]]:
    for folder in sorted((root / "students").glob("*")):
        control = root / "controls" / folder.name
        result = TrainingResult.load(folder)
        distillation = options_from(Distillation, request["recipe"]["distillation"], where="distillation")
        yield (
            folder.name,
            StudentRow(
                accuracy=result.accuracy,
                control_accuracy=TrainingResult.load(control).accuracy if control.exists() else None,
                shift_accuracy=result.shift_accuracy,
                parameters=result.parameters,
                distillation=distillation.in_words(),
            ),
        )


def _artifacts(
    root: Path, one_thread: Mapping[str, Measurement], all_threads: Mapping[str, Measurement]
) -> Iterator[ArtifactRow]:
    for record in sorted((root / "artifacts").glob("*/*/*/artifact.json")):
        artifact = Artifact.load(record.parent)
        parity_path = root / "parity" / artifact.model / artifact.format / f"{artifact.scheme}.json"
        if not parity_path.exists():
            continue
        parity = ParityReport.load(parity_path)
        stem = f"{artifact.model}.{artifact.format}.{artifact.scheme}"
        yield _row(artifact, parity, root, one_thread.get(stem), all_threads.get(stem))


def _row(
    artifact: Artifact, parity: ParityReport, root: Path, single: Measurement | None, many: Measurement | None
) -> ArtifactRow:
    return ArtifactRow(
        student=artifact.model,
        format=artifact.format,
        scheme=artifact.scheme,
        path=artifact.path.relative_to(root).as_posix(),
        sha256=artifact.sha256,
        size_bytes=artifact.size_bytes,
        accuracy=parity.accuracy,
        agreement=parity.agreement,
        max_abs_error=parity.max_abs_error,
        sqnr_db=parity.sqnr_db,
        passed=parity.passed,
        failures=parity.failures,
        verified_by=parity.verified_by,
        note=artifact.note,
        engine=single.engine if single else None,
        load_ms=single.load_ms if single else None,
        first_inference_ms=single.first_inference_ms if single else None,
        latency_ms_p50_1thread=single.latency_ms_p50 if single else None,
        latency_ms_p90_1thread=single.latency_ms_p90 if single else None,
        latency_ms_p99_1thread=single.latency_ms_p99 if single else None,
        latency_ms_p50_all_threads=many.latency_ms_p50 if many else None,
        latency_ms_p90_all_threads=many.latency_ms_p90 if many else None,
        latency_ms_p99_all_threads=many.latency_ms_p99 if many else None,
        peak_rss_bytes=single.peak_rss_bytes if single else None,
        samples_ms=single.samples_ms if single else (),
        tolerance=parity.tolerance,
        cases=parity.cases,
        batch=parity.batch,
    )


def _about(root: Path) -> dict[str, str]:
    """What the first model's capture says of its cases."""
    found = sorted((root / "models").glob("*/about.json"))
    return _json(found[0]) if found else {}


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}
