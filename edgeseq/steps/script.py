"""Capture the user's own model from a script, and write down what it computes on inputs that the capture never saw."""

import contextlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgeseq import lookup
from edgeseq.capture import DynamicShapes, capture
from edgeseq.errors import RequestError
from edgeseq.reference import Case, Kind, Reference
from edgeseq.signature import Dim, Signature
from edgeseq.worker import Job

MAX_DIM = 512  # the bound of a dynamic dimension for which the script names none
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
SIZES = (2, 3, 5, 17, 40, 129)  # tried for each dynamic dimension, besides its bounds; those within them are kept


def work(job: Job) -> None:
    """Settings: `script`, `model`. Leaves the captured model, `reference.npz` and `about.json`."""
    script = load(Path(job.settings["script"]))
    model = call(script, "get_model")
    if not isinstance(model, nn.Module):
        raise RequestError(f"get_model() must return a torch.nn.Module, not {type(model).__name__}")
    model.eval()
    args = call(script, "get_args")
    examples, by_name = example_inputs(args, model), isinstance(args, Mapping)
    given = call(script, "get_dynamic_shapes") if hasattr(script, "get_dynamic_shapes") else None
    captured = capture(model, examples, dynamic_shapes(given, examples), by_name=by_name)
    captured.save(job.out)
    cases = reference_cases(model, examples, captured.signatures[0], by_name=by_name)
    Reference(model=job.settings["model"], cases=tuple(cases)).save(job.out / "reference.npz")
    fed = ", ".join(f"{key} {list(value.shape)}" for key, value in cases[-1].inputs.items())
    (job.out / "about.json").write_text(json.dumps({"input": f"random values like the script's example: {fed}"}))


def load(path: Path) -> ModuleType:
    """Run the script as a module, with its own folder importable, as Python does.

    Raises:
        RequestError: It cannot be read, or raises.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None, "the command accepts files that end in .py"
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses and friends look their module up
    sys.path.insert(0, str(path.parent))
    with blaming(f"script '{path.name}'"):
        spec.loader.exec_module(module)
    return module


def call(script: ModuleType, function: str) -> Any:
    """What one of the script's functions returns.

    Raises:
        RequestError: The script has no such function, or it raises.
    """
    if not callable(getattr(script, function, None)):
        raise RequestError(
            f"script '{script.__name__}.py' has no function {function}(); it needs get_model() and get_args()"
        )
    with blaming(f"{function}() in '{script.__name__}.py'"):
        return getattr(script, function)()


@contextlib.contextmanager
def blaming(what: str) -> Iterator[None]:
    """Report whatever the user's code raises as theirs, with the line it was raised at."""
    try:
        yield
    except Exception as error:  # the user's code may raise anything
        line = error.__traceback__
        while line is not None and line.tb_next is not None:
            line = line.tb_next
        where = f" (line {line.tb_lineno} of {line.tb_frame.f_code.co_filename})" if line else ""
        raise RequestError(f"{what} raised {type(error).__name__}: {error}{where}") from error


def example_inputs(args: Any, model: nn.Module) -> dict[str, Tensor]:
    """The example inputs by name: a mapping's keys, or the names of `model.forward`'s parameters."""
    if isinstance(args, Mapping):
        named = dict(args)
    else:
        values = args if isinstance(args, tuple | list) else (args,)
        parameters = [p for p in inspect.signature(model.forward).parameters.values() if p.kind in POSITIONAL]
        names = [parameters[i].name if i < len(parameters) else f"input_{i}" for i in range(len(values))]
        named = dict(zip(names, values, strict=True))
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise RequestError(f"get_args() must give tensors, but '{name}' is {type(value).__name__}")
        if value.numel() == 0:
            raise RequestError(f"get_args() gives '{name}' the shape {list(value.shape)}, which holds no value")
    return named


