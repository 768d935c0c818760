"""Conversion: a captured model becomes a float32 file of one format; one folder per format."""

import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from edgeseq import lookup
from edgeseq.artifact import Artifact

if TYPE_CHECKING:
    from edgeseq.capture import CapturedModel

__all__ = ["Converter", "convert", "get", "names"]


class Converter(ABC):
    """Lowers captured programs to one format. Stateless."""

    suffix: ClassVar[str]  # of the file that apps load, such as ".onnx"

    @abstractmethod
    def convert(self, model: "CapturedModel", target: Path) -> None:
        """Write the model in float32 to `target`, with every signature under its names.

        The file is deterministic: the same program gives the same bytes.

        Raises:
            UnsupportedError: The format lacks operators of the model; all are listed, with their module paths.
        """


def names() -> tuple[str, ...]:
    """Every format."""
    return lookup.names(sys.modules[__name__], "CONVERTER")


def get(format: str) -> Converter:
    """The converter of a format."""
    return cast(Converter, lookup.get(sys.modules[__name__], format, "CONVERTER", extra=format))


def convert(captured: "CapturedModel", format: str, folder: Path, *, model: str) -> Artifact:
    """Convert to float32 in `folder`; `model` names the file."""
    converter = get(format)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{model}{converter.suffix}"
    converter.convert(captured, target)
    artifact = Artifact.describe(target, model=model, format=format, scheme="fp32", signatures=captured.signatures)
    artifact.save()
    return artifact
