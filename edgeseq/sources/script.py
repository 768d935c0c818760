"""A Python script with `get_model()`, `get_args()` and, if sizes vary, `get_dynamic_shapes()`; or with `get_calls()`."""

from pathlib import Path

from edgeseq.sources import Loaded, Source


class ScriptSource(Source):
    has_forward = True
    takes = "a Python script with get_model() and get_args() or get_calls()"

    def is_mine(self, path: Path) -> bool:
        return path.suffix == ".py" and path.is_file()

    def load(self, path: Path, model: str, *, forward_only: bool = False) -> Loaded:
        from edgeseq.sources import _script  # loads torch

        del model
        return _script.load(path, forward_only=forward_only)


SOURCE = ScriptSource()
