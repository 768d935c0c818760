"""What native libraries write on standard error by themselves becomes log messages, which `--verbose` shows.

Python's own streams and warnings do not reach it: LiteRT, for one, announces its delegate to file descriptor 2, and has no
setting for that (2.3.0).
"""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator

STDERR = 2


@contextlib.contextmanager
def logged(source: str) -> Iterator[None]:
    """While it lasts, the process's standard error goes to the logger `edgeseq.SOURCE`, as information.

    An error that leaves it carries the words along, since they mostly say why.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        kept = os.dup(STDERR)
        os.dup2(file.fileno(), STDERR)
        try:
            yield
        except Exception as error:
            sys.stderr.flush()
            words = _written(file.fileno())
            if words:
                error.add_note(f"{source} said: {' | '.join(words)}")
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, STDERR)
            os.close(kept)
            for line in _written(file.fileno()):
                logging.getLogger(f"edgeseq.{source}").info(line)


def _written(descriptor: int) -> list[str]:
    size = os.fstat(descriptor).st_size
    text = os.pread(descriptor, size, 0).decode(errors="replace")
    return [line for line in text.splitlines() if line.strip()]
