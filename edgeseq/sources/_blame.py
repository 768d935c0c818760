"""Errors of code that came with the user's model."""

import contextlib
from collections.abc import Iterator

from edgeseq.errors import RequestError


@contextlib.contextmanager
def blaming(what: str) -> Iterator[None]:
    """Report whatever the user's code raises as theirs, with the line it was raised at."""
    try:
        yield
    except (Exception, SystemExit) as error:  # the user's code may raise anything, and call sys.exit()
        line = error.__traceback__
        while line is not None and line.tb_next is not None:
            line = line.tb_next
        where = f" (line {line.tb_lineno} of {line.tb_frame.f_code.co_filename})" if line else ""
        raise RequestError(f"{what} raised {type(error).__name__}: {error}{where}") from error
