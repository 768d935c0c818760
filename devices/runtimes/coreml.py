"""Core ML itself, through coremltools' `MLModel.predict`: macOS only."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgeseq.devices.runtimes import Runtime
from edgeseq.errors import UnavailableError
from edgeseq.quiet_coremltools import quietly
from edgeseq.signature import Signature, Tensors


@dataclass(frozen=True, kw_only=True)
class CoreMLSession:
    """One compiled model, whose program serves every signature."""

    model: Any  # coremltools' MLModel is not typed
    signatures: Mapping[str, Signature]

    def run(self, inputs: Tensors, signature: str = "forward") -> dict[str, np.ndarray]:
        """Outputs by name, in the signature's types: Core ML's own integers have 32 bits."""
        wanted = self.signatures[signature]
        wanted.check(inputs)
        results = self.model.predict(dict(inputs))
        return {spec.name: np.asarray(results[spec.name], spec.dtype) for spec in wanted.outputs}


class CoreMLRuntime(Runtime):
    format = "coreml"
    verified_by = f"Core ML through coremltools {version('coremltools')}"

    def unavailable(self) -> str | None:
        """Apple ships the engine with its systems only."""
        return None if sys.platform == "darwin" else "Core ML predicts on macOS only"

    def load(self, path: Path, signatures: tuple[Signature, ...], *, threads: int) -> CoreMLSession:
        """Compile the package for all compute units; Core ML chooses its own threads."""
        del threads
        reason = self.unavailable()
        if reason:
            raise UnavailableError(
                f"runtime 'coreml': {reason}; the runtime 'coreml_evaluator' checks outputs anywhere"
            )
        with quietly():
            model = import_module("coremltools.models").MLModel(str(path))
        return CoreMLSession(model=model, signatures={signature.name: signature for signature in signatures})


RUNTIME = CoreMLRuntime()
