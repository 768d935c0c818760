"""TensorFlow's own interpreter of TFLite files: a second opinion beside LiteRT's, built from other sources.

TensorFlow takes ten seconds and a gigabyte to import, so it is imported with the first file, not with this one; nothing is
timed with it.
"""

import os
import warnings
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgeseq.devices.runtimes import Runtime
from edgeseq.devices.runtimes.litert import LiteRTSession
from edgeseq.errors import UnavailableError
from edgeseq.quiet_stderr import logged
from edgeseq.signature import Signature

INSTALLED = find_spec("tensorflow") is not None


class TensorFlowRuntime(Runtime):
    format = "tflite"
    batch = 1
    verified_by = f"TensorFlow {version('tensorflow')}" if INSTALLED else "TensorFlow"
    is_timed = False  # LiteRT is what apps ship

    def unavailable(self) -> str | None:
        return None if INSTALLED else "TensorFlow is not installed; pip install 'edgeseq[tensorflow]'"

    def load(self, path: Path, signatures: tuple[Signature, ...], *, threads: int) -> LiteRTSession:
        """One interpreter for all signatures."""
        reason = self.unavailable()
        if reason:
            raise UnavailableError(f"runtime 'tensorflow': {reason}")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with logged("tensorflow"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that LiteRT is its successor
            interpreter: Any = import_module("tensorflow").lite.Interpreter(str(path), num_threads=threads)
            return LiteRTSession(interpreter, signatures)


RUNTIME = TensorFlowRuntime()
