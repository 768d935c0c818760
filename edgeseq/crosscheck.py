"""One model file checked without PyTorch: against another file of the same model, or alone, on random inputs.

For CI on machines without Apple hardware, and for files that came from elsewhere. What a run folder's parity report proves is
stronger, since PyTorch itself answered there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from edgeseq import inspection, lookup
from edgeseq.devices import runtimes
from edgeseq.devices.runtimes import Runtime, Session
from edgeseq.difference import Difference, judged, measured
from edgeseq.errors import EdgeseqError, RequestError
from edgeseq.inspection.random_inputs import Trial, trials
from edgeseq.signature import Signature
from edgeseq.verify import finite

if TYPE_CHECKING:
    from edgeseq.devices.runtimes._mil.precision import Precision


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model file in an engine."""

    name: str  # of the file
    scheme: str
    engine: str
    signatures: tuple[Signature, ...]
    table_rows: Mapping[str, int]
    session: Session

    @property
    def title(self) -> str:
        """The file and what runs it."""
        return f"{self.name} ({self.engine})"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was run and what came out."""

    file: str
    engine: str
    signature: str  # the one that was run
    not_run: tuple[str, ...]  # the other signatures of the file
    trials: tuple[Mapping[str, tuple[int, ...]], ...]  # shapes of the inputs of each
    outputs: Mapping[str, str]  # name -> type and shape in the last trial
    not_finite: int  # values of all outputs that are NaN or infinite
    differences: tuple[Difference, ...]

    @property
    def failures(self) -> tuple[str, ...]:
        """What is wrong, each with both numbers."""
        found = [f"{self.not_finite} values are not finite"] if self.not_finite else []
        return (*found, *(d.words() for d in self.differences if not d.passed))

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
    """Run a model file's first signature on random inputs at several lengths and batches, and compare.

    Args:
        file: The file to check.
        against: Another file of the same model, in any format and scheme.
        ranges: Integer input -> lowest and highest value, where the guess from the file would not do.
        tolerance: The largest error, relative to the largest output if that is above 1; None: by the weaker scheme.
        second_engine: Also run the file in a second engine of its format.

    Raises:
        RequestError: The files do not take the same inputs, or a range is of none of them.
        UnavailableError: No engine runs a file here.
    """
    file, _ = inspection.artifact_file(file)
    mine = load(file)
    other = load(against) if against else None
    if other:
        _require_same_inputs(mine, other)
    _require_inputs(mine, ranges or {})
    signatures = [loaded.signatures for loaded in (mine, other) if loaded]
    rows = {**(other.table_rows if other else {}), **mine.table_rows}
    fed = trials([s[0] for s in signatures], rows, ranges or {})
    results = run(mine, fed)
    differences = []
    if other:
        _require_as_many_outputs(mine, other)
        found = measured((mine.title, other.title), results, run(other, fed))
        differences.append(judged(found, (mine.scheme, other.scheme), tolerance))
    if second_engine:
        second = load(file, runtimes.second(inspection.format_of(file)))
        found = measured((mine.title, second.title), results, run(second, fed))
        differences.append(judged(found, ("fp32", "fp32"), tolerance))
    if inspection.format_of(file) == "coreml":
        differences.append(precision_difference(file, mine.signatures, fed))
    return Report(
        file=str(file),
        engine=mine.engine,
        signature=mine.signatures[0].name,
        not_run=tuple(signature.name for signature in mine.signatures[1:]),
        trials=tuple({key: value.shape for key, value in trial.inputs.items()} for trial in fed),
        outputs={key: f"{value.dtype}{list(value.shape)}" for key, value in results[-1].items()},
        not_finite=sum(
            int((~np.isfinite(v)).sum()) for result in results for v in result.values() if v.dtype.kind == "f"
        ),
        differences=tuple(differences),
    )


def load(file: Path, runtime: Runtime | None = None) -> Loaded:
    """The file in an engine; None: the one that runs its format here.

    Raises:
        RequestError: The file says by no signature what it is fed.
    """
    path, artifact = inspection.artifact_file(file)
    contents = inspection.read(path)
    if not contents.signatures:
        raise RequestError(f"'{path}' has no signature, which names its inputs; write it again with one")
    runtime = runtime or runtimes.for_format(inspection.format_of(path))
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
        try:
            inputs = {spec.name: trial.inputs[spec.name].astype(spec.dtype) for spec in signature.inputs}
            outputs = loaded.session.run(inputs, signature.name)
        except EdgeseqError:
            raise
        except Exception as error:  # engines have types of their own
            shapes = ", ".join(f"{key} {list(value.shape)}" for key, value in trial.inputs.items())
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise RequestError(
                f"{loaded.engine} refuses '{loaded.name}' with {shapes}: {reason}; if a value is the reason, name its range "
                "by --range INPUT=LOW:HIGH"
            ) from error
        results.append({spec.name: outputs[spec.name] for spec in signature.outputs})
    return results


def precision_difference(file: Path, signatures: tuple[Signature, ...], fed: Sequence[Trial]) -> Difference:
    """What float16 arithmetic costs a Core ML program, every operator's result rounded as on the Neural Engine."""
    from edgeseq.devices.runtimes.coreml_evaluator import RUNTIME

    def evaluated(precision: "Precision") -> list[dict[str, np.ndarray]]:
        session = RUNTIME.load_at(file, signatures, threads=1, precision=precision)
        name, engine = f"{precision} arithmetic", "evaluated"
        loaded = Loaded(name=name, scheme="", engine=engine, signatures=signatures, table_rows={}, session=session)
        return run(loaded, fed)

    names = ("float16 arithmetic (evaluated)", "float32 arithmetic (evaluated)")
    return measured(names, evaluated("float16"), evaluated("float32"))


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
    known = [spec.name for spec in loaded.signatures[0].inputs]
    for name in names:
        if name not in known:
            raise lookup.unknown("input", name, known)


def _require_same_inputs(a: Loaded, b: Loaded) -> None:
    mine, yours = (sorted(spec.name for spec in loaded.signatures[0].inputs) for loaded in (a, b))
    if mine != yours:
        raise RequestError(f"'{a.name}' takes inputs {mine}, but '{b.name}' takes {yours}: they are not one model")


def _require_as_many_outputs(a: Loaded, b: Loaded) -> None:
    mine, yours = ([spec.name for spec in loaded.signatures[0].outputs] for loaded in (a, b))
    if len(mine) != len(yours):
        raise RequestError(f"'{a.name}' gives outputs {mine}, but '{b.name}' gives {yours}: they are not one model")


def _guessed_scheme(contents: inspection.Contents) -> str:
    """By the types of the weights, for a file without a record."""
    sizes: dict[str, int] = {}
    for stored in contents.stored:
        sizes[stored.dtype] = sizes.get(stored.dtype, 0) + stored.size_bytes
    floats = sizes.get("float32", 0)
    if any(sizes.get(dtype, 0) > floats for dtype in ("int8", "uint8", "int4", "uint4")):
        return "dynamic_wi8_afp32"
    return "fp16" if sizes.get("float16", 0) > floats else "fp32"
