"""coremltools, imported without its notices and without TensorFlow and torchao.

It imports both where they are installed, though only its TensorFlow front end and `optimize.torch` use them: 12 of 18
seconds (coremltools 9.0), and lines on stderr that no logging level reaches.
"""

import importlib
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partialmethod

from tqdm import tqdm

NOT_NEEDED = ("tensorflow", "torchao")


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """While it lasts, packages that are not imported yet look as if they were not installed."""
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is how Python marks a module as missing
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def quietly() -> Iterator[None]:
    """While it lasts, coremltools shows no progress bars and no warnings; it has no setting for that."""
    original = tqdm.__init__
    tqdm.__init__ = partialmethod(original, disable=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's of overflow in coremltools' passes, torch's of its own code
            yield
    finally:
        tqdm.__init__ = original


logging.getLogger("coremltools").setLevel(logging.ERROR)
with without(*NOT_NEEDED):
    importlib.import_module("coremltools")
