"""The options that bound each stage of a run."""

import argparse

from edgeseq.limits import Limits

OPTIONS = ("memory-limit", "time-limit")


def add(parser: argparse.ArgumentParser) -> None:
    """Add them to a command."""
    parser.add_argument(
        "--memory-limit", metavar="M", help="of each stage: 4GB, 50%% or none (default: 80%% of the machine's memory)"
    )
    parser.add_argument("--time-limit", metavar="T", help="of each stage: 90s, 30m, 2h or none (default: none)")


def parsed(options: argparse.Namespace) -> Limits:
    """What was asked for."""
    return Limits.parse(options.memory_limit, options.time_limit)
