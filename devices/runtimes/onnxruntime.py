"""ONNX Runtime on the processor."""

import os
from pathlib import Path
from typing import cast

import numpy as np

os.environ.setdefault(
    "ORT_DISABLE_TELEMETRY", "1"
)  # onnxruntime 1.32 sends telemetry unless told not to before its import
import onnxruntime as ort

from edgeseq.artifact import program_files
from edgeseq.devices.runtimes import Runtime, Session
from edgeseq.signature import Signature, Tensors

FATAL_ONLY = 4  # what it logs as an error it raises as well


class OnnxSession:
    """One artifact: a session of ONNX Runtime for each of its programs."""

    def __init__(self, path: Path, signatures: tuple[Signature, ...], threads: int):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = FATAL_ONLY
        self._programs = {
            name: ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            for name, file in program_files(path).items()
        }
        self._alone = next(iter(self._programs)) if len(self._programs) == 1 else None  # it runs every signature
        self._program_of = {signature.name: signature.program for signature in signatures}
        self._outputs = {name: [o.name for o in session.get_outputs()] for name, session in self._programs.items()}

    def run(self, inputs: Tensors, signature: str = "forward") -> dict[str, np.ndarray]:
        """Outputs by name."""
        program = self._alone or self._program_of[signature]
        names = self._outputs[program]
        values = cast(list[np.ndarray], self._programs[program].run(names, dict(inputs)))
        return dict(zip(names, values, strict=True))


class OnnxRuntime(Runtime):
    format = "onnx"
    verified_by = f"onnxruntime {ort.__version__}"

    def load(self, path: Path, signatures: tuple[Signature, ...], *, threads: int) -> Session:
        return OnnxSession(path, signatures, threads)


RUNTIME = OnnxRuntime()
