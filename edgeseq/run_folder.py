"""What lies in a run folder: the request that it answers, its finished stages, the models it holds."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeseq.errors import RequestError
from edgeseq.stages import PARTIAL, Done, recorded

REQUEST = "request.json"


def opened(root: Path) -> tuple[Mapping[str, Any], dict[str, Done]]:
    """The request that a run folder answers, and its finished stages.

    Raises:
        RequestError: It is not a run folder, or a file in it was changed.
    """
    try:
        written = json.loads((root / REQUEST).read_text())
        request = {"title": written["title"], "request": written["request"]}
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"'{root / 'request.json'}' does not describe a run: {error!r}") from error
    except OSError as error:
        raise RequestError(
            f"'{root}' is not a run folder: it has no request.json; `edgeseq run` and `convert` make one"
        ) from error
    return request, {name: recorded(name, root) for name in stage_names(root)}


def stage_names(root: Path) -> list[str]:
    """Every finished stage of a run folder."""
    records = root.glob("*/**/stage.json")
    return sorted(path.parent.relative_to(root).as_posix() for path in records if PARTIAL not in path.parts)


def formats_by_model(found: Mapping[str, Done]) -> dict[str, list[str]]:
    """Which formats each model has artifacts in.

    Raises:
        RequestError: There are no artifacts yet.
    """
    formats: dict[str, list[str]] = {}
    for name in found:
        if name.startswith("artifacts/"):
            _, model, format = name.split("/")
            formats.setdefault(model, []).append(format)
    if not formats:
        raise RequestError("the run folder holds no artifacts yet; finish it by the command that began it")
    return formats


def require_own_folder(root: Path) -> None:
    """Refuse a folder that holds something else."""
    is_ours = (root / REQUEST).exists() or (root / PARTIAL).exists()
    if root.is_file() or (root.is_dir() and any(root.iterdir()) and not is_ours):
        raise RequestError(f"output folder '{root}' holds something else than a run; choose another by --output")
