"""Core ML anywhere: the saved program, evaluated operator by operator in numpy. A reference for parity, never timed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from edgeseq.devices.runtimes import Runtime
from edgeseq.devices.runtimes._mil.evaluate import Evaluated, load_functions
from edgeseq.devices.runtimes._mil.precision import Precision
from edgeseq.signature import Signature, Tensors


@dataclass(frozen=True, kw_only=True)
class EvaluatorSession:
    """A loaded program."""

    functions: Mapping[str, Evaluated]
    signatures: Mapping[str, Signature]
    threads: int

    def run(self, inputs: Tensors, signature: str = "forward") -> dict[str, np.ndarray]:
        """Outputs by name, in the signature's types: Core ML's own integers have 32 bits."""
        wanted = self.signatures[signature]
        wanted.check(inputs)
        function = self.functions[wanted.program if wanted.program in self.functions else "main"]
        threads_before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            results = function(inputs)
        finally:
            torch.set_num_threads(threads_before)
        return {spec.name: results[spec.name].astype(spec.dtype) for spec in wanted.outputs}


class CoreMLEvaluator(Runtime):
    format = "coreml"
    verified_by = "evaluated, not run on Apple hardware"
    is_timed = False

    def load(self, path: Path, signatures: tuple[Signature, ...], *, threads: int) -> EvaluatorSession:
        """Read the program back from the package."""
        return self.load_at(path, signatures, threads=threads, precision="declared")

    def load_at(
        self, path: Path, signatures: tuple[Signature, ...], *, threads: int, precision: Precision
    ) -> EvaluatorSession:
        """The same, with every result rounded to one float type: float16 as the Neural Engine does, or float32."""
        return EvaluatorSession(
            functions=load_functions(path, precision),
            signatures={signature.name: signature for signature in signatures},
            threads=threads,
        )


RUNTIME = CoreMLEvaluator()
