"""A sequence in progress: the states of an artifact's signatures between its calls, kept and continued on the host.

What an app does with a decoder, written out: feed the states, write the new rows of each cache at its position, and let
the caches grow in steps, since a call costs in proportion to the capacity that it is given.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from edgeseq.errors import RequestError
from edgeseq.signature import Run, Signature, Tensors

Index = tuple[int | slice, ...]

CAPACITY_STEP = 32  # rows by which caches grow: every growth copies them, every unused row is read at each call


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
        called = self.signatures[signature]
        positions = {name: self.positions[name] for state in called.states if (name := state.position) is not None}
        outputs = self.call({**inputs, **positions}, signature)
        counts = {s.position: outputs[s.output].shape[s.axis] for s in called.states if s.axis is not None}
        self._make_room(called, counts)
        for state in called.states:
            rows = outputs.pop(state.output)
            if state.axis is None or state.position is None:
                self.states[state.input] = rows
            else:
                self._append(state.input, state.axis, self.positions[state.position].tolist(), rows)
        for name in positions:
            self.positions[name] = self.positions[name] + np.int32(counts[name])
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

    def _append(self, name: str, axis: int, starts: list[int], rows: np.ndarray) -> None:
        """Write the rows of each sequence of the batch where its own rows in use end."""
        before, count = (slice(None),) * axis, rows.shape[axis]
        if len(set(starts)) == 1:
            self.write(name, (*before, slice(starts[0], starts[0] + count)), rows)
            return
        batch = self._batch_axes()[name]
        for row, start in enumerate(starts):
            index: list[int | slice] = [*before, slice(start, start + count)]
            index[batch] = slice(row, row + 1)
            self.write(name, tuple(index), rows.take([row], batch))

    def _make_room(self, signature: Signature, counts: Mapping[str | None, int]) -> None:
        """Enlarge caches to the next step of capacity."""
        for state in signature.states:
            if state.axis is None or state.position is None:
                continue
            dim = signature.input(state.input).shape[state.axis]
            have = self.states[state.input].shape[state.axis]
            needed = int(self.positions[state.position].max()) + counts[state.position]
            if needed <= have:
                continue
            most = next((d.max for d in signature.dims if d.name == dim), have)
            if needed > most:
                raise RequestError(
                    f"state '{state.input}' holds {most} rows at most, but {needed} are needed; start a new sequence"
                )
            self.recall()
            capacity = min(most, -(-needed // CAPACITY_STEP) * CAPACITY_STEP)
            widths = [(0, capacity - have if i == state.axis else 0) for i in range(self.states[state.input].ndim)]
            self.states[state.input] = np.pad(self.states[state.input], widths)

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
