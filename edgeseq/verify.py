"""Verification: an artifact is run by an engine and compared with what PyTorch computed.

Judged by three numbers, since none suffices alone: the largest absolute error, the signal-to-quantization-noise ratio,
and the task's own metric on the whole test set.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from edgeseq.artifact import Artifact
from edgeseq.errors import RequestError
from edgeseq.parity import Called, ParityCase, Streams, cells, ratio_db
from edgeseq.reference import Reference
from edgeseq.signature import Run
from edgeseq.stream import Stream
from edgeseq.tolerance import Tolerance, tolerance_for


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """How close one artifact is to the PyTorch model it came from."""

    artifact_sha256: str
    format: str
    scheme: str
    verified_by: str
    cases: tuple[ParityCase, ...]
    max_abs_error: float  # of the worst case
    sqnr_db: float  # over all calls that were compared whole
    accuracy: float | None  # of the artifact on the whole test set; None: the model has no labelled test set
    reference_accuracy: float | None
    agreement: float | None  # fraction of the test set on which artifact and reference choose the same class
    tolerance: Tolerance
    batch: int | None = None  # of the file, whose engine takes a larger one row by row; None: any

    @property
    def failures(self) -> tuple[str, ...]:
        """What is out of tolerance, each with both numbers."""
        limit = self.tolerance
        found = _listed(self.cases, limit)
        if limit.accuracy_drop is not None and self.accuracy is not None and self.reference_accuracy is not None:
            drop = self.reference_accuracy - self.accuracy
            if not drop <= limit.accuracy_drop + 1e-9:
                found.append(f"accuracy {self.accuracy:.4f} is {drop:.4f} under {self.reference_accuracy:.4f}")
        return tuple(found)

    @property
    def passed(self) -> bool:
        """Whether everything is within tolerance."""
        return not self.failures

    def save(self, path: Path) -> None:
        """Write as JSON; infinities and NaN as words."""
        data = asdict(self) | {"passed": self.passed, "failures": list(self.failures)}
        path.write_text(json.dumps(finite(data), indent=1))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read back what `save` wrote."""
        data = json.loads(path.read_text())
        del data["passed"], data["failures"]
        cases = tuple(_cell(c) for c in data["cases"])
        numbers = {key: float(data[key]) for key in ("max_abs_error", "sqnr_db")}
        return cls(**{**data, **numbers, "cases": cases, "tolerance": Tolerance(**data["tolerance"])})


def verify(
    artifact: Artifact,
    reference: Reference,
    run: Run,
    *,
    verified_by: str,
    streams: Streams | None = None,
    batch: int | None = None,
) -> ParityReport:
    """Run every case through `run` and compare.

    Args:
        artifact: What is verified.
        reference: What PyTorch computed.
        run: How the artifact is called.
        verified_by: The engine, in words.
        streams: How a sequence with states begins in it; None: the host keeps the states.
        batch: What the file's batch is fixed to; None: any.

    Raises:
        RequestError: The reference has neither parity nor task cases, so that nothing would be proven.
    """
    if not reference.of_kind("parity", "chunked", "greedy", "task"):
        raise RequestError(
            f"the reference of '{reference.model}' has no cases: nothing to compare '{artifact.path}' with"
        )
    called = Called(
        run=run,
        streams=streams or (lambda sizes: Stream(run, artifact.signatures, sizes)),
        signatures={signature.name: signature for signature in artifact.signatures},
    )
    cases = cells(reference.of_kind("parity", "chunked", "greedy"), called)
    whole = [cell for cell in cases if cell.kind == "parity"]
    task = [(case, run(case.inputs, case.signature)) for case in reference.of_kind("task")]
    errors = [cell.max_abs_error for cell in cases if cell.max_abs_error is not None]
    return ParityReport(
        artifact_sha256=artifact.sha256,
        format=artifact.format,
        scheme=artifact.scheme,
        verified_by=verified_by,
        cases=cases,
        max_abs_error=float(np.max(errors, initial=0.0)),
        sqnr_db=ratio_db(sum(c.signal_power for c in whole), sum(c.noise_power for c in whole)),
        accuracy=_accuracy([(_classes(outputs), case.labels) for case, outputs in task]),
        reference_accuracy=_accuracy([(_classes(case.outputs), case.labels) for case, _ in task]),
        agreement=_accuracy([(_classes(outputs), _classes(case.outputs)) for case, outputs in task]),
        tolerance=_tolerance_of(artifact),
        batch=batch,
    )


def _tolerance_of(artifact: Artifact) -> Tolerance:
    """That of its scheme, but float16's where an engine keeps the states of a float32 program in that type."""
    kept = {state.kept_as for signature in artifact.signatures for state in signature.states}
    return tolerance_for("fp16" if artifact.scheme == "fp32" and "float16" in kept else artifact.scheme)


def _listed(cases: Sequence[ParityCase], limit: Tolerance) -> list[str]:
    """The first case that is out of tolerance, and how many others are."""
    failed = [(case.failure(limit), case) for case in cases if case.failure(limit)]
    if not failed:
        return []
    others = f" and {len(failed) - 1} more of {len(cases)} cases" if len(failed) > 1 else ""
    failure, case = failed[0]
    return [f"{failure} at {case.title}{others}"]


def _classes(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The class of the first output's highest logit: (B, C) -> (B,)."""
    return next(iter(outputs.values())).argmax(-1)


def _accuracy(pairs: list[tuple[np.ndarray, Any]]) -> float | None:
    if not pairs:
        return None
    hits = sum(int((predicted == label).sum()) for predicted, label in pairs)
    return hits / sum(len(predicted) for predicted, _ in pairs)


def finite(value: Any) -> Any:
    """Plain data with infinities and NaN as words, which JSON has no numbers for."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, list | tuple) else value


def _cell(data: Mapping[str, Any]) -> ParityCase:
    """A case as it was written."""
    words = ("max_abs_error", "relative_error", "sqnr_db", "agreement", "noise_power", "signal_power")
    numbers = {key: None if data[key] is None else float(data[key]) for key in words}
    shapes = {key: tuple(shape) for key, shape in data["shapes"].items()}
    return ParityCase(
        **{
            **data,
            **numbers,
            "shapes": shapes,
            "chunks": tuple(data["chunks"]),
            "wrong_types": tuple(data["wrong_types"]),
        }
    )
