"""The process that a stage runs in: `python -m edgeseq.worker`.

It reads one request from standard input, does the work, and reports progress as JSON lines on what was standard output;
whatever third parties print goes to the stage's log. When its parent dies, standard input ends, and so does it.
"""

import importlib
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseq.errors import EdgeseqError


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a stage's function gets."""

    settings: Mapping[str, Any]
    needs: Mapping[str, Path]  # folders of the stages it needs, by name
    out: Path  # an empty folder for its files
    progress: Callable[[int, int, str], None]  # (done, total, what)


def main() -> None:
    request = json.loads(sys.stdin.readline())
    messages = os.fdopen(os.dup(1), "w", buffering=1)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    job = Job(
        settings=request["settings"],
        needs={name: Path(path) for name, path in request["needs"].items()},
        out=Path(request["out"]),
        progress=lambda done, total, what: print(json.dumps({"progress": [done, total, what]}), file=messages),
    )
    module, function = request["work"].split(":")
    try:
        getattr(importlib.import_module(module), function)(job)
    except EdgeseqError as error:
        print(json.dumps({"error": str(error), "type": type(error).__name__}), file=messages)
    except Exception as error:  # reported to the parent, which decides what the user sees; the log has the traceback
        traceback.print_exc()
        print(json.dumps({"crash": f"{type(error).__name__}: {error}"}), file=messages)
    else:
        print(json.dumps({"finished": True}), file=messages)


def _die_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
