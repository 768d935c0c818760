"""Signatures of fixed lengths beside the one of any length, for apps and delegates that want static shapes.

`forward_128` is `forward` at 128 steps: a case of the same program, on the same weights. Shorter inputs are padded with
zeros, and outputs trimmed. Padding changes nothing in a model that is told which steps are valid, by an input `lengths`
or a mask; other models take inputs of exactly these lengths.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgeseq.errors import RequestError
from edgeseq.reference import Case
from edgeseq.signature import Run, Signature, Tensors

TELLING = ("lengths", "attention_mask", "mask")  # inputs that say which steps are valid; zeros of a mask: none


def with_lengths(signatures: Sequence[Signature], lengths: Sequence[int]) -> tuple[Signature, ...]:
    """The signatures, and each that has a dynamic length at every one of the lengths.

    Raises:
        RequestError: A length is out of bounds, given twice, or there is no dimension that it could be of.
    """
    if not lengths:
        return tuple(signatures)
    if len(set(lengths)) < len(lengths):
        raise RequestError(f"lengths {list(lengths)} name one twice; give each once")
    found = {s.name: _length(s) for s in signatures if s.case_of is None}
    if not any(found.values()):
        names = ", ".join(f"'{name}'" for name in found)
        raise RequestError(
            f"lengths {list(lengths)} are given, but {names} has no single dynamic dimension beside the batch; "
            "leave lengths out"
        )
    fixed = [_at(s, found[s.name], n) for s in signatures for n in sorted(lengths) if found.get(s.name)]
    return (*signatures, *fixed)


def pick(signatures: Sequence[Signature], inputs: Tensors, name: str = "forward") -> str:
    """The fixed signature of least length that takes these inputs of signature `name`.

    Raises:
        RequestError: They are longer than every one, or padding could change the result.
    """
    whole = next(s for s in signatures if s.name == name)
    dim = _length(whole)
    fixed = sorted((size, s.name) for s in signatures if s.case_of == name and (size := _size(whole, s, dim)))
    if not fixed or dim is None:
        raise RequestError(f"no signature has a fixed length of '{name}'; run '{name}' itself, or convert with lengths")
    have = _have(whole, dim, inputs)
    fitting = [(size, found) for size, found in fixed if size >= have]
    known = ", ".join(str(size) for size, _ in fixed)
    if not fitting:
        raise RequestError(f"no signature of '{name}' is {have} long or longer; lengths are: {known}")
    size, found = fitting[0]
    if size != have and not _may_pad(whole):
        raise RequestError(
            f"'{name}' has lengths {known}, and {have} steps padded to {size} could change the result, since no input of "
            f"{', '.join(TELLING)} says which are valid; run '{name}' itself, which takes any length"
        )
    return found


def padding(run: Run, signatures: Sequence[Signature]) -> Run:
    """`run` that also takes shorter inputs of fixed signatures; outputs are as long as the inputs were."""
    by_name = {s.name: s for s in signatures}

    def run_padded(inputs: Tensors, name: str) -> dict[str, np.ndarray]:
        fixed = by_name[name]
        whole = by_name.get(fixed.case_of or "")
        dim = _length(whole) if whole else None
        size = _size(whole, fixed, dim) if whole else None
        if whole is None or size is None or dim is None:
            return run(inputs, name)
        have = _have(whole, dim, inputs)
        shapes = {spec.name: spec.shape for spec in (*whole.inputs, *whole.outputs)}
        padded = {key: _padded(value, shapes[key], dim, size - have) for key, value in inputs.items()}
        return {key: _trimmed(value, shapes[key], dim, have) for key, value in run(padded, name).items()}

    return run_padded


def cases(known: Iterable[Case], signatures: Sequence[Signature]) -> list[Case]:
    """The cases of a reference that fixed signatures take, as cases of these."""
    found = []
    for case in known:
        try:
            name = pick(signatures, case.inputs, case.signature)
        except RequestError:  # it is too long, or the model may not be padded
            continue
        found.append(replace(case, name=f"{case.name} by {name}", signature=name))
    return found


def _length(signature: Signature | None) -> str | None:
    """The one dynamic dimension that is not the batch; None: there is none, or several."""
    if signature is None:
        return None
    first = {spec.shape[0] for spec in signature.inputs if spec.shape and spec.name not in signature.state_inputs}
    others = [dim.name for dim in signature.dims if dim.name not in first]
    return others[0] if len(others) == 1 else None


def _at(signature: Signature, dim: str | None, length: int) -> Signature:
    bounds = next(d for d in signature.dims if d.name == dim)
    if not bounds.min <= length <= bounds.max:
        raise RequestError(f"length {length} is out of the bounds of '{dim}', {bounds.min} to {bounds.max}")
    return signature.case(f"{signature.name}_{length}", {bounds.name: length})


def _size(whole: Signature, fixed: Signature, dim: str | None) -> int | None:
    """The length that a case of a signature fixes; None: it fixes another dimension."""
    pairs = zip(whole.inputs, fixed.inputs, strict=True)
    sizes = [b for x, y in pairs for a, b in zip(x.shape, y.shape, strict=True) if a == dim and isinstance(b, int)]
    return sizes[0] if sizes and fixed.name == f"{whole.name}_{sizes[0]}" else None


def _have(whole: Signature, dim: str, inputs: Mapping[str, np.ndarray]) -> int:
    return next(inputs[s.name].shape[axis] for s in whole.inputs for axis, size in enumerate(s.shape) if size == dim)


def _may_pad(whole: Signature) -> bool:
    outputs_known = all("?" not in spec.shape for spec in whole.outputs)
    return outputs_known and any(spec.name in TELLING for spec in whole.inputs)


def _padded(value: np.ndarray, shape: Sequence[int | str], dim: str, more: int) -> np.ndarray:
    return np.pad(value, [(0, more if size == dim else 0) for size in shape]) if more else value


def _trimmed(value: np.ndarray, shape: Sequence[int | str], dim: str, length: int) -> np.ndarray:
    return value[tuple(slice(length) if size == dim else slice(None) for size in shape)]
