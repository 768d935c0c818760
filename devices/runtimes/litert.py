"""LiteRT's interpreter, as Android and iOS apps and boards run TFLite files: XNNPACK on the CPU."""

import importlib.metadata
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from edgeseq.devices.runtimes import Runtime, Session
from edgeseq.devices.runtimes._rows import count, joined, rows
from edgeseq.quiet_stderr import logged
from edgeseq.signature import Signature, Tensors
from edgeseq.stream import Stream


class LiteRTRuntime(Runtime):
    """`Interpreter`, not `CompiledModel`: the latter aborts on Arm cores without LSE atomics (LiteRT 2.3.0)."""

    format = "tflite"
    batch = 1
    verified_by = f"LiteRT {importlib.metadata.version('ai-edge-litert')}"

    def load(self, path: Path, signatures: tuple[Signature, ...], *, threads: int) -> "LiteRTSession":
        """One interpreter for all signatures."""
        with logged("litert"):
            return LiteRTSession(Interpreter(str(path), num_threads=threads), signatures)

    def stream(self, session: Session, signatures: tuple[Signature, ...], sizes: Mapping[str, int]) -> Stream:
        """A stream whose caches stay in the interpreter, as they do in an app that writes into its input tensors."""
        assert isinstance(session, LiteRTSession)
        return LiteRTStream(session, signatures, sizes)


class LiteRTSession:
    """One file in one interpreter."""

    def __init__(self, interpreter: Interpreter, signatures: tuple[Signature, ...]):
        self._runners = {s.name: _Runner(interpreter, s, is_primary=i == 0) for i, s in enumerate(signatures)}
        self.primary = self._runners[signatures[0].name]

    def run(self, inputs: Tensors, signature: str = "forward") -> dict[str, np.ndarray]:
        """Outputs by name. The file's batch is 1; a larger one runs row by row."""
        runner = self._runners[signature]
        single = rows(runner.batch_axes, inputs)
        if len(single) == 1:
            return runner.run(single[0])
        results = [{name: value.copy() for name, value in runner.run(row).items()} for row in single]
        return joined(runner.batch_axes, results)


class _Runner:
    """One signature: tensor numbers by name, the shapes it is prepared for, and where the batch is."""

    def __init__(self, interpreter: Interpreter, signature: Signature, *, is_primary: bool):
        self._interpreter = interpreter
        self._name = signature.name
        self._is_primary = is_primary  # the interpreter's own calls, the cheaper ones, reach the first subgraph only
        runner = interpreter.get_signature_runner(signature.name)
        details = runner.get_input_details()
        self._inputs = {name: detail["index"] for name, detail in details.items()}
        outputs = runner.get_output_details()
        self._outputs = {spec.name: outputs[spec.name]["index"] for spec in signature.outputs}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._windows: dict[str, np.ndarray] = {}
        self.kept_for: LiteRTStream | None = None  # whose caches its input tensors hold
        # A dimension that varies in the model and is fixed in the file is the batch.
        fixed = [(spec, details[spec.name]["shape_signature"]) for spec in signature.inputs if spec.name in details]
        batch = {
            have
            for spec, sizes in fixed
            for have, size in zip(spec.shape, sizes, strict=True)
            if isinstance(have, str) and size >= 0
        }
        self.batch_axes = {
            spec.name: axis
            for spec in (*signature.inputs, *signature.outputs)
            for axis, size in enumerate(spec.shape)
            if size in batch
        }

    def run(self, inputs: Tensors) -> dict[str, np.ndarray]:
        """One row."""
        if not self._is_primary:
            # The interpreter refuses its own calls while a signature runner is alive.
            results = self._interpreter.get_signature_runner(self._name)(**inputs)
            return {name: results[name] for name in self._outputs}
        if self.kept_for is not None:
            self.kept_for.recall()
        interpreter = self._interpreter
        shapes = {name: inputs[name].shape for name in self._inputs}
        if shapes != self._shapes:
            for name, index in self._inputs.items():
                interpreter.resize_tensor_input(index, shapes[name])
            with logged("litert"):
                interpreter.allocate_tensors()
            self._shapes = shapes
            self._windows = {}
        return self.go_on(inputs)

    def fits(self, inputs: Tensors) -> bool:
        """Whether it is prepared for the shapes of these inputs."""
        return all(value.shape == self._shapes[name] for name, value in inputs.items() if name in self._inputs)

    def go_on(self, inputs: Tensors) -> dict[str, np.ndarray]:
        """One row, all other inputs being what they were."""
        for name, value in inputs.items():
            if name in self._inputs:
                self._interpreter.set_tensor(self._inputs[name], value)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}

    def window(self, name: str) -> np.ndarray:
        """An input tensor itself, valid until the next call with other shapes.

        The interpreter refuses to run while anyone holds the array that it gives out, and making one takes longer than
        writing a row into it; hence an array of our own over the same memory, which only `allocate_tensors` moves.
        """
        if name not in self._windows:
            given = self._interpreter.tensor(self._inputs[name])()
            self._windows[name] = np.asarray(_Memory(given.__array_interface__))
        return self._windows[name]


class _Memory:
    """What numpy needs to see memory as an array without owning it."""

    def __init__(self, interface: Mapping[str, object]):
        self.__array_interface__ = dict(interface)


class LiteRTStream(Stream):
    """Caches and inputs that are held stay in the interpreter's input tensors between calls: only new rows are written.

    So it is with the first signature.
    """

    def __init__(self, session: LiteRTSession, signatures: Iterable[Signature], sizes: Mapping[str, int]):
        super().__init__(session.run, signatures, sizes)
        self._runner = session.primary
        self._primary = next(iter(self.signatures.values()))
        self._caches = [state.input for state in self._primary.states if state.axis is not None]
        self._others = [name for name in self._primary.state_inputs if name not in self._caches]

    def call(self, inputs: Tensors, signature: str) -> dict[str, np.ndarray]:
        """All outputs; of the first signature, at batch 1, without copying caches in."""
        if signature != self._primary.name or count(self._runner.batch_axes, inputs) > 1:
            self.recall()
            return super().call(inputs, signature)
        if self._runner.kept_for is self:
            states = {name: self.states[name] for name in self._others}
            changed = {name: value for name, value in {**inputs, **states}.items() if name not in self.held}
            if self._runner.fits(changed):
                return self._runner.go_on(changed)
            self.recall()  # the interpreter is prepared anew, which empties its input tensors
        outputs = super().call(inputs, signature)
        self._runner.kept_for = self
        return outputs

    def writable(self, name: str) -> np.ndarray:
        """The interpreter's memory while it has the states, else the host's."""
        return self._runner.window(name) if self._runner.kept_for is self else self.states[name]

    def recall(self) -> None:
        """Copy the caches out; the next call copies them in again."""
        if self._runner.kept_for is self:
            self.states |= {name: self._runner.window(name).copy() for name in self._caches}
            self._runner.kept_for = None


RUNTIME = LiteRTRuntime()
