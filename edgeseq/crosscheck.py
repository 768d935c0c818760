"""One model file checked without PyTorch: against another file of the same model, or alone, on random inputs.

For CI on machines without Apple hardware, and for files that came from elsewhere. What a run folder's parity report proves is
stronger, since PyTorch itself answered there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from edgeseq import inspection
from edgeseq.devices import runtimes
from edgeseq.devices.runtimes import Session
from edgeseq.errors import EdgeseqError, RequestError, UnavailableError
from edgeseq.inspection.random_inputs import Trial, trials
from edgeseq.signature import Signature
from edgeseq.verify import finite, sqnr_db, tolerance_for

SECOND_ENGINES = {"tflite": "tensorflow"}


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model file in an engine."""

    name: str  # of the file
    scheme: str
    engine: str
    signatures: tuple[Signature, ...]
    table_rows: Mapping[str, int]
    session: Session


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far two engines, files or precisions are from each other, over all trials."""

    between: tuple[str, str]
    max_abs_error: float  # NaN: an output is missing, has another shape, or is not finite in one of them
    largest: float  # absolute value of the second's outputs
    sqnr_db: float
    limit: str  # what it must keep to; empty: it is told, not judged
    passed: bool


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was run and what came out."""

    file: str
    engine: str
    trials: tuple[Mapping[str, tuple[int, ...]], ...]  # shapes of the inputs of each
    outputs: Mapping[str, str]  # name -> type and shape in the last trial
    not_finite: int  # values of all outputs that are NaN or infinite
    differences: tuple[Difference, ...]

    @property
    def failures(self) -> tuple[str, ...]:
        """What is wrong, each with both numbers."""
        found = [f"{self.not_finite} values are not finite"] if self.not_finite else []
        return (*found, *(_words(d) for d in self.differences if not d.passed))

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
    """Run a model file on random inputs at several lengths and batches, and compare.

    Args:
        file: The file to check.
        against: Another file of the same model, in any format and scheme.
        ranges: Integer input -> lowest and highest value, where the guess from the file would not do.
        tolerance: The largest error, relative to the largest output if that is above 1; None: by the weaker scheme.
        second_engine: Also run the file in a second engine of its format.

    Raises:
        RequestError: The files do not take the same inputs.
        UnavailableError: No engine runs a file here.
    """
    file, _ = inspection.artifact_file(file)
    mine = load(file)
    other = load(against) if against else None
    if other:
        _require_same_inputs(mine, other)
    signatures = [loaded.signatures for loaded in (mine, other) if loaded]
    rows = {**(other.table_rows if other else {}), **mine.table_rows}
    fed = trials([s[0] for s in signatures], rows, ranges or {})
    results = run(mine, fed)
    differences = []
    if other:
        differences.append(
            difference(
                (mine, results), (other, run(other, fed)), tolerance=tolerance, schemes=(mine.scheme, other.scheme)
            )
        )
    if second_engine:
        second = load(file, engine=_second_engine(file))
        differences.append(
            difference((mine, results), (second, run(second, fed)), tolerance=tolerance, schemes=("fp32",) * 2)
        )
    if inspection.format_of(file) == "coreml":
        differences.append(precision_difference(file, mine.signatures, fed))
    return Report(
        file=str(file),
        engine=mine.engine,
        trials=tuple({key: value.shape for key, value in trial.inputs.items()} for trial in fed),
        outputs={key: f"{value.dtype}{list(value.shape)}" for key, value in results[-1].items()},
        not_finite=sum(
            int((~np.isfinite(v)).sum()) for result in results for v in result.values() if v.dtype.kind == "f"
        ),
        differences=tuple(differences),
    )


def load(file: Path, *, engine: str | None = None) -> Loaded:
    """The file in the engine that runs its format here, or in that of the name."""
    path, artifact = inspection.artifact_file(file)
    contents = inspection.read(path)
    runtime = runtimes.get(engine) if engine else runtimes.for_format(inspection.format_of(path))
    return Loaded(
        name=path.name,
        scheme=artifact.scheme if artifact else _guessed_scheme(contents),
        engine=runtime.verified_by,
        signatures=contents.signatures,
        table_rows=contents.table_rows,
        session=runtime.load(path, contents.signatures, threads=1),
    )


def run(loaded: Loaded, fed: Sequence[Trial]) -> list[dict[str, np.ndarray]]:
    """Outputs of the first signature for each trial, in the order of its signature.

    Raises:
        RequestError: The engine refuses an input that the file's own description allows.
    """
    signature = loaded.signatures[0]
    results = []
    for trial in fed:
        inputs = {spec.name: trial.inputs[spec.name].astype(spec.dtype) for spec in signature.inputs}
        try:
            outputs = loaded.session.run(inputs, signature.name)
        except EdgeseqError:
            raise
        except Exception as error:  # engines have types of their own
            shapes = ", ".join(f"{key} {list(value.shape)}" for key, value in inputs.items())
            reason = str(error).strip().splitlines()[0]
            raise RequestError(
                f"{loaded.engine} refuses '{loaded.name}' with {shapes}: {reason}; if a value is the reason, name its range "
                "by --range INPUT=LOW:HIGH"
            ) from error
        results.append({spec.name: outputs[spec.name] for spec in signature.outputs})
    return results


