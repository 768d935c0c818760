"""What an artifact must keep to, by its scheme."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """What an artifact must keep to. None: reported, not judged."""

    max_abs_error: float | None = None
    sqnr_db: float | None = None
    accuracy_drop: float | None = None  # fraction of the test set, against the PyTorch model
    token_agreement: float | None = None  # fraction of a decoder's greedy tokens


# Bounds on logits of order 1: float32 differs by summation order only; float16 by its 11-bit mantissa; integer schemes are
# judged by the task, with a floor on the noise that a wrong scale or a lost layer would break.
TOLERANCES: Mapping[str, Tolerance] = {
    "fp32": Tolerance(max_abs_error=1e-4, accuracy_drop=0.0, token_agreement=1.0),
    "fp16": Tolerance(max_abs_error=1e-2, accuracy_drop=0.002),
}
INTEGER_TOLERANCE = Tolerance(sqnr_db=15.0, accuracy_drop=0.005)


def tolerance_for(scheme: str) -> Tolerance:
    """The default tolerance of a scheme."""
    return TOLERANCES.get(scheme, INTEGER_TOLERANCE)
