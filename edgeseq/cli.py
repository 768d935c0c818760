"""The command line: `edgeseq COMMAND ...`."""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from edgeseq import commands
from edgeseq.errors import EdgeseqError
from edgeseq.version import __version__

INTERRUPTED = 130  # 128 + SIGINT, as shells say it

EPILOG = """\
exit codes: 0 passed, 1 a gate failed or work failed, 2 the request was wrong, 4 it could not be checked here
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    options = parser().parse_args(arguments)
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    if not options.verbose:
        warnings.simplefilter("ignore")
        logging.basicConfig(level=logging.ERROR)
    else:
        logging.basicConfig(level=logging.INFO)
    try:
        return commands.get(options.command).run(options)
    except EdgeseqError as error:
        print(f"edgeseq: {' '.join(str(error).split())}", file=sys.stderr)  # one line, whatever a script raised
        return error.exit_code
    except KeyboardInterrupt:
        print("edgeseq: interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED


def parser() -> argparse.ArgumentParser:
    """Every command and its options."""
    top = argparse.ArgumentParser(
        prog="edgeseq",
        description="Take trained Transformers and LSTMs to ONNX, TFLite and Core ML, and prove and measure what comes out.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"edgeseq {__version__}")
    verbs = top.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for name in commands.names():
        command = commands.get(name)
        added = verbs.add_parser(name, help=command.what, description=f"{command.what[0].upper()}{command.what[1:]}.")
        command.add_options(added)
        added.add_argument("--json", metavar="FILE", type=Path, help="also write the result as JSON")
        added.add_argument("--verbose", action="store_true", help="show warnings of third-party packages")
    return top


def script() -> None:
    """The installed command."""
    sys.exit(main())
