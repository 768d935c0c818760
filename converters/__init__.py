"""Conversion: a captured model becomes a float32 file of one format; one folder per format."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from edgeseq import lookup
from edgeseq.artifact import Artifact
from edgeseq.recipe import options_from
from edgeseq.signature import Signature

if TYPE_CHECKING:
    from edgeseq.capture import CapturedModel

__all__ = ["Converter", "NoOptions", "convert", "get", "names", "options"]


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """A format that converts in one way only."""


class Converter(ABC):
    """Lowers captured programs to one format. Stateless."""

    suffix: ClassVar[str]  # of the file that apps load, such as ".onnx"
    options: ClassVar[type[Any]] = NoOptions  # a frozen dataclass of what users may choose, every field with a default

    @abstractmethod
    def convert(self, model: "CapturedModel", target: Path, options: Any) -> None:
        """Write the model in float32 to `target`, with every signature under its names.

        The file is deterministic: the same program and options give the same bytes.

        Args:
            model: What was captured.
            target: The file or folder to write.
            options: Of the type that the class says.

        Raises:
            UnsupportedError: The format lacks operators of the model; all are listed, with their module paths.
        """

    def signatures(self, model: "CapturedModel", options: Any) -> tuple[Signature, ...]:
        """The model's signatures as the file has them."""
        del options
        return model.signatures


def names() -> tuple[str, ...]:
    """Every format."""
    return lookup.names(sys.modules[__name__], "CONVERTER")


def get(format: str) -> Converter:
    """The converter of a format."""
    return cast(Converter, lookup.get(sys.modules[__name__], format, "CONVERTER", extra=format))


def options(format: str, given: Mapping[str, Any]) -> Any:
    """The options of a format from what the user gave, such as `{"target": "ios18"}`; all others are the defaults.

    Raises:
        RequestError: An unknown option, or a value of the wrong type.
    """
    return options_from(get(format).options, given, where=f"format '{format}'")


def convert(
    captured: "CapturedModel", format: str, folder: Path, *, model: str, given: Mapping[str, Any] | None = None
) -> Artifact:
    """Convert to float32 in `folder`; `model` names the file, `given` are the format's options."""
    converter, chosen = get(format), options(format, given or {})
    signatures = converter.signatures(captured, chosen)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{model}{converter.suffix}"
    converter.convert(captured, target, chosen)
    artifact = Artifact.describe(target, model=model, format=format, scheme="fp32", signatures=signatures)
    artifact.save()
    return artifact
