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

CAPACITY_STEP = 32  # capacities are multiples of it: every unused row is read at each call


@dataclass(frozen=True, kw_only=True)
class _Caches:
    """Caches of one signature that grow together."""

    position: str
    axis: int
    states: tuple[State, ...]
    size: int | None  # how many rows a call adds; None: as many as an input has entries
    counted: tuple[str, int]  # that input, and its axis

    def new_rows(self, inputs: Tensors) -> int:
        """How many rows a call with these inputs adds."""
        return inputs[self.counted[0]].shape[self.counted[1]] if self.size is None else self.size


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do with the states after a call of one signature; sorted out once, since a step takes less than 1 ms."""

    replaced: tuple[State, ...]
    caches: tuple[_Caches, ...]

    @classmethod
    def of(cls, signature: Signature) -> Self:
        """By the states' rules."""
        groups: dict[tuple[str, int], list[State]] = {}
        for state in signature.states:
            if state.axis is not None and state.position is not None:
                groups.setdefault((state.position, state.axis), []).append(state)
        caches = []
        for (position, axis), states in groups.items():
            rows = next(spec.shape[axis] for spec in signature.outputs if spec.name == states[0].output)
            places = [(spec.name, i) for spec in signature.inputs for i, size in enumerate(spec.shape) if size == rows]
            caches.append(
                _Caches(
                    position=position,
                    axis=axis,
                    states=tuple(states),
                    size=rows if isinstance(rows, int) else None,
                    counted=places[0] if isinstance(rows, str) and places else ("", 0),
                )
            )
        replaced = tuple(state for state in signature.states if state.axis is None or state.position is None)
        return cls(replaced=replaced, caches=tuple(caches))


