"""An artifact: one model in one format under one scheme, with its hash and where it came from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from edgeseq.errors import RequestError
from edgeseq.signature import Signature

RECORD = "artifact.json"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A deployable file (or folder, for Core ML) in a folder of its own, described by an `artifact.json` beside it."""

    path: Path
    model: str
    format: str
    scheme: str
    signatures: tuple[Signature, ...]
    size_bytes: int
    sha256: str
    parent_sha256: str | None  # the artifact that this one was quantized from; None: converted from the captured model
    note: str = ""  # what the scheme means here where the format cannot express it in full

    @classmethod
    def describe(
        cls,
        path: Path,
        *,
        model: str,
        format: str,
        scheme: str,
        signatures: tuple[Signature, ...],
        parent: "Artifact | None" = None,
        note: str = "",
    ) -> Self:
        """Measure and hash what lies at `path`."""
        return cls(
            path=path,
            model=model,
            format=format,
            scheme=scheme,
            signatures=signatures,
            size_bytes=tree_size(path),
            sha256=tree_sha256(path),
            parent_sha256=parent.sha256 if parent else None,
            note=note,
        )

    def signature(self, name: str = "forward") -> Signature:
        """The signature of that name."""
        return next(s for s in self.signatures if s.name == name)

    def save(self) -> None:
        """Write `artifact.json` beside the artifact."""
        record = {
            "file": self.path.name,
            "model": self.model,
            "format": self.format,
            "scheme": self.scheme,
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
            "parent_sha256": self.parent_sha256,
            "note": self.note,
            "signatures": [s.to_json() for s in self.signatures],
        }
        (self.path.parent / RECORD).write_text(json.dumps(record, indent=1))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read `artifact.json` back and check that the artifact is the one it describes.

        Raises:
            RequestError: There is no artifact, or its bytes are not those that were recorded.
        """
        try:
            record: Mapping[str, Any] = json.loads((folder / RECORD).read_text())
            path = folder / record["file"]
            artifact = cls(
                path=path,
                model=record["model"],
                format=record["format"],
                scheme=record["scheme"],
                signatures=tuple(Signature.from_json(s) for s in record["signatures"]),
                size_bytes=record["size_bytes"],
                sha256=record["sha256"],
                parent_sha256=record["parent_sha256"],
                note=record["note"],
            )
        except FileNotFoundError as error:
            raise RequestError(f"'{folder}' holds no artifact: {error.filename} is missing") from error
        except (ValueError, KeyError, TypeError) as error:
            raise RequestError(f"'{folder / RECORD}' does not describe an artifact: {error!r}") from error
        if not path.exists() or tree_sha256(path) != artifact.sha256:
            raise RequestError(f"'{path}' is not the file that {RECORD} describes; convert it again")
        return artifact


def companion(path: Path) -> Path:
    """Where the weights of a file lie that is too small for them, such as those of an ONNX file above 2 GB."""
    return path.with_name(f"{path.name}.data")


def program_files(path: Path) -> dict[str, Path]:
    """The file of each program where a folder holds several, by its name; else the one file, by its own name."""
    return {file.stem: file for file in (sorted(path.glob(f"*{path.suffix}")) if path.is_dir() else [path])}


def tree_files(path: Path) -> list[Path]:
    """The file itself and its companion if it has one, or every file below a folder, sorted by name."""
    if path.is_file():
        return [path, *(p for p in (companion(path),) if p.is_file())]
    return sorted(p for p in path.rglob("*") if p.is_file())


def tree_size(path: Path) -> int:
    """Bytes of a file or of everything below a folder."""
    return sum(p.stat().st_size for p in tree_files(path))


def tree_sha256(path: Path) -> str:
    """SHA-256 of a file; of a folder, or a file with a companion, over the sorted (name, SHA-256) pairs of its files."""
    files = tree_files(path)
    if files == [path]:
        return file_sha256(path)
    root = path.parent if path.is_file() else path
    lines = [f"{p.relative_to(root).as_posix()}\0{file_sha256(p)}\n" for p in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
