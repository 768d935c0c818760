"""A sequence in progress: the states of an artifact's signatures between its calls, kept and continued on the host.

What an app does with a decoder, written out: feed the states, write the new rows of each cache at its position, and let
the caches grow in steps, since a call costs in proportion to the capacity that it is given.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from edgeseq.errors import RequestError
from edgeseq.signature import Run, Signature, State, Tensors

Index = tuple[int | slice, ...]

CAPACITY_STEP = 32  # rows by which caches grow: every growth copies them, every unused row is read at each call


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What to do with the states after a call of one signature."""

    replaced: tuple[State, ...]
    caches: Mapping[str, tuple[State, ...]]  # by the input that counts their rows in use

    @classmethod
    def of(cls, signature: Signature) -> Self:
        """Sorted once, since a step takes less than a millisecond."""
        caches: dict[str, tuple[State, ...]] = {}
        for state in signature.states:
            if state.axis is not None and state.position is not None:
                caches[state.position] = (*caches.get(state.position, ()), state)
        replaced = tuple(state for state in signature.states if state.axis is None or state.position is None)
        return cls(replaced=replaced, caches=caches)


class Stream:
    """One sequence, or a batch of them, and the states that its signatures share; they begin as zeros.

    Args:
        run: How the artifact is called.
        signatures: Of the artifact; states of one name are one state.
        sizes: Of the dynamic dimensions of states, such as the batch; capacities of caches grow by themselves.

    Raises:
        RequestError: A dimension of a state has no size.
    """

    def __init__(self, run: Run, signatures: Iterable[Signature], sizes: Mapping[str, int]):
        self._run = run
        self.signatures = {signature.name: signature for signature in signatures}
        self.sizes = dict(sizes)
        self.states: dict[str, np.ndarray] = {}
        self.positions: dict[str, np.ndarray] = {}  # rows in use of each sequence, int32, by the input that takes them
        self._plans = {name: _Plan.of(signature) for name, signature in self.signatures.items()}
        for signature in self.signatures.values():
            for state in signature.states:
                if state.axis is not None:
                    dim = signature.input(state.input).shape[state.axis]
                    most = next((d.max for d in signature.dims if d.name == dim), CAPACITY_STEP)
                    self.sizes[str(dim)] = min(CAPACITY_STEP, most)
                self.states[state.input] = self._zeros(signature, state.input)
                if state.position is not None:
                    self.positions[state.position] = self._zeros(signature, state.position)

    def run(self, inputs: Tensors, signature: str) -> dict[str, np.ndarray]:
        """What a signature gives for its other inputs; the states go on from there.

        Raises:
            RequestError: A cache would have to hold more rows than the model can use.
        """
        plan = self._plans[signature]
        outputs = self.call({**inputs, **{name: self.positions[name] for name in plan.caches}}, signature)
        for state in plan.replaced:
            self.states[state.input] = outputs.pop(state.output)
        for position, caches in plan.caches.items():
            self._append(signature, position, [(cache, outputs.pop(cache.output)) for cache in caches])
        return outputs

    def choose(self, rows: Sequence[int]) -> None:
        """Go on from these sequences of the batch, which may repeat: what a beam search keeps."""
        self.recall()
        for name, axis in self._batch_axes().items():
            self.states[name] = self.states[name].take(rows, axis)
        self.positions = {name: value.take(rows) for name, value in self.positions.items()}

    def call(self, inputs: Tensors, signature: str) -> dict[str, np.ndarray]:
        """All outputs for the inputs and the states as they are."""
        return self._run({**inputs, **{n: self.states[n] for n in self.signatures[signature].state_inputs}}, signature)

    def write(self, name: str, index: Index, rows: np.ndarray) -> None:
        """Put new rows into a state."""
        self.states[name][index] = rows

    def recall(self) -> None:
        """Bring `states` up to date where an engine keeps them itself; called before they are read on the host."""

    def _append(self, signature: str, position: str, new: Sequence[tuple[State, np.ndarray]]) -> None:
        """Write the rows of each sequence where its own rows in use end; these caches have the same axis."""
        starts = self.positions[position].tolist()
        axis = new[0][0].axis or 0
        count = new[0][1].shape[axis]
        self._make_room(self.signatures[signature], [state for state, _ in new], max(starts) + count)
        self.positions[position] = self.positions[position] + np.int32(count)
        before = (slice(None),) * axis
        if min(starts) == max(starts):
            index = (*before, slice(starts[0], starts[0] + count))
            for state, rows in new:
                self.write(state.input, index, rows)
            return
        for state, rows in new:
            batch = self._batch_axes()[state.input]
            for row, start in enumerate(starts):
                of_row: list[int | slice] = [*before, slice(start, start + count)]
                of_row[batch] = slice(row, row + 1)
                self.write(state.input, tuple(of_row), rows.take([row], batch))

    def _make_room(self, signature: Signature, states: Iterable[State], needed: int) -> None:
        """Enlarge caches to the next step of capacity."""
        for state in states:
            axis, held = state.axis or 0, self.states[state.input]
            if needed <= held.shape[axis]:
                continue
            dim = signature.input(state.input).shape[axis]
            most = next((d.max for d in signature.dims if d.name == dim), held.shape[axis])
            if needed > most:
                raise RequestError(
                    f"state '{state.input}' holds {most} rows at most, but {needed} are needed; start a new sequence"
                )
            self.recall()
            held = self.states[state.input]
            added = min(most, -(-needed // CAPACITY_STEP) * CAPACITY_STEP) - held.shape[axis]
            self.states[state.input] = np.pad(held, [(0, added if i == axis else 0) for i in range(held.ndim)])

    def _batch_axes(self) -> dict[str, int]:
        """Where each state has the axis of the sequences: the dimension that other inputs begin with."""
        axes = {}
        for signature in self.signatures.values():
            first = next(s.shape[0] for s in signature.inputs if s.name not in signature.state_inputs and s.shape)
            axes |= {name: signature.input(name).shape.index(first) for name in signature.state_inputs}
        return axes

    def _zeros(self, signature: Signature, name: str) -> np.ndarray:
        spec = signature.input(name)
        unknown = [size for size in spec.shape if isinstance(size, str) and size not in self.sizes]
        if unknown:
            raise RequestError(f"a stream of signature '{signature.name}' needs the size of {', '.join(unknown)}")
        return np.zeros([size if isinstance(size, int) else self.sizes[size] for size in spec.shape], spec.dtype)
