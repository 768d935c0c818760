"""`edgeseq inspect ARTIFACT`."""

import argparse
import json
from pathlib import Path

from edgeseq.commands import Command
from edgeseq.commands._conclusion import write


class Inspect(Command):
    what = "say what a model file holds and what can run it, without running it"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("artifact", metavar="ARTIFACT", type=Path, help="a model file, or an artifact's folder")

    def run(self, options: argparse.Namespace) -> int:
        from edgeseq import inspection
        from edgeseq.report.inspection import render

        found = inspection.inspect(options.artifact)
        print(render(found))
        if options.json:
            write(options.json, json.dumps(found.to_json(), indent=1) + "\n")
        return 0


COMMAND = Inspect()
