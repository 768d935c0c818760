"""ONNX Runtime on the processor."""

import os
from pathlib import Path
from typing import cast

import numpy as np

os.environ.setdefault(
    "ORT_DISABLE_TELEMETRY", "1"
)  # onnxruntime 1.32 sends telemetry unless told not to before its import
import onnxruntime as ort

from edgeseq.devices.runtimes import Runtime, Session
from edgeseq.signature import Signature, Tensors

FATAL_ONLY = 4  # what it logs as an error it raises as well


class OnnxSession:
    """One graph in one session of ONNX Runtime."""

    def __init__(self, path: Path, threads: int):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = FATAL_ONLY
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Tensors, signature: str = "forward") -> dict[str, np.ndarray]:
        """Outputs by name; a graph has one signature."""
        del signature
        values = cast(list[np.ndarray], self._session.run(self._outputs, dict(inputs)))
        return dict(zip(self._outputs, values, strict=True))


class OnnxRuntime(Runtime):
    format = "onnx"
    verified_by = f"onnxruntime {ort.__version__}"

    def load(self, path: Path, signatures: tuple[Signature, ...], *, threads: int) -> Session:
        del signatures
        return OnnxSession(path, threads)


RUNTIME = OnnxRuntime()
