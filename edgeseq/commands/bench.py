"""`edgeseq bench RUN`."""

import argparse
from pathlib import Path

from edgeseq.commands import Command, _limits
from edgeseq.commands._conclusion import conclude
from edgeseq.errors import RequestError


class Bench(Command):
    what = "measure every artifact of a run folder on this machine"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("folder", metavar="RUN", type=Path, help="a run folder")
        add("--runs", metavar="N", type=int, default=200, help="counted inferences a process (default: 200)")
        add("--rounds", metavar="N", type=int, default=2, help="processes an artifact (default: 2)")
        _limits.add(parser)

    def run(self, options: argparse.Namespace) -> int:
        from edgeseq import pipeline, progress
        from edgeseq.measure import Protocol
        from edgeseq.recipe import Measuring

        runs, rounds = options.runs, options.rounds
        if runs < 1 or rounds < 1:
            raise RequestError(f"--runs and --rounds must be at least 1, not {runs} and {rounds}")
        measuring = Measuring(rounds=rounds, protocol=Protocol(runs=runs, min_runs=min(runs, 20)))
        limits = _limits.parsed(options)
        with progress.watcher() as watcher:
            report = pipeline.bench(options.folder, measuring, watcher, limits)
        return conclude(report, options.folder, options)


COMMAND = Bench()
