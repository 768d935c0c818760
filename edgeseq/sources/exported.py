"""A `.pt2` file of torch.export.save, from anyone: read without running anything that is in it."""

from pathlib import Path

from edgeseq.sources import Loaded, Source


class ExportedSource(Source):
    takes = "a .pt2 file of torch.export.save"

    def is_mine(self, path: Path) -> bool:
        return path.suffix == ".pt2" and path.is_file()

    def load(self, path: Path, model: str, *, forward_only: bool = False) -> Loaded:
        from edgeseq.sources import _exported  # loads torch

        del model, forward_only
        return _exported.load(path)


SOURCE = ExportedSource()
