"""`edgeseq report RUN`."""

import argparse
from pathlib import Path

from edgeseq.commands import Command
from edgeseq.commands._conclusion import conclude


class Report(Command):
    what = "write a run folder's report anew and print its table"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("folder", metavar="RUN", type=Path, help="a run folder")
        parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")

    def run(self, options: argparse.Namespace) -> int:
        from edgeseq import pipeline
        from edgeseq.report import markdown

        report = pipeline.report(options.folder)
        if options.markdown:
            print(markdown.render(report), end="")
            return 0
        return conclude(report, options.folder, options)


COMMAND = Report()
