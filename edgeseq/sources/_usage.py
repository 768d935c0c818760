"""From a way to call a module to its captured signatures and its reference cases."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeseq.capture import Call, as_given, capture_calls, tensors_of
from edgeseq.reference import Case, Kind
from edgeseq.signature import Signature
from edgeseq.sources import Loaded, _streams
from edgeseq.sources._blame import blaming

Sizes = Mapping[str, int]  # dimension -> size
Draw = Callable[[Sizes, np.random.Generator], Mapping[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Usage:
    """A module, the way to call it that is captured, and the inputs that prove it."""

    module: nn.Module
    call: Call
    draw: Draw  # inputs of given sizes, by name
    unseen: Sequence[Sizes]  # sizes at which it is compared; an empty mapping where nothing varies
    bench: Sizes  # sizes that are measured


def load(usage: Usage, *, values: str) -> Loaded:
    """Capture a module and run it.

    Args:
        usage: How it is called.
        values: What is fed while measuring, in words; the shapes are added.
    """
    captured = capture_calls(usage.module, [usage.call])
    cases = reference_cases(usage, captured.signatures)
    measured = next(case for case in cases if case.kind == "bench")
    fed = ", ".join(f"{key} {list(value.shape)}" for key, value in measured.inputs.items())
    return Loaded(captured=captured, cases=tuple(cases), about={"input": f"{values}: {fed}"})


def reference_cases(usage: Usage, signatures: Sequence[Signature]) -> list[Case]:
    """What the module computes at sizes the capture never saw, in chunks if it has states, and at those that are measured."""
    rng = np.random.default_rng(0)
    whole = next(s for s in signatures if s.name == usage.call.name)
    calls = [_case(usage, whole, "parity", sizes, rng) for sizes in usage.unseen]
    for signature in signatures:
        if signature is not whole:  # a case of it
            at = dict.fromkeys(tuple({**sizes, **usage.call.cases[signature.name]}.items()) for sizes in usage.unseen)
            calls += [_case(usage, signature, "parity", dict(sizes), rng) for sizes in at]
    calls.append(_case(usage, whole, "bench", usage.bench, rng))
    with blaming("the model, fed a sequence from empty states,"):
        return [*calls, *_streams.cases(method_of(usage), usage.call, signatures, usage.draw)]


def method_of(usage: Usage) -> Callable[..., Any]:
    """What the call captures."""
    call: Callable[..., Any] = (
        usage.module if usage.call.method == "forward" else getattr(usage.module, usage.call.method)
    )
    return call


@torch.no_grad()
def _case(usage: Usage, signature: Signature, kind: Kind, sizes: Sizes, rng: np.random.Generator) -> Case:
    inputs = usage.draw(sizes, rng)
    call = method_of(usage)
    shapes = ", ".join(f"{key} {list(value.shape)}" for key, value in inputs.items())
    with blaming(f"the model, fed {shapes} within the bounds of its dimensions,"):
        result = call(**inputs) if usage.call.by_name else call(*inputs.values())
    outputs = [as_given(tensor).numpy() for _, tensor in tensors_of(result)]
    return Case(
        name=", ".join(f"{k}={v}" for k, v in sizes.items()) or "the example's shapes",
        kind=kind,
        signature=signature.name,
        inputs={key: _feed(value) for key, value in inputs.items()},
        outputs={spec.name: value for spec, value in zip(signature.outputs, outputs, strict=True)},
    )


def _feed(value: Tensor) -> np.ndarray:
    return value.int().numpy() if value.dtype == torch.int64 else value.numpy()
