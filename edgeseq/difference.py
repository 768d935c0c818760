"""How far the outputs of two runs are from each other, where neither is the reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeseq.parity import sqnr_db
from edgeseq.tolerance import tolerance_for

Outputs = Sequence[Mapping[str, np.ndarray]]  # of each trial, by name


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far two engines, files or precisions are from each other, over all trials."""

    between: tuple[str, str]
    max_abs_error: float  # NaN: an output has another shape, or is not finite in one of them
    largest: float  # absolute value of the second's outputs
    sqnr_db: float
    limit: str = ""  # what it must keep to; empty: it is told, not judged
    passed: bool = True

    def words(self) -> str:
        """Both numbers and the limit."""
        a, b = self.between
        return f"{a} and {b} differ by {self.max_abs_error:.2e}, SQNR {self.sqnr_db:.1f} dB (allowed: {self.limit})"


def measured(between: tuple[str, str], a: Outputs, b: Outputs) -> Difference:
    """Compared by the outputs' names where these are the same, else by their order."""
    values, others = _paired(a, b)
    noise = values - others
    return Difference(
        between=between,
        max_abs_error=float(np.abs(noise).max(initial=0.0)),
        largest=float(np.abs(others).max(initial=0.0)),
        sqnr_db=sqnr_db(others, noise),
    )


def judged(found: Difference, schemes: tuple[str, str], tolerance: float | None) -> Difference:
    """By the tolerance, relative to the largest output if that is above 1; None: by that of the weaker scheme."""
    bounds = [tolerance_for(scheme) for scheme in schemes]
    errors = [bound.max_abs_error for bound in bounds if bound.max_abs_error is not None]
    if tolerance is not None or len(errors) == len(bounds):
        most, scale = max(errors) if tolerance is None else tolerance, max(found.largest, 1.0)
        limit, passed = f"max abs error ≤ {most:.0e} × {scale:.3g}", found.max_abs_error <= most * scale
    else:
        least = min(bound.sqnr_db for bound in bounds if bound.sqnr_db is not None)
        limit, passed = f"SQNR ≥ {least:.0f} dB", found.sqnr_db >= least
    return Difference(
        between=found.between,
        max_abs_error=found.max_abs_error,
        largest=found.largest,
        sqnr_db=found.sqnr_db,
        limit=limit,
        passed=passed,
    )


def _paired(a: Outputs, b: Outputs) -> tuple[np.ndarray, np.ndarray]:
    """All values of both in one order; NaN where an output's shape differs."""
    values, others = [np.zeros(0)], [np.zeros(0)]
    for mine, yours in zip(a, b, strict=True):
        keys = mine if set(mine) == set(yours) else yours
        for value, other in zip(mine.values(), (yours[key] for key in keys), strict=True):
            same_shape = value.shape == other.shape
            values.append(value.astype(np.float64).ravel())
            others.append(other.astype(np.float64).ravel() if same_shape else np.full(value.size, np.nan))
    return np.concatenate(values), np.concatenate(others)
