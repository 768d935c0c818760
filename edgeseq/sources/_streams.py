"""What PyTorch gives for whole sequences that begin with empty states, to compare with artifacts that get them in chunks."""

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from edgeseq import chunks
from edgeseq.capture import Call
from edgeseq.given_types import as_given, tensors_of
from edgeseq.reference import Case
from edgeseq.signature import Dim, Signature, Tensors
from edgeseq.stream import Stream
from edgeseq.tasks import generation

logger = logging.getLogger(__name__)

SIZES = ((1, 24), (3, 13))  # sequences side by side, and steps of each
DIVISIONS = 2  # ways to divide a sequence that PyTorch itself is tried in
DIFFERENCE = 1e-3  # between PyTorch's own results, of an output's largest value; float32 rounds to 1e-5 over 24 steps
PROMPT, NEW = 7, 16  # tokens
Draw = Callable[[Mapping[str, int], np.random.Generator], Mapping[str, Tensor]]
Method = Callable[..., object]


def cases(method: Method, call: Call, signatures: Sequence[Signature], draw: Draw) -> list[Case]:
    """Whole sequences, and what a decoder says after a prompt; none of a signature without states or with fixed steps.

    Of a sequence count the outputs that PyTorch itself gives alike for the whole and in chunks.

    Args:
        method: Of the model, which the call captures.
        call: How it is captured.
        signatures: The call's, with its cases.
        draw: Random inputs of given sizes.
    """
    signature = next(s for s in signatures if s.name == call.name)
    time = chunks.sequence_dim(signature)
    if time is None:
        return []
    rng = np.random.default_rng(0)
    run = _Torch(method, call, signature)
    bounds = {dim.name: dim for dim in signature.dims}
    found = []
    for batch, steps in SIZES:
        inputs = run.drawn(draw(_sizes(bounds, batch, time, steps), rng))
        stream = Stream(run, signatures, chunks.state_sizes(signature, inputs))
        length = next(
            v.shape[s.shape.index(time)] for n, v in inputs.items() if time in (s := signature.input(n)).shape
        )
        outputs = chunks.in_chunks(stream, signature.name, inputs, [length])
        for seed in range(DIVISIONS):
            least = min(bounds[time].min, length)
            lengths = chunks.random_lengths(length, least, np.random.default_rng(seed))
            stream = Stream(run, signatures, chunks.state_sizes(signature, inputs))
            outputs = _same(outputs, chunks.in_chunks(stream, signature.name, inputs, lengths), signature.name)
        if not outputs:
            continue
        name = f"{batch}x{length} in chunks"
        found.append(Case(name=name, kind="chunked", signature=signature.name, inputs=inputs, outputs=outputs))
    return [*found, *_greedy(run, signatures, draw, bounds, time)]


def _same(whole: Tensors, parts: Tensors, signature: str) -> dict[str, np.ndarray]:
    """The outputs for the whole that PyTorch gives in chunks too; a mean over all steps is none, whatever a file computes."""
    found = {}
    for name, value in whole.items():
        limit = DIFFERENCE * float(np.abs(value).max(initial=0.0))
        if value.shape == parts[name].shape and np.allclose(parts[name], value, rtol=0, atol=limit, equal_nan=True):
            found[name] = value
        else:
            logger.warning(
                "output '%s' of signature '%s' depends on how a sequence is divided, in PyTorch too; it is compared in "
                "whole calls only",
                name,
                signature,
            )
    return found


def _greedy(
    run: "_Torch", signatures: Sequence[Signature], draw: Draw, bounds: Mapping[str, Dim], time: str
) -> list[Case]:
    """The tokens that PyTorch finds likeliest after random ones; only where the signatures are a decoder's."""
    by_name = {signature.name: signature for signature in signatures}
    fed = {n: {x.name for x in s.inputs if time in x.shape} - chunks.hidden_inputs(s) for n, s in by_name.items()}
    if not {"prefill", "step"} <= set(fed) or fed["prefill"] != {"tokens"}:
        return []
    inputs = run.drawn(draw(_sizes(bounds, 1, time, PROMPT), np.random.default_rng(1)))
    prefill = by_name["prefill"]
    stream = Stream(run, signatures, chunks.state_sizes(prefill, inputs))
    stream.hold({name: value for name, value in inputs.items() if name != "tokens"})
    count = min(NEW, bounds[time].max - inputs["tokens"].shape[1])
    tokens = generation.greedy(stream, inputs["tokens"], count)
    return [Case(name=f"{count} tokens", kind="greedy", signature="prefill", inputs=inputs, outputs={"tokens": tokens})]


def _sizes(bounds: Mapping[str, Dim], batch: int, time: str, steps: int) -> dict[str, int]:
    """Sizes within the bounds; of what is neither the sequence nor a state's capacity, as many as sequences."""
    wanted = {name: steps if name == time else batch for name in bounds}
    return {name: min(max(size, bounds[name].min), bounds[name].max) for name, size in wanted.items()}


class _Torch:
    """A method of the model as a stream calls an artifact: numpy in, numpy out, by the signature's names."""

    def __init__(self, method: Method, call: Call, signature: Signature):
        self._method = method
        self._call = call
        self._signature = signature

    def drawn(self, values: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """The inputs that a stream is fed, in the signature's types."""
        hidden = chunks.hidden_inputs(self._signature)
        return {n: v.numpy().astype(self._signature.input(n).dtype) for n, v in values.items() if n not in hidden}

    @torch.no_grad()
    def __call__(self, inputs: Tensors, signature: str) -> dict[str, np.ndarray]:
        """Every signature of the call is the same method, at other sizes."""
        del signature
        values = {
            n: torch.from_numpy(np.array(inputs[n])).to(example.dtype) for n, example in self._call.examples.items()
        }
        result = self._method(**values) if self._call.by_name else self._method(*values.values())
        outputs = [as_given(tensor).numpy() for _, tensor in tensors_of(result)]
        return {spec.name: value for spec, value in zip(self._signature.outputs, outputs, strict=True)}
