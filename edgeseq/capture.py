"""Capture: an `nn.Module` becomes torch.export programs, one a call, with symbolic batch and length.

Every model goes this way, ours or the user's; the converters lower nothing else. Recurrent layers are kept whole first.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.export import Dim as ExportDim
from torch.export import ExportedProgram

from edgeseq import any_length, program_file
from edgeseq.call_checks import output_names, require_dims, require_file_names
from edgeseq.equalization import equalize
from edgeseq.errors import UnsupportedError
from edgeseq.given_types import Int32Interface
from edgeseq.half_precision import in_float32, require_float32, types_of, widened_examples
from edgeseq.model_checks import explained, require_convertible
from edgeseq.operators.whole import whole_recurrent_layers
from edgeseq.rolling import roll
from edgeseq.signature import Dim, Signature, State, TensorSpec
from edgeseq.unused import drop_unused

DynamicShapes = Mapping[str, Mapping[int, Dim]]  # input -> axis -> dimension

_LOOP_ADVICE = (
    "; a loop over time around an nn.LSTMCell, nn.GRUCell or nn.RNNCell keeps the example's length where a step depends on "
    "the outputs of the one before, on all cell states or on its number, or the model uses the length as a number (view, "
    "reshape): use nn.LSTM, nn.GRU or nn.RNN for any length, capture one step with its states as inputs, or leave the length "
    "out of the dynamic shapes"
)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One way to call a model that is to be captured: the arguments of `capture`, and what else a program may serve."""

    name: str = "forward"
    method: str | Callable[..., Any] = "forward"  # of the model, or a function that takes the model first
    examples: Mapping[str, Tensor]
    dynamic_shapes: DynamicShapes = field(default_factory=dict)
    output_names: tuple[str, ...] = ()
    states: tuple[State, ...] = ()
    cases: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # further signatures: the sizes they fix
    by_name: bool = False

    def check(self) -> None:
        """Refuse what cannot be captured whatever the model is.

        Raises:
            RequestError: A name or a dynamic shape is impossible.
        """
        require_file_names((self.name, *self.cases))
        require_dims(self.examples, self.dynamic_shapes)

    def of(self, model: nn.Module) -> Callable[..., Any]:
        """What is called: the model itself where it is its `forward`, so that its hooks run."""
        if callable(self.method):
            return partial(self.method, model)
        found: Callable[..., Any] = model if self.method == "forward" else getattr(model, self.method)
        return found


@dataclass(frozen=True, kw_only=True)
class CapturedModel:
    """Programs by name, functional and inference-only, with integer inputs as int32.

    A program has the name of its signature; signatures that are cases of another share that one's. The signature that
    apps call most is the first.
    """

    signatures: tuple[Signature, ...]
    programs: Mapping[str, ExportedProgram]

    def signature_of(self, program: str) -> Signature:
        """The signature that a program was captured for, with all its dynamic dimensions."""
        return next(s for s in self.signatures if s.name == program)

    def save(self, folder: Path) -> None:
        """Write one `.pt2` a program and `signatures.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, program in self.programs.items():
            torch.export.save(program, folder / f"{name}.pt2")
        (folder / "signatures.json").write_text(json.dumps([s.to_json() for s in self.signatures], indent=1))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote."""
        signatures = tuple(Signature.from_json(s) for s in json.loads((folder / "signatures.json").read_text()))
        names = dict.fromkeys(s.program for s in signatures)
        programs = {name: program_file.read(folder / f"{name}.pt2") for name in names}
        return cls(signatures=signatures, programs=programs)


def capture(
    model: nn.Module,
    examples: Mapping[str, Tensor],
    dynamic_shapes: DynamicShapes | None = None,
    *,
    output_names: tuple[str, ...] = (),
    name: str = "forward",
    by_name: bool = False,
) -> CapturedModel:
    """Export one signature of a model.

    Args:
        model: Any module that torch.export takes; it is put in eval mode.
        examples: Input name -> example, in the order of the model's positional arguments. Dynamic axes must be >= 2 long.
        dynamic_shapes: Which axes vary, and within which bounds.
        output_names: Names of the outputs, in order; for further ones, the keys of what the model returns, or `logits` for
            the first and numbers. A key that is an input's name, such as `h`, becomes `new_h`.
        name: The signature's name.
        by_name: Pass the inputs as keyword arguments instead.

    Raises:
        UnsupportedError: torch.export refuses the model, or its inputs or weights have types that formats lack.
        RequestError: Weights are no numbers, or the call names what there is not.
    """
    call = Call(
        name=name,
        examples=examples,
        dynamic_shapes=dynamic_shapes or {},
        output_names=output_names,
        by_name=by_name,
    )
    return capture_calls(model, [call])


