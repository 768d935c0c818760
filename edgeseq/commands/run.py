"""`edgeseq run RECIPE`."""

import argparse
from pathlib import Path

from edgeseq.commands import Command, _limits
from edgeseq.commands._conclusion import conclude


class Run(Command):
    what = "distil, quantize, convert, verify, measure and report, as a recipe says"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "recipe", metavar="RECIPE", help="the name of a recipe that comes with edgeseq, or a TOML file"
        )
        parser.add_argument("--output", metavar="DIR", type=Path, help="run folder (default: runs/RECIPE)")
        _limits.add(parser)

    def run(self, options: argparse.Namespace) -> int:
        from edgeseq import pipeline, progress, recipe

        loaded = recipe.load(options.recipe)
        root = options.output or Path("runs") / loaded.name
        limits = _limits.parsed(options)
        with progress.watcher() as watcher:
            report = pipeline.run(loaded, root, watcher, limits)
        return conclude(report, root, options)


COMMAND = Run()
