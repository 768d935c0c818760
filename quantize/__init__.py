"""Quantization: a scheme says what, and each format's own quantizer does it; one file per format."""

import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, cast

from edgeseq import lookup
from edgeseq.artifact import Artifact
from edgeseq.errors import UnsupportedError
from edgeseq.quantize.scheme import Scheme

__all__ = ["Quantizer", "Scheme", "check", "get", "quantize"]


class Quantizer(ABC):
    """Applies schemes to one format. Stateless."""

    schemes: ClassVar[tuple[str, ...]]  # what this format can express, as users would type it

    def note(self, scheme: Scheme, source: Path) -> str:
        """What the scheme means for the artifact at `source` where it is less than its name says; empty if nothing is."""
        del scheme, source
        return ""

    @abstractmethod
    def apply(self, source: Path, scheme: Scheme, target: Path) -> None:
        """Write the float32 artifact at `source` to `target` under `scheme`."""


def get(format: str) -> Quantizer:
    """The quantizer of a format."""
    return cast(Quantizer, lookup.get(sys.modules[__name__], format, "QUANTIZER", extra=format))


def check(format: str, scheme: Scheme) -> None:
    """Say before any work starts what a format cannot express.

    Raises:
        UnsupportedError: With the schemes that it can.
    """
    able = get(format).schemes
    if scheme.name != "fp32" and scheme.name not in able:
        raise UnsupportedError(
            f"format '{format}' cannot express scheme '{scheme.name}'; it can: fp32, {', '.join(able)}"
        )


def quantize(artifact: Artifact, scheme: Scheme, folder: Path) -> Artifact:
    """Quantize a float32 artifact into `folder`.

    Raises:
        UnsupportedError: The format cannot express the scheme.
    """
    check(artifact.format, scheme)
    quantizer = get(artifact.format)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / artifact.path.name
    quantizer.apply(artifact.path, scheme, target)
    result = Artifact.describe(
        target,
        model=artifact.model,
        format=artifact.format,
        scheme=scheme.name,
        signatures=artifact.signatures,
        parent=artifact,
        note=quantizer.note(scheme, artifact.path),
    )
    result.save()
    return result