def capture_calls(model: nn.Module, calls: Sequence[Call]) -> CapturedModel:
    """Export every way to call a model; the signatures that are cases of others come before them.

    A model in half precision is captured in float32.

    Raises:
        UnsupportedError: torch.export refuses the model, or its inputs or weights have types that formats lack.
        RequestError: Weights are no numbers, or a call names what there is not.
    """
    for call in calls:
        call.check()
    if types_of(model):
        model = in_float32(model)
        calls = [replace(call, examples=widened_examples(call.examples)) for call in calls]
    require_convertible(model, (call.examples for call in calls))
    programs, signatures = {}, []
    for call in calls:
        programs[call.name], names = _exported(model, call, is_alone=len(calls) == 1)
        whole = _signature(call, programs[call.name], names)
        signatures += [whole.case(name, sizes) for name, sizes in call.cases.items()]
        signatures.append(whole)
    return CapturedModel(signatures=tuple(signatures), programs=programs)


def _exported(model: nn.Module, call: Call, *, is_alone: bool) -> tuple[ExportedProgram, tuple[str, ...]]:
    """The program, and the names of its outputs. Several programs of one model share its weights as they are."""
    # torch.export merges example inputs that share storage, and the merged program is wrong for every other input.
    values = tuple(value.detach().clone() for value in call.examples.values())
    wide = tuple(value.dtype == torch.int64 for value in values)
    narrow = tuple(value.int() if is_wide else value for value, is_wide in zip(values, wide, strict=True))
    names = tuple(call.examples) if call.by_name else None
    wrapped = Int32Interface(model.eval(), call.of, wide, names=names)
    axes = call.dynamic_shapes
    symbols = {d.name: ExportDim(d.name, min=d.min, max=d.max) for dims in axes.values() for d in dims.values()}
    shapes = tuple({axis: symbols[d.name] for axis, d in axes.get(key, {}).items()} for key in call.examples)
    try:
        program = _rolled_export(wrapped, narrow, (shapes,))
    except Exception as error:  # torch.export raises what the model's own code raises, besides many types of its own
        loops = "Constraints violated" in str(error) and any(isinstance(m, nn.RNNCellBase) for m in model.modules())
        whole = any_length.exported(_rolled_export, wrapped, narrow, shapes) if loops else None
        if whole is None:
            advice = _LOOP_ADVICE if loops else ""
            raise UnsupportedError(f"torch.export refuses the model: {explained(error)}{advice}") from error
        program = whole
    require_float32(program)
    if is_alone:
        equalize(program, narrow)
    return program, output_names(call.output_names, wrapped.returned.names, call.examples)


def _rolled_export(module: nn.Module, inputs: tuple[Tensor, ...], shapes: Any) -> ExportedProgram:
    """Torch's export, with recurrent layers whole and loops around cells rolled into layers."""
    with torch.no_grad(), whole_recurrent_layers():
        program = roll(torch.export.export(module, inputs, dynamic_shapes=shapes))
        drop_unused(program)
        return program


def _signature(call: Call, program: ExportedProgram, names_of_outputs: tuple[str, ...]) -> Signature:
    shapes = call.dynamic_shapes
    values = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    inputs = {key: values[node] for key, node in zip(call.examples, program.graph_signature.user_inputs, strict=True)}
    outputs = [values[node] for node in program.graph_signature.user_outputs if isinstance(values.get(node), Tensor)]
    if not outputs:
        raise UnsupportedError("the model returns no tensor")
    names = {str(inputs[key].shape[axis]): dim.name for key, axes in shapes.items() for axis, dim in axes.items()}

    def spec(key: str, value: Tensor) -> TensorSpec:
        shape = tuple(size if isinstance(size, int) else names.get(str(size), "?") for size in value.shape)
        return TensorSpec(name=key, dtype=str(value.dtype).removeprefix("torch."), shape=shape)

    return Signature(
        name=call.name,
        inputs=tuple(spec(key, value) for key, value in inputs.items()),
        outputs=tuple(spec(key, value) for key, value in zip(names_of_outputs, outputs, strict=True)),
        dims=tuple({dim.name: dim for axes in shapes.values() for dim in axes.values()}.values()),
        states=call.states,
    )
