"""What the command line can do: one file a command, whose name is the word that users type.

Heavy packages are imported by the command that needs them, not with its file: every file is read for `edgeseq --help`.
"""

import argparse
import sys
from abc import ABC, abstractmethod
from typing import ClassVar, cast

from edgeseq import lookup

__all__ = ["Command", "get", "names"]


class Command(ABC):
    """One command. Stateless."""

    what: ClassVar[str]  # it does, in a line that begins with a verb

    @abstractmethod
    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add its own options to those that every command has."""

    @abstractmethod
    def run(self, options: argparse.Namespace) -> int:
        """Do it; the exit code.

        Raises:
            EdgeseqError: It failed; told in one line, with the error's exit code.
        """


def names() -> tuple[str, ...]:
    """Every command."""
    return lookup.names(sys.modules[__name__], "COMMAND")


def get(name: str) -> Command:
    """The command of that name."""
    return cast(Command, lookup.get(sys.modules[__name__], name, "COMMAND"))
