"""Core ML itself, through coremltools' `MLModel.predict`: macOS only."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgeseq.devices.runtimes import Runtime, Session, _kept_states
from edgeseq.errors import UnavailableError
from edgeseq.quiet_coremltools import quietly
from edgeseq.signature import Signature, Tensors
from edgeseq.stream import Stream

MAIN = "main"  # the function of a package that has one


@dataclass(frozen=True, kw_only=True)
class CoreMLSession:
    """One compiled model a function, each of which serves every signature of its program; and an engine that keeps states."""

    models: Mapping[str, Any]  # by function; coremltools' MLModel is not typed
    signatures: Mapping[str, Signature]

    def run(self, inputs: Tensors, signature: str = "forward") -> dict[str, np.ndarray]:
        """Outputs by name, in the signature's types: Core ML's own integers have 32 bits."""
        wanted = self.signatures[signature]
        wanted.check(inputs)
        results = _kept_states.run(self, wanted, inputs)
        return {spec.name: np.asarray(results[spec.name], spec.dtype) for spec in wanted.outputs}

    def new_states(self, signature: Signature) -> Any:
        """An `MLState`: functions of one package take each other's."""
        return self._model(signature).make_state()

    def read(self, states: Any, name: str) -> np.ndarray:
        """A copy of one state."""
        return np.array(states.read_state(name))

    def write(self, states: Any, name: str, value: np.ndarray) -> None:
        """Replace one state."""
        states.write_state(name, value)

    def predict(self, inputs: Tensors, signature: Signature, states: Any | None) -> dict[str, np.ndarray]:
        """What the function gives for what it takes; without states it begins with zeros."""
        model = self._model(signature)
        if states is None and model._is_stateful():
            states = model.make_state()
        results: dict[str, np.ndarray] = model.predict(dict(inputs), state=states)
        return results

    def _model(self, signature: Signature) -> Any:
        return self.models[signature.program if signature.program in self.models else MAIN]


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
        model = import_module("coremltools.models").MLModel
        with quietly():
            names = _functions(path)
            models = {name: model(str(path), function_name=name) for name in names} or {MAIN: model(str(path))}
        return CoreMLSession(models=models, signatures={signature.name: signature for signature in signatures})

    def stream(self, session: Session, signatures: tuple[Signature, ...], sizes: Mapping[str, int]) -> Stream:
        """States that the program keeps stay in it."""
        assert isinstance(session, CoreMLSession)
        return _kept_states.stream(session, session, signatures, sizes)


def _functions(path: Path) -> list[str]:
    """The names of a package's functions; none where it has one alone."""
    model = import_module("coremltools.proto.Model_pb2").Model
    data = (path / "Data" / "com.apple.CoreML" / "model.mlmodel").read_bytes()
    return [function.name for function in model.FromString(data).description.functions]


RUNTIME = CoreMLRuntime()
