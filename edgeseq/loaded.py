"""A model file in an engine, and its signatures run on random inputs: call by call, or as sequences whose states carry on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeseq import chunks, inspection
from edgeseq.devices import runtimes
from edgeseq.devices.runtimes import Runtime, Session
from edgeseq.errors import EdgeseqError, RequestError
from edgeseq.signature import Signature, Tensors
from edgeseq.stream import Stream

if TYPE_CHECKING:
    from edgeseq.devices.runtimes._mil.precision import Precision

Outputs = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model file in an engine."""

    path: Path
    name: str  # of the file, or what it is called in a comparison
    scheme: str
    engine: str
    signatures: tuple[Signature, ...]
    table_rows: Mapping[str, int]
    session: Session
    has_float16: bool  # whether a constant is, so that the program computes in it
    is_evaluated: bool  # by a reference, not by an engine that apps use

    def signature(self, name: str) -> Signature:
        """The signature of that name."""
        return next(signature for signature in self.signatures if signature.name == name)

    @property
    def title(self) -> str:
        """The file and what runs it."""
        return f"{self.name} ({self.engine})"


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
        path=path,
        name=path.name,
        scheme=artifact.scheme if artifact else _guessed_scheme(contents),
        engine=runtime.verified_by,
        signatures=contents.signatures,
        table_rows=contents.table_rows,
        session=runtime.load(path, contents.signatures, threads=1),
        has_float16=any(stored.dtype == "float16" for stored in contents.stored),
        is_evaluated=not runtime.is_timed,
    )


def in_precision(loaded: Loaded, precision: "Precision") -> Loaded:
    """A Core ML file in the evaluator, every operator's result rounded to one float type."""
    from edgeseq.devices.runtimes.coreml_evaluator import RUNTIME

    session = RUNTIME.load_at(loaded.path, loaded.signatures, threads=1, precision=precision)
    return replace(loaded, name=f"{precision} arithmetic", engine="evaluated", session=session)


def call(loaded: Loaded, name: str, inputs: Tensors) -> Outputs:
    """Outputs of a signature, in its order.

    Raises:
        RequestError: The engine refuses an input that the file's own description allows.
    """
    signature = loaded.signature(name)
    try:
        typed = {spec.name: inputs[spec.name].astype(spec.dtype) for spec in signature.inputs}
        outputs = loaded.session.run(typed, name)
    except EdgeseqError:
        raise
    except Exception as error:  # engines have types of their own
        shapes = ", ".join(f"{key} {list(value.shape)}" for key, value in inputs.items())
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise RequestError(
            f"{loaded.engine} refuses '{loaded.name}' with {shapes}: {reason}; if a value is the reason, name its range by "
            "--range INPUT=LOW:HIGH"
        ) from error
    return {spec.name: outputs[spec.name] for spec in signature.outputs}


def sequence(loaded: Loaded, name: str, inputs: Tensors, lengths: Sequence[int]) -> Outputs:
    """Outputs of a sequence from empty states, given in chunks of these lengths."""
    signature = loaded.signature(name)
    stream = Stream(partial(_called, loaded), loaded.signatures, chunks.state_sizes(signature, inputs))
    return chunks.in_chunks(stream, name, inputs, lengths)


def steps(loaded: Loaded, name: str, calls: Sequence[Tensors]) -> list[Outputs]:
    """Outputs of calls of a fixed length, one after the other, from empty states."""
    signature = loaded.signature(name)
    stream = Stream(partial(_called, loaded), loaded.signatures, chunks.state_sizes(signature, calls[0]))
    return [stream.run(inputs, name) for inputs in calls]


def _called(loaded: Loaded, inputs: Tensors, name: str) -> Outputs:
    return call(loaded, name, inputs)


def _guessed_scheme(contents: inspection.Contents) -> str:
    """By the types of the weights, for a file without a record."""
    sizes: dict[str, int] = {}
    for stored in contents.stored:
        sizes[stored.dtype] = sizes.get(stored.dtype, 0) + stored.size_bytes
    floats = sizes.get("float32", 0)
    if any(sizes.get(dtype, 0) > floats for dtype in ("int8", "uint8", "int4", "uint4")):
        return "dynamic_wi8_afp32"
    return "fp16" if sizes.get("float16", 0) > floats else "fp32"
