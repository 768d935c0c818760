"""What can be wrong with a way to call a model, said in the caller's words before torch.export begins."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count

from torch import Tensor

from edgeseq import lookup
from edgeseq.errors import RequestError
from edgeseq.signature import Dim


def require_file_names(signatures: Iterable[str]) -> None:
    """Refuse names of signatures that cannot be names of files.

    Raises:
        RequestError: With the first one.
    """
    for name in signatures:
        if not name or "/" in name or "\\" in name:
            raise RequestError(
                f"a signature cannot be called '{name}': files are named after it; give it letters, digits or '_'"
            )


def require_dims(examples: Mapping[str, Tensor], shapes: Mapping[str, Mapping[int, Dim]]) -> None:
    """Refuse dynamic shapes that torch.export cannot prove: unknown inputs and axes, impossible bounds, examples outside.

    Raises:
        RequestError: With both sides of the first mismatch.
    """
    known: dict[str, Dim] = {}
    for name, axes in shapes.items():
        if name not in examples:
            raise lookup.unknown("input", str(name), examples)
        for axis, dim in axes.items():
            _check_bounds(dim, name, axis)
            _check_example(dim, name, axis, list(examples[name].shape))
            other = known.setdefault(dim.name, dim)
            if other != dim:
                raise RequestError(
                    f"dimension '{dim.name}' runs from {other.min} to {other.max}, but at axis {axis} of '{name}' from "
                    f"{dim.min} to {dim.max}; give both the same bounds, or each a name of its own"
                )


def output_names(given: Sequence[str], found: Sequence[str], inputs: Collection[str]) -> tuple[str, ...]:
    """The names of all outputs: those given, then what the others were found as, but none that is taken.

    A file has one name for one value, so that a state that a model takes and returns as `h` is returned as `new_h`.

    Raises:
        RequestError: More names are given than there are outputs, or one twice, or an input's.
    """
    if len(given) > len(found):
        raise RequestError(
            f"{len(given)} output names are given ({', '.join(given)}), but the model returns {len(found)} tensors"
        )
    for name in given:
        if given.count(name) > 1:
            raise RequestError(f"output name '{name}' is given {given.count(name)} times; give each output its own")
        if name in inputs:
            raise RequestError(f"output name '{name}' is an input's; give it another, such as 'new_{name}'")
    names = list(given)
    for i, name in enumerate(found[len(given) :], len(given)):
        taken = {*names, *inputs}
        others = taken | set(found)
        is_free = name not in taken
        names.append(name if is_free else next(other for other in _others(name, i) if other not in others))
    return tuple(names)


def _others(name: str, place: int) -> Iterable[str]:
    yield f"new_{name}"
    yield from (f"output_{i}" for i in count(place))


def _check_bounds(dim: Dim, name: str, axis: int) -> None:
    if not isinstance(dim, Dim):
        raise RequestError(f"axis {axis} of '{name}' is given as {dim!r}; give an edgeseq.signature.Dim")
    if not dim.name.isidentifier():
        raise RequestError(
            f"dimension '{dim.name}' of axis {axis} of '{name}' needs a name of letters, digits and '_', as in Python"
        )
    if not 1 <= dim.min < dim.max:
        raise RequestError(f"dimension '{dim.name}' runs from {dim.min} to {dim.max}; it must rise, from 1 or more")


def _check_example(dim: Dim, name: str, axis: int, shape: list[int]) -> None:
    if axis not in range(len(shape)):
        raise RequestError(f"axis {axis} of '{name}' is dynamic, but its example has shape {shape}")
    if shape[axis] < 2:
        raise RequestError(
            f"axis {axis} of '{name}' is dynamic, but its example is {shape[axis]} long, which torch.export takes for a "
            "constant; make it 2 or longer"
        )
    if not dim.min <= shape[axis] <= dim.max:
        raise RequestError(
            f"axis {axis} of '{name}' runs from {dim.min} to {dim.max}, but its example is {shape[axis]} long"
        )
