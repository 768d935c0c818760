"""What a script's functions give, as a way to call its model; whatever they raise is reported as theirs."""

import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from edgeseq import lookup
from edgeseq.capture import Call, DynamicShapes
from edgeseq.errors import RequestError
from edgeseq.signature import Dim
from edgeseq.sources import Loaded, _drawing, _usage
from edgeseq.sources._blame import blaming
from edgeseq.sources._usage import Usage

MAX_DIM = 512  # the least bound of a dynamic dimension for which the script names none
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def load(path: Path) -> Loaded:
    """The script's model, captured."""
    return _usage.load(usage(run(path)), values="random values like the script's example")


def usage(script: ModuleType) -> Usage:
    """How the script says that its model is called."""
    model = call(script, "get_model")
    if not isinstance(model, nn.Module):
        raise RequestError(f"get_model() must return a torch.nn.Module, not {type(model).__name__}")
    if hasattr(script, "get_calls"):
        return usage_of_call(script, model)
    args = call(script, "get_args")
    examples = example_inputs(args, model)
    given = call(script, "get_dynamic_shapes") if hasattr(script, "get_dynamic_shapes") else None
    shapes = dynamic_shapes(given, examples)
    return Usage(
        module=model.eval(),
        call=Call(examples=examples, dynamic_shapes=shapes, by_name=isinstance(args, Mapping)),
        draw=_drawing.like(examples, shapes),
        unseen=_drawing.unseen_sizes(shapes),
        bench=_drawing.single(shapes),
    )


def usage_of_call(script: ModuleType, model: nn.Module) -> Usage:
    """The one way to call the model that `get_calls()` gives, with its states and cases.

    Raises:
        RequestError: It gives something else.
    """
    calls = call(script, "get_calls")
    if not isinstance(calls, list | tuple) or len(calls) != 1 or not isinstance(calls[0], Call):
        raise RequestError(
            "get_calls() must return a list of one edgeseq.capture.Call, such as [Call(examples=…, dynamic_shapes=…, "
            f"states=(State(input='h', output='hn'),))], not {calls!r:.200}"
        )
    (given,) = calls
    return Usage(
        module=model.eval(),
        call=given,
        draw=_drawing.with_room(_drawing.like(given.examples, given.dynamic_shapes), given),
        unseen=_drawing.unseen_sizes(given.dynamic_shapes),
        bench=_drawing.single(given.dynamic_shapes),
    )


def run(path: Path) -> ModuleType:
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
        low = max(1, value.min)
        high = value.max if isinstance(value.max, int) else max(MAX_DIM, 2 * low)  # else it is infinite
        dim = Dim(name=value.__name__, min=low, max=high)
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
