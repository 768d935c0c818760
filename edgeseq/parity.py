"""The parity matrix: one cell for each case of the reference, each to be judged by itself.

A call is compared whole. A sequence with states is given in chunks, through a stream, and must come to what PyTorch gives for
the whole of it at once. Of a decoder the tokens are compared that it would choose after a prompt and after each token that
PyTorch chose: where all of them agree, so do the texts that both would generate.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeseq import chunks
from edgeseq.reference import Case, Kind
from edgeseq.signature import Run, Signature, Tensors
from edgeseq.stream import Stream
from edgeseq.tasks import generation
from edgeseq.tolerance import Tolerance

LOGITS = "logits"  # the output whose highest entry along the last axis is a choice

Streams = Callable[[Mapping[str, int]], Stream]  # sizes of states -> a sequence that begins with empty states


@dataclass(frozen=True, kw_only=True)
class ParityCase:
    """One cell: a case and its errors. None: the case has no such number."""

    name: str
    signature: str = "forward"
    kind: Kind = "parity"
    shapes: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, int]  # of the signature's dimensions, those of states left out where these begin empty
    max_abs_error: float | None
    relative_error: float | None  # of each output's largest value; of the worst output
    sqnr_db: (
        float | None
    )  # against the power of this signature's outputs over all cases; infinite where equal to the bit
    agreement: float | None  # fraction of the choices that are the same: of highest logits, or of greedy tokens
    chunks: tuple[int, ...] = ()  # lengths that the sequence was given in
    batch: int | None = None  # None: it does not vary
    signal_power: float = 0.0  # sums of squares, of what was expected and of the errors
    noise_power: float = 0.0
    wrong_types: tuple[str, ...] = ()  # outputs of another type than the signature says

    @property
    def title(self) -> str:
        """The signature and the sizes, such as `prefill 1×17 in chunks of 5+12`."""
        told = "×".join(map(str, self.sizes.values())) or self.name
        parts = f" in chunks of {'+'.join(map(str, self.chunks))}" if self.chunks else ""
        return f"{self.signature} {told}{parts}" + (", greedy tokens" if self.kind == "greedy" else "")

    def failure(self, limit: Tolerance) -> str:
        """What is out of tolerance, with both numbers; NaN always is. Empty: nothing."""
        if self.wrong_types:
            return ", ".join(self.wrong_types)
        error, noise, tokens = self.max_abs_error, self.sqnr_db, self.agreement if self.kind == "greedy" else None
        if error is not None and limit.max_abs_error is not None and not error <= limit.max_abs_error:
            return f"max abs error {error:.2e} > {limit.max_abs_error:.0e}"
        if noise is not None and limit.sqnr_db is not None and not noise >= limit.sqnr_db:
            return f"SQNR {noise:.1f} dB < {limit.sqnr_db:.0f} dB"
        if tokens is not None and limit.token_agreement is not None and not tokens >= limit.token_agreement:
            return f"greedy tokens agree to {tokens:.1%} < {limit.token_agreement:.0%}"
        return ""


@dataclass(frozen=True, kw_only=True)
class Called:
    """How an artifact is called."""

    run: Run
    streams: Streams
    signatures: Mapping[str, Signature]


def sqnr_db(signal: np.ndarray, noise: np.ndarray) -> float:
    """10 log10 of the power of the signal over that of the noise, in decibels."""
    return ratio_db(_power(signal), _power(noise))


def ratio_db(signal_power: float, noise_power: float) -> float:
    """10 log10 of a ratio of powers; infinite without noise."""
    if noise_power == 0:
        return math.inf
    ratio = signal_power / noise_power
    return -math.inf if ratio == 0 else 10 * math.log10(ratio)


def cells(cases: Sequence[Case], artifact: Called) -> tuple[ParityCase, ...]:
    """Every case, run."""
    found = []
    for case in cases:
        signature = artifact.signatures.get(case.signature)
        signals = [c for c in cases if c.signature == case.signature and c.kind != "greedy"]
        if case.kind == "greedy":
            found.append(_greedy(case, artifact))
        elif case.kind == "chunked":
            assert signature is not None, "the reference was made for the artifact's signatures"
            found.append(_chunked(case, signature, artifact, signals))
        else:
            outputs = artifact.run(case.inputs, case.signature)
            found.append(_compared(_cell(case, signature), case, signature, outputs, signals))
    return tuple(found)


def differences(case: Case, outputs: Tensors) -> dict[str, np.ndarray]:
    """Actual minus expected of each output; NaN where an output is missing or of another shape."""
    found = {}
    for key, expected in case.outputs.items():
        actual = outputs.get(key, np.zeros(0))
        same_shape = actual.shape == expected.shape
        found[key] = (
            actual.astype(np.float64) - expected.astype(np.float64) if same_shape else np.full(expected.shape, np.nan)
        )
    return found


def _cell(case: Case, signature: Signature | None) -> ParityCase:
    """The cell without its numbers."""
    sizes: dict[str, int] = {}
    for spec in signature.inputs if signature else ():
        if spec.name in case.inputs:
            shape = case.inputs[spec.name].shape
            sizes |= {str(size): have for size, have in zip(spec.shape, shape, strict=True) if isinstance(size, str)}
    known = {dim.name for dim in signature.dims} if signature else set()
    first = next((spec.shape[0] for spec in signature.inputs if spec.shape), None) if signature else None
    return ParityCase(
        name=case.name,
        signature=case.signature,
        kind=case.kind,
        shapes={key: value.shape for key, value in case.inputs.items()},
        sizes={name: size for name, size in sizes.items() if name in known},
        max_abs_error=None,
        relative_error=None,
        sqnr_db=None,
        agreement=None,
        batch=sizes.get(str(first)),
    )


def _compared(
    cell: ParityCase, case: Case, signature: Signature | None, outputs: Tensors, signals: Iterable[Case]
) -> ParityCase:
    """The cell with the errors of these outputs."""
    noise = differences(case, outputs)
    noise_power = sum(_power(values) for values in noise.values())
    flat = np.concatenate([np.zeros(0), *(values.ravel() for values in noise.values())])
    signal = np.concatenate([np.zeros(0), *(v.ravel() for c in signals for v in c.outputs.values())])
    per_value = _power(signal) / max(signal.size, 1)
    ratios = [
        _ratio(np.abs(noise[key]).max(initial=0.0), np.abs(v).max(initial=0.0)) for key, v in case.outputs.items()
    ]
    return replace(
        cell,
        wrong_types=tuple(_wrong_types(signature, outputs)),
        max_abs_error=float(np.abs(flat).max(initial=0.0)),
        relative_error=max(ratios, key=lambda r: (math.isnan(r), r), default=0.0),
        sqnr_db=ratio_db(per_value, noise_power / max(flat.size, 1)),
        signal_power=sum(_power(values) for values in case.outputs.values()),
        noise_power=noise_power,
        agreement=_agreement(case.outputs.get(LOGITS), outputs.get(LOGITS)),
    )


def _chunked(case: Case, signature: Signature, artifact: Called, signals: Sequence[Case]) -> ParityCase:
    """A whole sequence in chunks whose lengths are drawn from its shape, so that each format gets the same ones."""
    dim = chunks.sequence_dim(signature)
    cell = _cell(case, signature)
    least = next(d.min for d in signature.dims if d.name == dim)
    lengths = chunks.random_lengths(cell.sizes[str(dim)], least, np.random.default_rng(tuple(cell.sizes.values())))
    stream = artifact.streams(chunks.state_sizes(signature, case.inputs))
    outputs = chunks.in_chunks(stream, case.signature, case.inputs, lengths)
    return _compared(replace(cell, chunks=lengths), case, signature, outputs, signals)


def _greedy(case: Case, artifact: Called) -> ParityCase:
    """The tokens that it chooses while PyTorch's are fed."""
    signature = artifact.signatures[case.signature]
    stream = artifact.streams(chunks.state_sizes(signature, case.inputs))
    stream.hold({name: value for name, value in case.inputs.items() if name != "tokens"})
    expected = case.outputs["tokens"]
    chosen = generation.choices(stream, case.inputs["tokens"], expected)
    return replace(_cell(case, signature), agreement=generation.token_agreement(chosen, expected))


def _wrong_types(signature: Signature | None, outputs: Tensors) -> list[str]:
    """What the file gives in another type than its signature says."""
    specs = [spec for spec in signature.outputs if spec.name in outputs] if signature else []
    given = [(spec, outputs[spec.name].dtype) for spec in specs]
    return [f"{spec.name} is {dtype}, not {spec.dtype}" for spec, dtype in given if dtype != np.dtype(spec.dtype)]


def _agreement(expected: np.ndarray | None, actual: np.ndarray | None) -> float | None:
    """The fraction of places (…, C) where both have their highest entry at the same of C > 1; None: there is no choice."""
    if expected is None or expected.ndim == 0 or expected.shape[-1] < 2 or not expected.size:
        return None
    if actual is None or actual.shape != expected.shape:
        return 0.0
    return float((actual.argmax(-1) == expected.argmax(-1)).mean())


def _ratio(error: float, largest: float) -> float:
    if error == 0:
        return 0.0
    return float(error / largest) if largest else math.inf


def _power(values: np.ndarray) -> float:
    return float(np.square(values, dtype=np.float64).sum())
