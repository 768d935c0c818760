"""From a way to call a module to its captured signatures and its reference cases."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeseq.capture import Call, capture_calls
from edgeseq.given_types import as_given, tensors_of
from edgeseq.half_precision import in_float32, types_of, widened_examples
from edgeseq.reference import Case, Kind
from edgeseq.signature import Signature
from edgeseq.sources import Loaded, _streams
from edgeseq.sources._blame import blaming

Sizes = Mapping[str, int]  # dimension -> size
Draw = Callable[[Sizes, np.random.Generator], Mapping[str, Tensor]]
Answer = Callable[[Mapping[str, Tensor]], Sequence[Tensor]]


@dataclass(frozen=True, kw_only=True)
class Usage:
    """A module, the way to call it that is captured, and the inputs that prove it."""

    module: nn.Module
    call: Call
    draw: Draw  # inputs of given sizes, by name
    unseen: Sequence[Sizes]  # sizes at which it is compared; an empty mapping where nothing varies
    bench: Sizes  # sizes that are measured
    answer: Answer | None = None  # what is expected, computed in another way; None: what the call gives


def load(usages: Sequence[Usage], *, values: str) -> Loaded:
    """Capture a module and run it.

    Args:
        usages: How it is called, in each way; the first signature of the first is what is measured.
        values: What is fed while measuring, in words; the shapes are added.
    """
    halves = types_of(usages[0].module)
    if halves:
        usages = [_widened(usage, module) for module in [in_float32(usages[0].module)] for usage in usages]
        values += f" (the model is {' and '.join(halves)}, and was captured in float32)"
    captured = capture_calls(usages[0].module, [usage.call for usage in usages])
    cases = [
        case
        for usage in usages
        for case in reference_cases(
            usage,
            [signature for signature in captured.signatures if signature.program == usage.call.name],
            measured=captured.signatures[0].name,
        )
    ]
    measured = next(case for case in cases if case.kind == "bench")
    fed = ", ".join(f"{key} {list(value.shape)}" for key, value in measured.inputs.items())
    return Loaded(captured=captured, cases=tuple(cases), about={"input": f"{values}: {fed}"})


def reference_cases(usage: Usage, signatures: Sequence[Signature], *, measured: str) -> list[Case]:
    """What the module computes at sizes the capture never saw, in chunks if it has states, and at those that are measured.

    Args:
        usage: How it is called.
        signatures: The call's: its own, and its cases, which have some dimensions fixed.
        measured: The signature that is measured, of this call or another.
    """
    rng = np.random.default_rng(0)
    cases = []
    for signature in signatures:
        fixed = usage.call.cases.get(signature.name, {})
        unseen = dict.fromkeys(tuple({**sizes, **fixed}.items()) for sizes in usage.unseen)
        kinds: list[tuple[Kind, Sizes]] = [("parity", dict(sizes)) for sizes in unseen]
        kinds += [("bench", {**usage.bench, **fixed})] if signature.name == measured else []
        cases += [_case(usage, signature, kind, sizes, rng) for kind, sizes in kinds]
    with blaming("the model, fed a sequence from empty states,"):
        return [*cases, *_streams.cases(usage.call.of(usage.module), usage.call, signatures, usage.draw)]


@torch.no_grad()
def _case(usage: Usage, signature: Signature, kind: Kind, sizes: Sizes, rng: np.random.Generator) -> Case:
    inputs = usage.draw(sizes, rng)
    shapes = ", ".join(f"{key} {list(value.shape)}" for key, value in inputs.items())
    with blaming(f"the model, fed {shapes} within the bounds of its dimensions,"):
        result = _answer(usage, inputs)
    outputs = [as_given(tensor).numpy() for _, tensor in tensors_of(result)]
    sized = ", ".join(f"{k}={v}" for k, v in sizes.items()) or "the example's shapes"
    return Case(
        name=sized if signature.name == "forward" else f"{signature.name}: {sized}",
        kind=kind,
        signature=signature.name,
        inputs={key: _feed(value) for key, value in inputs.items()},
        outputs={spec.name: value for spec, value in zip(signature.outputs, outputs, strict=True)},
    )


def _widened(usage: Usage, module: nn.Module) -> Usage:
    """The same with the module in float32, and fed float32."""
    return replace(
        usage,
        module=module,
        call=replace(usage.call, examples=widened_examples(usage.call.examples)),
        draw=lambda sizes, rng: widened_examples(usage.draw(sizes, rng)),
    )


def _answer(usage: Usage, inputs: Mapping[str, Tensor]) -> Any:
    if usage.answer is not None:
        return usage.answer(inputs)
    called = usage.call.of(usage.module)
    return called(**inputs) if usage.call.by_name else called(*inputs.values())


def _feed(value: Tensor) -> np.ndarray:
    return value.int().numpy() if value.dtype == torch.int64 else value.numpy()
