"""Plug-ins by file name: the file's name is the name users type, its constant is the thing itself."""

import difflib
import importlib
import re
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from edgeseq.errors import RequestError, UnavailableError


def names(package: ModuleType, constant: str, *, declaring: str = "") -> tuple[str, ...]:
    """Names of the plug-ins in a folder: the files or packages that end with its constant. Imports none of them.

    Args:
        package: The folder, as a package.
        constant: The constant's name, such as "RUNTIME".
        declaring: Only files with this line, such as 'format = "onnx"'.
    """
    marker = re.compile(rf"^{constant} = ", re.MULTILINE)
    line = re.compile(rf"^\s*{re.escape(declaring)}", re.MULTILINE)
    found = []
    for folder in map(Path, package.__path__):
        for path in [*folder.glob("[!_]*.py"), *folder.glob("[!_]*/__init__.py")]:
            text = path.read_text(encoding="utf-8")
            if marker.search(text) and line.search(text):
                found.append(path.parent.name if path.name == "__init__.py" else path.stem)
    return tuple(sorted(found))


def get(package: ModuleType, name: str, constant: str, *, extra: str | None = None) -> Any:
    """The constant that the file `name` of a folder ends with.

    Args:
        package: The folder, as a package.
        name: The file's name; unknown names are refused with the nearest known one.
        constant: The constant's name, such as "CONVERTER".
        extra: The optional dependency group that the file needs, named when a package is missing.

    Raises:
        RequestError: No file of that name.
        UnavailableError: A third-party package is not installed.
    """
    known = names(package, constant)
    if name not in known:
        raise unknown(constant.lower().replace("_", " "), name, known)
    try:
        module = importlib.import_module(f"{package.__name__}.{name}")
    except ModuleNotFoundError as error:
        raise missing_package(error, wanted_by=f"{constant.lower()} '{name}'", extra=extra) from error
    return getattr(module, constant)


def unknown(kind: str, name: str, known: Iterable[str]) -> RequestError:
    """The error for a name that does not exist, with the nearest one that does."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return RequestError(f"there is no {kind} '{name}'; {hint}known: {', '.join(known)}")


def missing_package(error: ModuleNotFoundError, *, wanted_by: str, extra: str | None) -> Exception:
    """What to raise for a missing module: ours stays a bug, a third party's names the extra to install."""
    if (error.name or "").split(".")[0] == "edgeseq":
        return error
    remedy = f"pip install 'edgeseq[{extra}]'" if extra else f"pip install {error.name}"
    return UnavailableError(f"{wanted_by} needs the package '{error.name}', which is not installed; {remedy}")
