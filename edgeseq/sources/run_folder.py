"""A run folder: its captured models once more, to other formats or under other schemes."""

import json
from pathlib import Path

from edgeseq import run_folder
from edgeseq.errors import RequestError
from edgeseq.sources import Loaded, Source

MODELS = "models/"


class RunFolderSource(Source):
    takes = "a run folder"

    def is_mine(self, path: Path) -> bool:
        return (path / run_folder.REQUEST).is_file()

    def models(self, path: Path) -> tuple[str, ...]:
        """Every model that was captured in the run, unchanged since."""
        _, found = run_folder.opened(path)
        models = tuple(name.removeprefix(MODELS) for name in found if name.startswith(MODELS))
        if not models:
            raise RequestError(
                f"run folder '{path}' holds no captured model yet; finish it by the command that began it"
            )
        return models

    def load(self, path: Path, model: str, *, forward_only: bool = False) -> Loaded:
        from edgeseq.capture import CapturedModel  # loads torch
        from edgeseq.reference import Reference

        del forward_only
        folder = path / MODELS / model
        return Loaded(
            captured=CapturedModel.load(folder),
            cases=Reference.load(folder / "reference.npz").cases,
            about=json.loads((folder / "about.json").read_text()),
        )


SOURCE = RunFolderSource()
