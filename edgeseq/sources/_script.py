"""What a script's functions give, as ways to call its model; whatever they raise is reported as theirs.

A script defines `get_model()` and, for one `forward`, `get_args()` and perhaps `get_dynamic_shapes()`. For several
signatures, or states, it defines `get_calls()` instead or besides, which gives an `edgeseq.capture.Call` for each program:

    def get_calls():
        batch, time = Dim(name="batch", min=1, max=8), Dim(name="time", min=1, max=512)
        x, h = torch.randn(2, 5, 8), torch.zeros(2, 16)
        return [
            Call(
                name="encode",
                method="encode",  # of the model; also a function of the model and the inputs
                examples={"x": x, "h": h},
                dynamic_shapes={"x": {0: batch, 1: time}, "h": {0: batch}},
                output_names=("y", "new_h"),
                states=(State(input="h", output="new_h"),),
                cases={"step": {"time": 1}},  # further signatures of the same program
            )
        ]
"""

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


def load(path: Path, *, forward_only: bool = False) -> Loaded:
    """The script's model, captured."""
    return _usage.load(usages(run(path), forward_only=forward_only), values="random values like the script's example")


def usages(script: ModuleType, *, forward_only: bool = False) -> list[Usage]:
    """How the script says that its model is called: what get_calls() gives, else get_args() and get_dynamic_shapes().

    Raises:
        RequestError: What a function gives is not what is asked for.
    """
    model = call(script, "get_model")
    if not isinstance(model, nn.Module):
        raise RequestError(f"get_model() must return a torch.nn.Module, not {type(model).__name__}")
    if hasattr(script, "get_calls") and not forward_only:
        calls = every_call(call(script, "get_calls"))
    else:
        args = call(script, "get_args")
        examples = example_inputs(args, model)
        given = call(script, "get_dynamic_shapes") if hasattr(script, "get_dynamic_shapes") else None
        shapes = dynamic_shapes(given, examples)
        calls = [Call(examples=examples, dynamic_shapes=shapes, by_name=isinstance(args, Mapping))]
    for one in calls:
        one.check()
    return [
        Usage(
            module=model.eval(),
            call=one,
            draw=_drawing.with_room(_drawing.like(one.examples, one.dynamic_shapes), one),
            unseen=_drawing.unseen_sizes(one.dynamic_shapes),
            bench=_drawing.single(one.dynamic_shapes),
        )
        for one in calls
    ]


def every_call(given: Any) -> list[Call]:
    """What get_calls() says: one `edgeseq.capture.Call` for each program, such as `encode`, or `prefill` with its `step`."""
    calls = list(given) if isinstance(given, tuple | list) else [given]
    wrong = [value for value in calls if not isinstance(value, Call)]
    if wrong or not calls:
        found = type(wrong[0]).__name__ if wrong else "nothing"
        raise RequestError(f"get_calls() must return one edgeseq.capture.Call or several, not {found}")
    names = [name for one in calls for name in (one.name, *one.cases)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RequestError(f"get_calls() gives signature '{twice[0]}' more than once; give each a name of its own")
    return calls


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
            f"script '{script.__name__}.py' has no function {function}(); it needs get_model() and get_args() or get_calls()"
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
        shapes[name] = {axis: _dim(value, name, axis) for axis, value in (axes or {}).items()}
    return shapes


def _dim(value: Any, name: str, axis: int) -> Dim:
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
    return dim
