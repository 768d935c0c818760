"""`edgeseq doctor`."""

import argparse

from edgeseq.commands import Command
from edgeseq.commands._conclusion import write


class Doctor(Command):
    what = "say what can run here, what is missing, and the command that mends it"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """It has none of its own."""

    def run(self, options: argparse.Namespace) -> int:
        from edgeseq import doctor

        findings = doctor.examine()
        print(doctor.render(findings))
        if options.json:
            write(options.json, doctor.to_json(findings))
        return 0


COMMAND = Doctor()