def dynamic_shapes(given: Any, examples: Mapping[str, Tensor]) -> DynamicShapes:
    """What get_dynamic_shapes() says, by input name.

    It may be a mapping by input name or a sequence by position; each entry None or a mapping from axis to a dimension: a
    name, a (name, min, max), a `torch.export.Dim`, or an `edgeseq.Dim`.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping | tuple | list):
        raise RequestError(f"get_dynamic_shapes() must return a mapping by input name or a sequence, not {given!r}")
    entries = dict(given) if isinstance(given, Mapping) else dict(zip(examples, given, strict=False))
    shapes = {}
    for name, axes in entries.items():
        if name not in examples:
            raise lookup.unknown("input", str(name), examples)
        if not isinstance(axes, Mapping | None):
            raise RequestError(
                f"get_dynamic_shapes() gives '{name}' as {axes!r}; give a mapping from axis to dimension"
            )
        shapes[name] = {axis: _dim(value, name, axis, examples[name]) for axis, value in (axes or {}).items()}
    return shapes


def _dim(value: Any, name: str, axis: int, example: Tensor) -> Dim:
    if isinstance(value, Dim):
        dim = value
    elif isinstance(value, str):
        dim = Dim(name=value, min=1, max=MAX_DIM)
    elif isinstance(value, tuple) and [type(part) for part in value] == [str, int, int]:
        dim = Dim(name=value[0], min=value[1], max=value[2])
    elif hasattr(value, "__name__") and hasattr(value, "min") and hasattr(value, "max"):  # torch.export.Dim
        dim = Dim(name=value.__name__, min=max(1, value.min), max=min(MAX_DIM, value.max))
    else:
        raise RequestError(
            f"get_dynamic_shapes() gives axis {axis} of '{name}' as {value!r}; give a name or (name, min, max)"
        )
    if not 1 <= dim.min < dim.max:
        raise RequestError(f"dimension '{dim.name}' runs from {dim.min} to {dim.max}; it must rise, from 1 or more")
    if axis not in range(example.dim()):
        raise RequestError(
            f"get_dynamic_shapes() names axis {axis} of '{name}', whose example has shape {list(example.shape)}"
        )
    if example.shape[axis] < 2 <= dim.max:
        raise RequestError(
            f"axis {axis} of '{name}' is dynamic, but its example is {example.shape[axis]} long, which torch.export takes "
            "for a constant; make it 2 or longer in get_args()"
        )
    return dim


def reference_cases(
    model: nn.Module, examples: Mapping[str, Tensor], signature: Signature, *, by_name: bool
) -> list[Case]:
    """Cases at sizes the capture never saw, and the one that is fed while measuring: the example's shape, batch 1."""
    rng = np.random.default_rng(0)
    sizes = [{dim.name: _size(dim, i + k) for k, dim in enumerate(signature.dims)} for i in range(len(SIZES))]
    distinct = [dict(items) for items in dict.fromkeys(tuple(s.items()) for s in sizes)] or [{}]
    first_axes = {spec.shape[0] for spec in signature.inputs if spec.shape}
    single = {d.name: d.min for d in signature.dims if d.name in first_axes}
    cases = []
    for number, size in enumerate([*distinct, single]):
        kind: Kind = "bench" if number == len(distinct) else "parity"
        inputs = {s.name: _random_like(examples[s.name], s.shape, size, rng) for s in signature.inputs}
        outputs = _run(model, inputs, signature, by_name=by_name)
        feeds = {key: _feed(value) for key, value in inputs.items()}
        words = ", ".join(f"{k}={v}" for k, v in size.items()) or "the example's shapes"
        cases.append(Case(name=words, kind=kind, inputs=feeds, outputs=outputs))
    return cases


def _size(dim: Dim, turn: int) -> int:
    allowed = [size for size in (dim.min, *SIZES) if dim.min <= size <= dim.max]
    return allowed[turn % len(allowed)]


def _random_like(
    example: Tensor, shape: tuple[int | str, ...], sizes: Mapping[str, int], rng: np.random.Generator
) -> Tensor:
    """Values drawn like the example's: integers from its range, floats with its mean and spread."""
    actual = [
        have if isinstance(want, int) else sizes.get(want, have)
        for want, have in zip(shape, example.shape, strict=True)
    ]
    if example.dtype == torch.bool:
        return torch.from_numpy(rng.random(actual) < 0.5)
    if not example.is_floating_point():
        low, high = int(example.min()), int(example.max())
        return torch.from_numpy(rng.integers(low, high + 1, actual)).to(example.dtype)
    spread = float(example.std(correction=0)) or 1.0
    return torch.from_numpy(rng.normal(float(example.mean()), spread, actual)).to(example.dtype)


@torch.no_grad()
def _run(
    model: nn.Module, inputs: Mapping[str, Tensor], signature: Signature, *, by_name: bool
) -> dict[str, np.ndarray]:
    shapes = ", ".join(f"{key} {list(value.shape)}" for key, value in inputs.items())
    with blaming(f"the model, fed {shapes} within the bounds of get_dynamic_shapes(),"):
        result = model(**inputs) if by_name else model(*inputs.values())
    tensors = [t for t in pytree.tree_leaves(result) if isinstance(t, Tensor)]
    return {spec.name: t.numpy() for spec, t in zip(signature.outputs, tensors, strict=True)}


def _feed(value: Tensor) -> np.ndarray:
    return value.int().numpy() if value.dtype == torch.int64 else value.numpy()
