"""What is refused before a model is exported, since no file that came out would be right.

Each check names the layer or the input, and what to do about it.
"""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from edgeseq.errors import RequestError, UnsupportedError

FLOAT = torch.float32
INPUTS = (torch.float32, torch.int32, torch.int64, torch.bool)  # the types that every format has as inputs
LISTED = 5  # layers named at most
ALLOWED_INFINITE = "buffer"  # masks of attention are infinite by intent
# What torch.export says -> what it means for the model's author. The first that fits is shown.
ADVICE: Mapping[str, str] = {
    "Could not extract specialized integer from data-dependent": (
        "a size depends on the values of a tensor; mask what is not wanted instead of selecting the rest"
    ),
    "data-dependent": (
        "the model's path depends on the values of a tensor; use torch.where(condition, a, b), which computes both, "
        "or leave the choice to the app (torch.cond converts to ONNX alone)"
    ),
    "Constraints violated": "a dimension that is called dynamic is fixed, or bounded more tightly, by the model",
}


def require_convertible(model: nn.Module, calls: Iterable[Mapping[str, Tensor]]) -> None:
    """Refuse weights that the formats cannot hold or that are no numbers, and such inputs among the examples of each call.

    Raises:
        UnsupportedError: An input or a weight has a type that not every format has.
        RequestError: An example or a weight is broken.
    """
    for examples in calls:
        _check_inputs(examples)
    weights = list(_weights(model))
    _check_types(weights)
    _check_numbers(weights)


def explained(error: Exception) -> str:
    """Torch.export's complaint in one line, with what to change where that is known."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = f"{type(error).__name__}: {lines[0] if lines else ''}"
    text = f"{type(error).__name__} {error}"
    for sign, advice in ADVICE.items():
        if sign in text:
            return f"{advice} ({first[:200]})"
    return first


def _check_inputs(examples: Mapping[str, Tensor]) -> None:
    for name, value in examples.items():
        if value.dtype not in INPUTS:
            raise UnsupportedError(
                f"input '{name}' is {_name(value.dtype)}, which not every format can take; feed "
                f"{', '.join(map(_name, INPUTS))} and convert it in the model's forward, or feed example.float()"
            )
        if value.numel() == 0:
            raise RequestError(f"the example of input '{name}' has shape {list(value.shape)}, which holds no value")


def _check_types(weights: list[tuple[str, str, Tensor]]) -> None:
    wrong = [(name, value) for name, _, value in weights if value.dtype != FLOAT and _is_number_of_floats(value)]
    if wrong:
        types = ", ".join(sorted({_name(value.dtype) for _, value in wrong}))
        raise UnsupportedError(
            f"{len(wrong)} weight(s) of the model are {types}, the first is '{wrong[0][0]}'; files are made from float32 and "
            "then quantized: call model.float() before it is exported"
        )


def _check_numbers(weights: list[tuple[str, str, Tensor]]) -> None:
    broken = []
    for name, kind, value in weights:
        if value.is_floating_point():
            bad = value.isnan() if kind == ALLOWED_INFINITE else ~value.isfinite()
            count = int(bad.sum())
            if count:
                what = "NaN" if bool(value.isnan().any()) else "infinite"
                broken.append(f"{kind} '{name}' ({count:,} of {value.numel():,} values are {what})")
    if broken:
        more = f" and {len(broken) - LISTED} more" if len(broken) > LISTED else ""
        raise RequestError(
            f"the model's weights are no numbers: {', '.join(broken[:LISTED])}{more}; load a sound checkpoint"
        )


def _weights(model: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    for name, parameter in model.named_parameters():
        yield name, "parameter", parameter.detach()
    for name, buffer in model.named_buffers():
        yield name, "buffer", buffer


def _is_number_of_floats(value: Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
