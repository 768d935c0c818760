"""Core ML anywhere: the saved program, evaluated operator by operator in numpy. A reference for parity, never timed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from edgeseq.devices.runtimes import Runtime, Session, _kept_states
from edgeseq.devices.runtimes._mil.control import Values
from edgeseq.devices.runtimes._mil.evaluate import Evaluated, load_functions
from edgeseq.devices.runtimes._mil.precision import Precision
from edgeseq.signature import Signature, Tensors
from edgeseq.stream import Stream


@dataclass(frozen=True, kw_only=True)
class EvaluatorSession:
    """A loaded program, and an engine that keeps states."""

    functions: Mapping[str, Evaluated]
    signatures: Mapping[str, Signature]
    threads: int

    def run(self, inputs: Tensors, signature: str = "forward") -> dict[str, np.ndarray]:
        """Outputs by name, in the signature's types: Core ML's own integers have 32 bits."""
        wanted = self.signatures[signature]
        wanted.check(inputs)
        results = _kept_states.run(self, wanted, inputs)
        return {spec.name: results[spec.name].astype(spec.dtype) for spec in wanted.outputs}

    def new_states(self, signature: Signature) -> Values:
        """The states of all functions, which share those of one name."""
        del signature
        return {name: value for function in self.functions.values() for name, value in function.new_states().items()}

    def read(self, states: Values, name: str) -> np.ndarray:
        """A copy of one state."""
        return np.array(states[name])

    def write(self, states: Values, name: str, value: np.ndarray) -> None:
        """Replace one state, in its type."""
        states[name] = value.astype(np.float16).astype(np.float32)

    def predict(self, inputs: Tensors, signature: Signature, states: Values | None) -> dict[str, np.ndarray]:
        """What the function gives for what it takes; without states it begins with zeros."""
        function = self.functions[signature.program if signature.program in self.functions else "main"]
        threads_before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            return function(inputs, states)
        finally:
            torch.set_num_threads(threads_before)


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

    def stream(self, session: Session, signatures: tuple[Signature, ...], sizes: Mapping[str, int]) -> Stream:
        """States that the program keeps stay in it."""
        assert isinstance(session, EvaluatorSession)
        return _kept_states.stream(session, session, signatures, sizes)


RUNTIME = CoreMLEvaluator()
