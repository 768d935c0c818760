"""Engines that run artifacts, one file per engine."""

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Protocol, cast

import numpy as np

from edgeseq import lookup
from edgeseq.errors import UnavailableError
from edgeseq.signature import Signature, Tensors
from edgeseq.stream import Stream

__all__ = ["Runtime", "Session", "for_format", "get", "names", "second"]


class Session(Protocol):
    """One artifact loaded into one engine."""

    def run(self, inputs: Tensors, signature: str = "forward") -> dict[str, np.ndarray]:
        """Outputs by name. Any batch and length within the signature's bounds."""
        ...


class Runtime(ABC):
    """One engine. Stateless; importing its file imports the engine."""

    format: ClassVar[str]  # what it runs: the name of a format, or "pytorch"
    verified_by: ClassVar[str]  # the words of a parity report, such as "onnxruntime 1.32.0"
    batch: ClassVar[int | None] = None  # what the format's files fix it to, larger ones being run row by row; None: any
    is_timed: ClassVar[bool] = True  # False: a reference evaluator whose times say nothing of a device

    def unavailable(self) -> str | None:
        """Why the engine cannot run on this machine; None if it can."""
        return None

    @abstractmethod
    def load(self, path: Path, signatures: tuple[Signature, ...], *, threads: int) -> Session:
        """Load an artifact, to be run with that many threads."""

    def stream(self, session: Session, signatures: tuple[Signature, ...], sizes: Mapping[str, int]) -> Stream:
        """A sequence in progress, all states zero; `sizes` as `Stream` takes them."""
        return Stream(session.run, signatures, sizes)

    def time_ms(self, session: Session, inputs: Tensors, signature: str = "forward") -> float:
        """Milliseconds that one inference takes, by the clock that suits the engine."""
        start = time.perf_counter()
        session.run(inputs, signature)
        return 1e3 * (time.perf_counter() - start)

    def accelerator(self) -> str | None:
        """The accelerator it runs on; None: the processor."""
        return None

    def peak_accelerator_bytes(self) -> int | None:
        """The most accelerator memory used so far; None: there is none, and the process's memory tells."""
        return None


def names() -> tuple[str, ...]:
    """Every engine."""
    return lookup.names(sys.modules[__name__], "RUNTIME")


def get(name: str) -> Runtime:
    """The engine of that name."""
    return cast(Runtime, lookup.get(sys.modules[__name__], name, "RUNTIME"))


def for_format(format: str) -> Runtime:
    """The engine that runs a format here; a real one before an evaluator.

    Raises:
        UnavailableError: With the reason of each engine that cannot.
    """
    return _usable(format, wanted=1)[0]


def second(format: str) -> Runtime:
    """Another engine that runs a format here, to check the first by.

    Raises:
        UnavailableError: There is one engine only; with the reason of each that cannot.
    """
    return _usable(format, wanted=2)[1]


def _usable(format: str, wanted: int) -> list[Runtime]:
    """The engines that run a format here, those that apps use first."""
    candidates = lookup.names(sys.modules[__name__], "RUNTIME", declaring=f'format = "{format}"')
    usable, reasons = [], []
    for name in candidates:
        runtime = cast(Runtime, lookup.get(sys.modules[__name__], name, "RUNTIME", extra=format))
        reason = runtime.unavailable()
        if reason is None:
            usable.append(runtime)
        else:
            reasons.append(f"{name}: {reason}")
    if len(usable) < wanted:
        what = "no second engine" if usable else "no engine"
        raise UnavailableError(f"{what} runs format '{format}' here ({'; '.join(reasons) or 'none is known'})")
    return sorted(usable, key=lambda runtime: not runtime.is_timed)