class Stream:
    """One sequence, or a batch of them, and the states that its signatures share; they begin as zeros.

    Args:
        run: How the artifact is called.
        signatures: Of the artifact; states of one name are one state.
        sizes: Of the dynamic dimensions of states, such as the batch. Capacities of caches grow by themselves; one that is
            given here is the first, which spares an engine that prepares itself anew at each growth (LiteRT) some time.

    Raises:
        RequestError: A dimension of a state has no size, or one beyond what the signature allows.
    """

    def __init__(self, run: Run, signatures: Iterable[Signature], sizes: Mapping[str, int]):
        self._run = run
        self.signatures = {signature.name: signature for signature in signatures}
        self.sizes = dict(sizes)
        self.states: dict[str, np.ndarray] = {}
        self.held: dict[str, np.ndarray] = {}  # inputs that stay what they are
        self.positions: dict[str, np.ndarray] = {}  # rows in use of each sequence, int32, by the input that takes them
        self._plans = {name: Plan.of(signature) for name, signature in self.signatures.items()}
        for signature in self.signatures.values():
            _check_bounds(signature, sizes)
            for state in signature.states:
                if state.axis is not None:
                    dim = signature.input(state.input).shape[state.axis]
                    most = next((d.max for d in signature.dims if d.name == dim), CAPACITY_STEP)
                    self.sizes.setdefault(str(dim), min(CAPACITY_STEP, most))
                self.states[state.input] = self._zeros(signature, state.input)
                if state.position is not None:
                    self.positions[state.position] = self._zeros(signature, state.position)

    def run(self, inputs: Tensors, signature: str) -> dict[str, np.ndarray]:
        """What a signature gives for its other inputs; the states go on from there.

        Raises:
            RequestError: A cache would have to hold more rows than the model can use.
        """
        plan = self._plans[signature]
        wanted = {spec.name for spec in self.signatures[signature].inputs}
        inputs = {**{name: value for name, value in self.held.items() if name in wanted}, **inputs}
        for cache in plan.caches:
            self._make_room(self.signatures[signature], cache, inputs)
        positions = {cache.position: self.positions[cache.position] for cache in plan.caches}
        outputs = self.call({**inputs, **positions}, signature)
        self.carry_on(plan, outputs)
        added = {cache.position: cache.new_rows(inputs) for cache in plan.caches}
        for position, count in added.items():  # once, though caches along several axes may share it
            self.positions[position] = self.positions[position] + np.int32(count)
        return outputs

    def hold(self, inputs: Tensors) -> None:
        """Inputs that later calls take besides their own, such as what `encode` gave; others are passed over."""
        self.recall()
        named = {spec.name for signature in self.signatures.values() for spec in signature.inputs}
        self.held |= {name: value for name, value in inputs.items() if name in named}

    def choose(self, rows: Sequence[int]) -> None:
        """Go on from these sequences of the batch, which may repeat: what a beam search keeps."""
        self.recall()
        for name, axis in self._batch_axes().items():
            kept = self.held if name in self.held else self.states
            kept[name] = kept[name].take(rows, axis)
        self.positions = {name: value.take(rows) for name, value in self.positions.items()}

    def call(self, inputs: Tensors, signature: str) -> dict[str, np.ndarray]:
        """All outputs for the inputs and the states as they are."""
        return self._run({**inputs, **{n: self.states[n] for n in self.signatures[signature].state_inputs}}, signature)

    def writable(self, name: str) -> np.ndarray:
        """Where a state lies now, to write new rows into."""
        return self.states[name]

    def recall(self) -> None:
        """Bring `states` up to date where an engine keeps them itself; called before they are read on the host."""

    def carry_on(self, plan: Plan, outputs: dict[str, np.ndarray]) -> None:
        """Take from the outputs what continues states."""
        for state in plan.replaced:
            self.states[state.input] = outputs.pop(state.output)
        for cache in plan.caches:
            self._append(cache, [outputs.pop(state.output) for state in cache.states])

    def _append(self, cache: "_Caches", new: Sequence[np.ndarray]) -> None:
        """Write the rows of each sequence where its own rows in use end."""
        starts, count = self.positions[cache.position].tolist(), new[0].shape[cache.axis]
        before = (slice(None),) * cache.axis
        if min(starts) == max(starts):
            index = (*before, slice(starts[0], starts[0] + count))
            for state, rows in zip(cache.states, new, strict=True):
                self.writable(state.input)[index] = rows
            return
        for state, rows in zip(cache.states, new, strict=True):
            batch = self._batch_axes()[state.input]
            for row, start in enumerate(starts):
                of_row: list[int | slice] = [*before, slice(start, start + count)]
                of_row[batch] = slice(row, row + 1)
                self.writable(state.input)[tuple(of_row)] = rows.take([row], batch)

    def _make_room(self, signature: Signature, cache: "_Caches", inputs: Tensors) -> None:
        """Enlarge caches to the next step of capacity that the new rows fit into."""
        needed = int(self.positions[cache.position].max()) + cache.new_rows(inputs)
        if needed <= self.states[cache.states[0].input].shape[cache.axis]:
            return
        dim = signature.input(cache.states[0].input).shape[cache.axis]
        most = next((d.max for d in signature.dims if d.name == dim), dim if isinstance(dim, int) else needed)
        if needed > most:
            raise RequestError(
                f"signature '{signature.name}' has caches of {most} rows at most, but {needed} are needed; start a new stream"
            )
        self.recall()
        have = self.states[cache.states[0].input].shape[cache.axis]
        wanted = max(needed, have + have // 2)  # growing by a factor copies every row a few times in all
        capacity = min(most, -(-wanted // CAPACITY_STEP) * CAPACITY_STEP)
        for state in cache.states:
            held = self.states[state.input]
            added = capacity - held.shape[cache.axis]
            self.states[state.input] = np.pad(held, [(0, added if i == cache.axis else 0) for i in range(held.ndim)])

    def _batch_axes(self) -> dict[str, int]:
        """Where each state has the axis of the sequences: the dimension that other inputs begin with."""
        axes: dict[str, int] = {}
        for signature in self.signatures.values():
            first = next(s.shape[0] for s in signature.inputs if s.name not in signature.state_inputs and s.shape)
            kept = {*signature.state_inputs, *self.held}
            axes |= {spec.name: spec.shape.index(first) for spec in signature.inputs if spec.name in kept}
        return axes

    def _zeros(self, signature: Signature, name: str) -> np.ndarray:
        spec = signature.input(name)
        unknown = [size for size in spec.shape if isinstance(size, str) and size not in self.sizes]
        if unknown:
            raise RequestError(f"a stream of signature '{signature.name}' needs the size of {', '.join(unknown)}")
        return np.zeros([size if isinstance(size, int) else self.sizes[size] for size in spec.shape], spec.dtype)


def _check_bounds(signature: Signature, sizes: Mapping[str, int]) -> None:
    for dim in signature.dims:
        if not dim.min <= sizes.get(dim.name, dim.min) <= dim.max:
            raise RequestError(
                f"a stream of signature '{signature.name}' was given the size {sizes[dim.name]} of {dim.name}, which goes "
                f"from {dim.min} to {dim.max}"
            )
