"""From ways to call a module to its captured signatures and its reference cases."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from edgeseq.capture import CapturedModel, DynamicShapes, capture, tensors_of
from edgeseq.reference import Case, Kind
from edgeseq.signature import Signature
from edgeseq.sources import Loaded
from edgeseq.sources._blame import blaming

Sizes = Mapping[str, int]  # dimension -> size
Draw = Callable[[Sizes, np.random.Generator], Mapping[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Usage:
    """One way to call a module, which becomes one signature, and the inputs that prove it."""

    module: nn.Module
    examples: Mapping[str, Tensor]  # in the order of the signature's inputs
    shapes: DynamicShapes = field(default_factory=dict)
    name: str = "forward"
    by_name: bool = False  # the inputs are keyword arguments
    draw: Draw  # inputs of given sizes, by name
    unseen: Sequence[Sizes]  # sizes at which it is compared; an empty mapping where nothing varies
    bench: Sizes  # sizes that are measured


def load(usages: Sequence[Usage], *, values: str) -> Loaded:
    """Capture every usage and run it.

    Args:
        usages: One a signature, in the order of the signatures.
        values: What is fed while measuring, in words; the shapes are added.
    """
    signatures: list[Signature] = []
    programs: dict[str, ExportedProgram] = {}
    cases: list[Case] = []
    for usage in usages:
        captured = capture(usage.module, usage.examples, usage.shapes, name=usage.name, by_name=usage.by_name)
        signatures.extend(captured.signatures)
        programs.update(captured.programs)
        cases += reference_cases(usage, captured.signatures[0])
    fed = ", ".join(f"{key} {list(value.shape)}" for key, value in cases[-1].inputs.items())
    model = CapturedModel(signatures=tuple(signatures), programs=programs)
    return Loaded(captured=model, cases=tuple(cases), about={"input": f"{values}: {fed}"})


def reference_cases(usage: Usage, signature: Signature) -> list[Case]:
    """What the module computes at sizes the capture never saw, and at those that are measured."""
    rng = np.random.default_rng(0)
    kinds: list[tuple[Kind, Sizes]] = [*(("parity", sizes) for sizes in usage.unseen), ("bench", usage.bench)]
    return [_case(usage, signature, kind, sizes, rng) for kind, sizes in kinds]


@torch.no_grad()
def _case(usage: Usage, signature: Signature, kind: Kind, sizes: Sizes, rng: np.random.Generator) -> Case:
    inputs = usage.draw(sizes, rng)
    shapes = ", ".join(f"{key} {list(value.shape)}" for key, value in inputs.items())
    with blaming(f"the model, fed {shapes} within the bounds of its dimensions,"):
        result = usage.module(**inputs) if usage.by_name else usage.module(*inputs.values())
    outputs = [tensor.numpy() for _, tensor in tensors_of(result)]
    return Case(
        name=", ".join(f"{k}={v}" for k, v in sizes.items()) or "the example's shapes",
        kind=kind,
        signature=signature.name,
        inputs={key: _feed(value) for key, value in inputs.items()},
        outputs={spec.name: value for spec, value in zip(signature.outputs, outputs, strict=True)},
    )


def _feed(value: Tensor) -> np.ndarray:
    return value.int().numpy() if value.dtype == torch.int64 else value.numpy()
