"""`edgeseq verify RUN|FILE`: a run folder against what PyTorch computed, or one model file against others."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from edgeseq.commands import Command, _limits
from edgeseq.commands._conclusion import conclude, write
from edgeseq.errors import GateError, RequestError

FILE_OPTIONS = ("against", "range", "tolerance", "second-engine")  # for a model file


class Verify(Command):
    what = "run every artifact of a run folder again and compare it with PyTorch's outputs, or check one model file"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("folder", metavar="RUN|FILE", type=Path, help="a run folder, a model file or an artifact's folder")
        add("--against", metavar="FILE", type=Path, help="another file of the same model, to compare with")
        told = "random integers of an input (repeat)"
        add("--range", metavar="INPUT=LOW:HIGH", action="append", default=[], help=told)
        add("--tolerance", metavar="E", type=float, help="largest error, of outputs of order 1 or less")
        add("--second-engine", action="store_true", help="run a TFLite file in TensorFlow as well")
        _limits.add(parser)

    def run(self, options: argparse.Namespace) -> int:
        from edgeseq import inspection, pipeline, progress

        if inspection.is_model(options.folder):
            _refuse_given(options, _limits.OPTIONS, "a run folder")
            return check_file(options)
        _refuse_given(options, FILE_OPTIONS, "a model file")
        limits = _limits.parsed(options)
        with progress.watcher() as watcher:
            report = pipeline.verify(options.folder, watcher, limits)
        return conclude(report, options.folder, options)


def check_file(options: argparse.Namespace) -> int:
    """One model file, without PyTorch's recorded outputs.

    Raises:
        GateError: It is out of tolerance.
    """
    from edgeseq import crosscheck
    from edgeseq.report.crosscheck import render

    report = crosscheck.check(
        options.folder,
        options.against,
        ranges=crosscheck.parsed_ranges(options.range),
        tolerance=options.tolerance,
        second_engine=options.second_engine,
    )
    print(render(report))
    if options.json:
        write(options.json, json.dumps(report.to_json(), indent=1) + "\n")
    if report.failures:
        raise GateError(f"'{options.folder}' is out of tolerance: {'; '.join(report.failures)}")
    return 0


def _refuse_given(options: argparse.Namespace, names: Sequence[str], kind: str) -> None:
    """Refuse options that would do nothing, since they are for another kind of thing than what was given."""
    values = {f"--{name}": getattr(options, name.replace("-", "_")) for name in names}
    given = [name for name, value in values.items() if value is not None and value is not False and value != []]
    if given:
        raise RequestError(
            f"{', '.join(given)} cannot be used with '{options.folder}', which is not {kind}; leave it out, or give {kind}"
        )


COMMAND = Verify()