Run = tuple[Loaded, list[dict[str, np.ndarray]]]


def difference(a: Run, b: Run, *, tolerance: float | None, schemes: tuple[str, str]) -> Difference:
    """Compare by the outputs' names where these are the same, else by their order."""
    values, others = _paired(a[1], b[1])
    noise = values - others
    error, largest = float(np.abs(noise).max(initial=0.0)), float(np.abs(others).max(initial=0.0))
    noise_db = sqnr_db(others, noise)
    bound = [tolerance_for(scheme) for scheme in schemes]
    most = tolerance
    if most is None and all(t.max_abs_error is not None for t in bound):
        most = max(cast(float, t.max_abs_error) for t in bound)
    if most is not None:
        limit, passed = f"max abs error ≤ {most:.0e} × {max(largest, 1.0):.3g}", error <= most * max(largest, 1.0)
    else:
        least = min(t.sqnr_db for t in bound if t.sqnr_db is not None)
        limit, passed = f"SQNR ≥ {least:.0f} dB", noise_db >= least
    names = (f"{a[0].name} ({a[0].engine})", f"{b[0].name} ({b[0].engine})")
    return Difference(
        between=names, max_abs_error=error, largest=largest, sqnr_db=noise_db, limit=limit, passed=bool(passed)
    )


def precision_difference(file: Path, signatures: tuple[Signature, ...], fed: Sequence[Trial]) -> Difference:
    """What float16 arithmetic costs a Core ML program, every operator's result rounded as on the Neural Engine."""
    from edgeseq.devices.runtimes.coreml_evaluator import RUNTIME

    results = {}
    for precision in ("float16", "float32"):
        session = RUNTIME.load_at(file, signatures, threads=1, precision=cast(Any, precision))
        evaluated = Loaded(
            name=f"{precision} arithmetic",
            scheme="",
            engine="evaluated",
            signatures=signatures,
            table_rows={},
            session=session,
        )
        results[precision] = (evaluated, run(evaluated, fed))
    found = difference(results["float16"], results["float32"], tolerance=np.inf, schemes=("fp16", "fp16"))
    return Difference(**{**asdict(found), "limit": "", "passed": True})


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


def _paired(a: list[dict[str, np.ndarray]], b: list[dict[str, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """All values of both in one order; NaN where an output's shape differs."""
    values, others = [np.zeros(0)], [np.zeros(0)]
    for mine, yours in zip(a, b, strict=True):
        by_name = set(mine) == set(yours)
        for i, (name, value) in enumerate(mine.items()):
            other = yours[name] if by_name else list(yours.values())[i] if i < len(yours) else np.zeros(0)
            same_shape = value.shape == other.shape
            values.append(value.astype(np.float64).ravel())
            others.append(other.astype(np.float64).ravel() if same_shape else np.full(value.size, np.nan))
    return np.concatenate(values), np.concatenate(others)


def _require_same_inputs(a: Loaded, b: Loaded) -> None:
    mine, yours = (sorted(spec.name for spec in loaded.signatures[0].inputs) for loaded in (a, b))
    if mine != yours:
        raise RequestError(f"'{a.name}' takes inputs {mine}, but '{b.name}' takes {yours}: they are not one model")


def _guessed_scheme(contents: inspection.Contents) -> str:
    """By the types of the weights, for a file without a record."""
    sizes: dict[str, int] = {}
    for stored in contents.stored:
        sizes[stored.dtype] = sizes.get(stored.dtype, 0) + stored.size_bytes
    floats = sizes.get("float32", 0)
    if any(sizes.get(dtype, 0) > floats for dtype in ("int8", "uint8", "int4", "uint4")):
        return "dynamic_wi8_afp32"
    return "fp16" if sizes.get("float16", 0) > floats else "fp32"


def _second_engine(file: Path) -> str:
    format = inspection.format_of(file)
    if format not in SECOND_ENGINES:
        raise UnavailableError(
            f"format '{format}' has one engine here; a second one is known for {', '.join(SECOND_ENGINES)}"
        )
    return SECOND_ENGINES[format]


def _words(found: Difference) -> str:
    a, b = found.between
    return f"{a} and {b} differ by {found.max_abs_error:.2e}, SQNR {found.sqnr_db:.1f} dB (allowed: {found.limit})"
