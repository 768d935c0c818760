"""Artifacts whose engine keeps the states: run as if they were inputs and outputs, or streamed with the states left inside.

The file's batch is 1, so every row of a batch is a sequence of its own with states of its own.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from edgeseq.devices.runtimes import Session
from edgeseq.devices.runtimes._rows import joined, rows
from edgeseq.signature import Signature, State, Tensors
from edgeseq.stream import Plan, Stream

States = Any  # the engine's own object that holds all states of one sequence


class Engine(Protocol):
    """What an engine with states of its own can do."""

    def new_states(self, signature: Signature) -> States:
        """All states of a new sequence, zero."""
        ...

    def read(self, states: States, name: str) -> np.ndarray:
        """A copy of one state."""
        ...

    def write(self, states: States, name: str, value: np.ndarray) -> None:
        """Replace one state."""
        ...

    def predict(self, inputs: Tensors, signature: Signature, states: States | None) -> dict[str, np.ndarray]:
        """What the file gives for what it takes."""
        ...


def run(engine: Engine, signature: Signature, inputs: Tensors) -> dict[str, np.ndarray]:
    """All outputs of a signature for all its inputs, its states among both."""
    if not signature.keeps_states:
        return engine.predict(inputs, signature, None)
    axes = _batch_axes(signature)
    results = []
    for row in rows(axes, inputs):
        states = engine.new_states(signature)
        for state in signature.states:
            fill(engine, states, state.input, row[state.input])
        outputs = engine.predict(without_states(signature, row), signature, states)
        results.append(outputs | {s.output: _continued(engine, states, signature, s, row) for s in signature.states})
    return joined(axes, results)


def fill(engine: Engine, states: States, name: str, value: np.ndarray) -> None:
    """Put a value into a state; a cache with fewer rows than the engine has room for leaves the others zero."""
    room = engine.read(states, name)
    room[...] = 0
    room[tuple(slice(size) for size in value.shape)] = value
    engine.write(states, name, room)


def without_states(signature: Signature, inputs: Tensors) -> dict[str, np.ndarray]:
    """What the file takes."""
    return {name: value for name, value in inputs.items() if name not in signature.state_inputs}


def _batch_axes(signature: Signature) -> dict[str, int]:
    specs = (*signature.inputs, *signature.outputs)
    return {s.name: s.shape.index(signature.batch) for s in specs if signature.batch and signature.batch in s.shape}


def _continued(engine: Engine, states: States, signature: Signature, state: State, row: Tensors) -> np.ndarray:
    """What the output would be that continues a state: all of it, or the rows that the call wrote."""
    held = engine.read(states, state.input)
    if state.axis is None or state.position is None:
        return held
    first = int(row[state.position][0])
    return held.take(range(first, first + _new_rows(signature, state, row)), state.axis)


def _new_rows(signature: Signature, state: State, row: Tensors) -> int:
    """How many rows a call adds: a fixed number, or as many as an input has entries."""
    size = next(spec.shape[state.axis or 0] for spec in signature.outputs if spec.name == state.output)
    if isinstance(size, int):
        return size
    return next(row[s.name].shape[s.shape.index(size)] for s in signature.inputs if size in s.shape)


class KeptStream(Stream):
    """A stream whose states stay in the engine; they come to the host only where a beam search rearranges them."""

    def __init__(self, engine: Engine, signatures: Iterable[Signature], sizes: Mapping[str, int]):
        known = tuple(signatures)
        capacities = {
            dim.name: dim.max
            for signature in known
            for state in signature.states
            for dim in signature.dims
            if state.axis is not None and dim.name == signature.input(state.input).shape[state.axis]
        }
        super().__init__(
            lambda inputs, name: run(engine, self.signatures[name], inputs), known, {**sizes, **capacities}
        )
        self._engine = engine
        self._inside: list[States] = []  # of each row of the batch; none: the host's are the latest
        self._stateful = next(signature for signature in known if signature.keeps_states)

    def call(self, inputs: Tensors, signature: str) -> dict[str, np.ndarray]:
        """All outputs but those that continue states, which the engine has done."""
        wanted = self.signatures[signature]
        if not wanted.keeps_states:
            return super().call(inputs, signature)
        self._bring_in()
        axes = _batch_axes(wanted)
        calls = zip(rows(axes, inputs), self._inside, strict=True)
        return joined(axes, [self._engine.predict(row, wanted, states) for row, states in calls])

    def recall(self) -> None:
        """Copy the states out; the next call copies them in again."""
        if not self._inside:
            return
        held = [{name: self._engine.read(states, name) for name in self.states} for states in self._inside]
        self.states = {n: v.astype(self.states[n].dtype) for n, v in joined(_batch_axes(self._stateful), held).items()}
        self._inside = []

    def _bring_in(self) -> None:
        if self._inside:
            return
        for row in rows(_batch_axes(self._stateful), self.states):
            states = self._engine.new_states(self._stateful)
            for name, value in row.items():
                fill(self._engine, states, name, value)
            self._inside.append(states)

    def carry_on(self, plan: Plan, outputs: dict[str, np.ndarray]) -> None:
        """Nothing is left to do: what continues states is not among the outputs."""


def stream(engine: Engine, session: Session, signatures: tuple[Signature, ...], sizes: Mapping[str, int]) -> Stream:
    """A sequence in progress, its states where the artifact has them."""
    if any(signature.keeps_states for signature in signatures):
        return KeptStream(engine, signatures, sizes)
    return Stream(session.run, signatures, sizes)
