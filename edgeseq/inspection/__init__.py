"""What is inside a model file: signatures, operators, sizes, and what can run it. Files are read, and nothing is run.

One file per format, found by its name. Neither torch nor TensorFlow is loaded, so an answer takes less than a second.
"""

import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, cast

from edgeseq import lookup
from edgeseq.artifact import RECORD, Artifact, tree_size
from edgeseq.errors import RequestError
from edgeseq.inspection import delegates
from edgeseq.inspection.operator import Operator
from edgeseq.signature import Signature

__all__ = [
    "NO_BOUND",
    "Contents",
    "Inspection",
    "Inspector",
    "Stored",
    "artifact_file",
    "format_of",
    "inspect",
    "is_model",
    "read",
]

NO_BOUND = 2**31 - 1  # the greatest size of a dimension that a file does not bound


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A constant in the file."""

    layer: str  # the module path that it belongs to, or the constant's own name where none is known
    dtype: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What one file holds, as its format says it."""

    signatures: tuple[Signature, ...]
    operators: tuple[Operator, ...]
    stored: tuple[Stored, ...]
    requires: tuple[str, ...]  # what must run it at least, each with the reason
    table_rows: Mapping[str, int] = field(default_factory=dict)  # integer input -> rows of the table that it indexes
    notes: tuple[str, ...] = ()


class Inspector(ABC):
    """Reads one format. Stateless."""

    suffix: ClassVar[str]

    @abstractmethod
    def read(self, path: Path) -> Contents:
        """What the file holds.

        Raises:
            RequestError: It is not a file of this format.
        """


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Everything about one file."""

    path: Path
    format: str
    size_bytes: int
    scheme: str | None  # None: the file stands alone
    contents: Contents
    shares: tuple[delegates.Share, ...]

    @property
    def operator_counts(self) -> dict[str, int]:
        """How often each operator occurs, the most frequent first."""
        counts = Counter(operator.kind for operator in self.contents.operators)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def layer_bytes(self) -> dict[str, int]:
        """Bytes of the constants of each layer, the largest first."""
        sizes: Counter[str] = Counter()
        for stored in self.contents.stored:
            sizes[stored.layer] += stored.size_bytes
        return dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))

    @property
    def dtype_bytes(self) -> dict[str, int]:
        """Bytes of the constants of each type, the largest first."""
        sizes: Counter[str] = Counter()
        for stored in self.contents.stored:
            sizes[stored.dtype] += stored.size_bytes
        return dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "path": str(self.path),
            "format": self.format,
            "size_bytes": self.size_bytes,
            "scheme": self.scheme,
            "signatures": [signature.to_json() for signature in self.contents.signatures],
            "requires": list(self.contents.requires),
            "operators": self.operator_counts,
            "layers": self.layer_bytes,
            "dtypes": self.dtype_bytes,
            "table_rows": dict(self.contents.table_rows),
            "delegates": [asdict(share) for share in self.shares],
            "notes": list(self.contents.notes),
        }


def inspect(path: Path) -> Inspection:
    """Look into a model file, or into the file of an artifact folder.

    Raises:
        RequestError: There is no such file, or no format has its suffix.
    """
    file, artifact = artifact_file(path)
    format = format_of(file)
    contents = read(file)
    return Inspection(
        path=file,
        format=format,
        size_bytes=tree_size(file),
        scheme=artifact.scheme if artifact else None,
        contents=contents,
        shares=delegates.shares(format, contents.operators),
    )


def artifact_file(path: Path) -> tuple[Path, Artifact | None]:
    """The model file that a path means, and the artifact that describes it if it lies in an artifact's folder.

    Raises:
        RequestError: There is no such file, or it is not the one that the record beside it describes.
    """
    if (path / RECORD).is_file():
        artifact = Artifact.load(path)
        return artifact.path, artifact
    if not path.exists():
        raise RequestError(f"there is no file '{path}'")
    if (path.parent / RECORD).is_file():
        artifact = Artifact.load(path.parent)
        if artifact.path.resolve() == path.resolve():
            return path, artifact
    return path, None


def is_model(path: Path) -> bool:
    """Whether a path means one model: a file of a known format, or an artifact's folder."""
    return (path / RECORD).is_file() or _format_of_suffix(path.suffix) is not None


def format_of(file: Path) -> str:
    """The format whose suffix a file has."""
    format = _format_of_suffix(file.suffix)
    if format is None:
        raise RequestError(
            f"'{file}' is no model file: none of the formats {', '.join(_names())} ends in '{file.suffix}', and it is no "
            f"folder with {RECORD}"
        )
    return format


def _format_of_suffix(suffix: str) -> str | None:
    """Found without importing the formats' packages."""
    declaring = f'suffix = "{suffix}"'
    return next(iter(lookup.names(sys.modules[__name__], "INSPECTOR", declaring=declaring)), None)


def read(file: Path) -> Contents:
    """What a model file holds; with the signatures of its artifact's record, which know the dimensions' names."""
    file, artifact = artifact_file(file)
    contents = _inspector(format_of(file)).read(file)
    return contents if artifact is None else replace(contents, signatures=artifact.signatures)


def _names() -> tuple[str, ...]:
    return lookup.names(sys.modules[__name__], "INSPECTOR")


def _inspector(format: str) -> Inspector:
    return cast(Inspector, lookup.get(sys.modules[__name__], format, "INSPECTOR", extra=format))
