"""One model file checked without PyTorch: against another file of the same model, or alone, on random inputs.

For CI on machines without Apple hardware, and for files that came from elsewhere. What a run folder's parity report proves is
stronger, since PyTorch itself answered there. Every signature is run, call by call at several lengths and batches; where it
has states, also as sequences whose states carry on from chunk to chunk.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from edgeseq import inspection, lookup
from edgeseq.agreement import Check, Counterpart, checked
from edgeseq.devices import runtimes
from edgeseq.errors import RequestError
from edgeseq.inspection.random_inputs import Trial, trials
from edgeseq.loaded import Loaded, load
from edgeseq.signature import Signature
from edgeseq.verify import finite


@dataclass(frozen=True, kw_only=True)
class Report:
    """Every signature that was run."""

    file: str
    engine: str
    checks: tuple[Check, ...]
    not_run: tuple[str, ...]  # signatures of the file that the other one lacks

    @property
    def failures(self) -> tuple[str, ...]:
        """What is wrong, each with both numbers."""
        found = []
        for check in self.checks:
            where = f"{check.signature}: " if len(self.checks) > 1 else ""
            found += [f"{where}{check.not_finite} values are not finite"] if check.not_finite else []
            found += [f"{where}{d.words()}" for d in check.differences if not d.passed]
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        plain = {**asdict(self), "passed": not self.failures, "failures": list(self.failures)}
        return cast(dict[str, Any], finite(plain))


def check(
    file: Path,
    against: Path | None = None,
    *,
    ranges: Mapping[str, tuple[int, int]] | None = None,
    tolerance: float | None = None,
    second_engine: bool = False,
) -> Report:
    """Run a model file's signatures on random inputs at several lengths and batches, and compare.

    Args:
        file: The file to check.
        against: Another file of the same model, in any format and scheme.
        ranges: Integer input -> lowest and highest value, where the guess from the file would not do.
        tolerance: The largest error, relative to the largest output if that is above 1; None: by the weaker scheme.
        second_engine: Also run the file in a second engine of its format.

    Raises:
        RequestError: The files have no signature in common, or a range is of no input.
        UnavailableError: No engine runs a file here.
    """
    mine = load(file)
    other = load(against) if against else None
    second = load(file, runtimes.second(inspection.format_of(mine.path))) if second_engine else None
    _require_inputs(mine, ranges or {})
    partners = {s.name: counterpart(s, other) for s in mine.signatures} if other else {}
    names = [s.name for s in mine.signatures if other is None or partners[s.name]]
    if other and not names:
        raise _not_one_model(mine, other)
    checks = []
    for name in names:
        found = []
        if other and (partner := partners[name]):
            found.append(Counterpart(loaded=other, signature=partner.name, schemes=(mine.scheme, other.scheme)))
        if second:
            found.append(Counterpart(loaded=second, signature=name, schemes=("fp32", "fp32")))
        checks.append(checked(mine, name, found, _fed(mine, name, found, ranges or {}), tolerance))
    not_run = tuple(s.name for s in mine.signatures if s.name not in names)
    return Report(file=str(mine.path), engine=mine.engine, checks=tuple(checks), not_run=not_run)


def _fed(
    mine: Loaded, name: str, others: Sequence[Counterpart], ranges: Mapping[str, tuple[int, int]]
) -> Sequence[Trial]:
    """Random inputs that suit the signature and its counterparts."""
    signatures = [mine.signature(name), *(other.loaded.signature(other.signature) for other in others)]
    rows = {key: count for other in others for key, count in other.loaded.table_rows.items()} | dict(mine.table_rows)
    return trials(signatures, rows, ranges)


def counterpart(signature: Signature, other: Loaded) -> Signature | None:
    """The other file's signature of that name, or its only one; None: it has none with the same inputs.

    Files without a record call their only program `forward` or `main`.
    """
    by_name = [s for s in other.signatures if s.name == signature.name]
    candidates = by_name or (other.signatures if len(other.signatures) == 1 else ())
    return next((s for s in candidates if _shape(s) == _shape(signature)), None)


def _shape(signature: Signature) -> tuple[set[str], int]:
    """What two signatures of one model share: their inputs, and how many outputs there are."""
    return {spec.name for spec in signature.inputs}, len(signature.outputs)


def parsed_ranges(texts: Sequence[str]) -> dict[str, tuple[int, int]]:
    """From `tokens=0:999` to a mapping."""
    found = {}
    for text in texts:
        name, _, span = text.rpartition("=")
        low, _, high = span.partition(":")
        try:
            found[name] = (int(low), int(high))
        except ValueError as error:
            raise RequestError(f"--range '{text}' is no range; write INPUT=LOW:HIGH, such as tokens=0:999") from error
        if not name or found[name][0] > found[name][1]:
            raise RequestError(f"--range '{text}' is no range; write INPUT=LOW:HIGH with LOW at most HIGH")
    return found


def _require_inputs(loaded: Loaded, names: Iterable[str]) -> None:
    known = {spec.name for signature in loaded.signatures for spec in signature.inputs}
    for name in names:
        if name not in known:
            raise lookup.unknown("input", name, known)


def _not_one_model(a: Loaded, b: Loaded) -> RequestError:
    """Why no signature of one has a counterpart in the other."""
    first, second = a.signatures[0], b.signatures[0]
    for kind in ("inputs", "outputs"):
        mine, yours = ([spec.name for spec in getattr(signature, kind)] for signature in (first, second))
        if (sorted(mine) != sorted(yours)) if kind == "inputs" else len(mine) != len(yours):
            verb = "takes" if kind == "inputs" else "gives"
            return RequestError(
                f"'{a.name}' {verb} {kind} {sorted(mine)}, but '{b.name}' {verb} {sorted(yours)}: they are not one model"
            )
    mine, yours = ([signature.name for signature in loaded.signatures] for loaded in (a, b))
    return RequestError(f"'{a.name}' has the signatures {mine}, but '{b.name}' has {yours}: none is in both")
