"""A Python script with `get_model()`, `get_args()` and, if sizes vary, `get_dynamic_shapes()`."""

from pathlib import Path

from edgeseq.sources import Loaded, Source


class ScriptSource(Source):
    takes = "a Python script with get_model() and get_args()"

    def is_mine(self, path: Path) -> bool:
        return path.suffix == ".py" and path.is_file()

    def load(self, path: Path, model: str) -> Loaded:
        from edgeseq.sources import _script  # loads torch

        del model
        return _script.load(path)


SOURCE = ScriptSource()
