"""Verification: an artifact is run by an engine and compared with what PyTorch computed.

Judged by three numbers, since none suffices alone: the largest absolute error, the signal-to-quantization-noise ratio,
and the task's own metric on the whole test set.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from edgeseq.artifact import Artifact
from edgeseq.errors import RequestError
from edgeseq.reference import Case, Reference
from edgeseq.signature import Run


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """What an artifact must keep to. None: reported, not judged."""

    max_abs_error: float | None = None
    sqnr_db: float | None = None
    accuracy_drop: float | None = None  # fraction of the test set, against the PyTorch model


# Bounds on logits of order 1: float32 differs by summation order only; float16 by its 11-bit mantissa; integer schemes are
# judged by the task, with a floor on the noise that a wrong scale or a lost layer would break.
TOLERANCES: Mapping[str, Tolerance] = {
    "fp32": Tolerance(max_abs_error=1e-4, accuracy_drop=0.0),
    "fp16": Tolerance(max_abs_error=1e-2, accuracy_drop=0.002),
}
INTEGER_TOLERANCE = Tolerance(sqnr_db=15.0, accuracy_drop=0.005)


@dataclass(frozen=True, kw_only=True)
class ParityCase:
    """One parity case and its errors."""

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    max_abs_error: float
    sqnr_db: float  # infinite where both agree to the bit


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """How close one artifact is to the PyTorch model it came from."""

    artifact_sha256: str
    format: str
    scheme: str
    verified_by: str
    cases: tuple[ParityCase, ...]
    max_abs_error: float
    sqnr_db: float
    accuracy: float | None  # of the artifact on the whole test set; None: the model has no labelled test set
    reference_accuracy: float | None
    agreement: float | None  # fraction of the test set on which artifact and reference choose the same class
    tolerance: Tolerance

    @property
    def failures(self) -> tuple[str, ...]:
        """What is out of tolerance, each with both numbers."""
        found = []
        limit = self.tolerance
        if limit.max_abs_error is not None and not self.max_abs_error <= limit.max_abs_error:
            found.append(f"max abs error {self.max_abs_error:.2e} > {limit.max_abs_error:.0e}")
        if limit.sqnr_db is not None and not self.sqnr_db >= limit.sqnr_db:
            found.append(f"SQNR {self.sqnr_db:.1f} dB < {limit.sqnr_db:.0f} dB")
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
        cases = tuple(
            ParityCase(
                name=c["name"],
                shapes={k: tuple(v) for k, v in c["shapes"].items()},
                max_abs_error=_number(c["max_abs_error"]),
                sqnr_db=_number(c["sqnr_db"]),
            )
            for c in data["cases"]
        )
        numbers = {key: _number(data[key]) for key in ("max_abs_error", "sqnr_db")}
        return cls(**{**data, **numbers, "cases": cases, "tolerance": Tolerance(**data["tolerance"])})


def tolerance_for(scheme: str) -> Tolerance:
    """The default tolerance of a scheme."""
    return TOLERANCES.get(scheme, INTEGER_TOLERANCE)


def _tolerance_of(artifact: Artifact) -> Tolerance:
    """That of its scheme, but float16's where an engine keeps the states of a float32 program in that type."""
    kept = {state.kept_as for signature in artifact.signatures for state in signature.states}
    return tolerance_for("fp16" if artifact.scheme == "fp32" and "float16" in kept else artifact.scheme)


def verify(artifact: Artifact, reference: Reference, run: Run, *, verified_by: str) -> ParityReport:
    """Run every parity and task case through `run` and compare.

    Raises:
        RequestError: The reference has neither parity nor task cases, so that nothing would be proven.
    """
    if not reference.of_kind("parity") and not reference.of_kind("task"):
        raise RequestError(
            f"the reference of '{reference.model}' has no cases: nothing to compare '{artifact.path}' with"
        )
    parity = [(case, run(case.inputs, case.signature)) for case in reference.of_kind("parity")]
    cases = tuple(_compare(case, outputs) for case, outputs in parity)
    pooled_signal, pooled_noise = _pooled(parity)
    task = [(case, run(case.inputs, case.signature)) for case in reference.of_kind("task")]
    return ParityReport(
        artifact_sha256=artifact.sha256,
        format=artifact.format,
        scheme=artifact.scheme,
        verified_by=verified_by,
        cases=cases,
        max_abs_error=float(np.max([case.max_abs_error for case in cases], initial=0.0)),
        sqnr_db=sqnr_db(pooled_signal, pooled_noise),
        accuracy=_accuracy([(_classes(outputs), case.labels) for case, outputs in task]),
        reference_accuracy=_accuracy([(_classes(case.outputs), case.labels) for case, _ in task]),
        agreement=_accuracy([(_classes(outputs), _classes(case.outputs)) for case, outputs in task]),
        tolerance=_tolerance_of(artifact),
    )


def sqnr_db(signal: np.ndarray, noise: np.ndarray) -> float:
    """10 log10 of the power of the signal over that of the noise, in decibels."""
    noise_power = float(np.square(noise, dtype=np.float64).sum())
    signal_power = float(np.square(signal, dtype=np.float64).sum())
    if noise_power == 0:
        return math.inf
    ratio = signal_power / noise_power
    return -math.inf if ratio == 0 else 10 * math.log10(ratio)


def _compare(case: Case, outputs: dict[str, np.ndarray]) -> ParityCase:
    signal, noise = _pooled([(case, outputs)])
    return ParityCase(
        name=case.name,
        shapes={key: value.shape for key, value in case.inputs.items()},
        max_abs_error=float(np.abs(noise).max(initial=0.0)),
        sqnr_db=sqnr_db(signal, noise),
    )


def _pooled(pairs: list[tuple[Case, dict[str, np.ndarray]]]) -> tuple[np.ndarray, np.ndarray]:
    """Every expected value, and its difference from the actual one; NaN where an output is missing or of another shape."""
    signal, noise = [np.zeros(0)], [np.zeros(0)]
    for case, outputs in pairs:
        for key, expected in case.outputs.items():
            actual = outputs.get(key, np.zeros(0))
            same_shape = actual.shape == expected.shape
            difference = actual - expected.astype(np.float64) if same_shape else np.full(expected.shape, np.nan)
            signal.append(expected.ravel())
            noise.append(difference.ravel())
    return np.concatenate(signal), np.concatenate(noise)


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


def _number(value: float | str) -> float:
    return float(value)
