"""A Keras model as a torch module, its recurrent layers exported whole."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

os.environ["KERAS_BACKEND"] = "torch"  # Keras reads its backend from there when it is imported, and offers no other way

import keras
from keras.src import backend

from edgeseq.capture import Call, DynamicShapes
from edgeseq.errors import RequestError
from edgeseq.signature import Dim
from edgeseq.sources import Loaded, _drawing, _usage, file_name
from edgeseq.sources._usage import Draw, Sizes, Usage

MAX_DIM = 512  # the bound of a dimension that the model leaves open
LONGEST_MASKED = 64  # steps that are compared: Keras takes masked ones one by one in Python
NAMES = ("batch", "time")  # of open first and second axes
EXAMPLE = {"batch": 2, "time": 12}
Kernel = Callable[..., Any]
States = list[Tensor]
Result = tuple[Tensor, Tensor, States]  # last output (B, H), all outputs (B, T, H), final states, each (B, H)


class KerasModel(nn.Module):
    """A Keras model that takes its inputs by position."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Any:
        return self.model(inputs[0] if len(inputs) == 1 else list(inputs), training=False)


def load(path: Path) -> Loaded:
    """The file's model, captured."""
    if keras.backend.backend() != "torch":
        raise RequestError(
            f"Keras was imported with the backend '{keras.backend.backend()}' before; it must be 'torch'"
        )
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises anything on values that do not fit together
        raise RequestError(f"'{path}' cannot be loaded by Keras: {type(error).__name__}: {error}") from error
    keras.config.disable_traceback_filtering()  # it puts words of its own before every error's
    with whole_kernels():
        return _usage.load([usage(model)], values="random values in the range that the model takes")


def usage(model: Any) -> Usage:
    """How the model is called: every open axis stays open."""
    inputs = {file_name(tensor.name).replace(".", "_").replace("-", "_"): tensor for tensor in _inputs(model)}
    shapes = {
        name: {axis: _dim(axis) for axis, size in enumerate(tensor.shape) if size is None}
        for name, tensor in inputs.items()
    }
    is_padded = _masks(model)
    draw = drawing(inputs, shapes, _table_rows(model), is_padded=is_padded)
    most = LONGEST_MASKED if is_padded else MAX_DIM
    example = {dim.name: EXAMPLE.get(dim.name, 3) for dim in _drawing.dims_of(shapes)}
    return Usage(
        module=KerasModel(model),
        call=Call(examples=draw(example, np.random.default_rng(0)), dynamic_shapes=shapes),
        draw=draw,
        unseen=[{name: min(size, most) for name, size in sizes.items()} for sizes in _drawing.unseen_sizes(shapes)],
        bench={**example, **_drawing.single(shapes)},
    )


def _inputs(model: Any) -> list[Any]:
    """Keras' tensors that stand for the inputs.

    Raises:
        RequestError: Keras was never told their shapes.
    """
    try:
        return list(model.inputs)
    except (AttributeError, ValueError) as error:
        raise RequestError(
            f"the Keras model '{model.name}' does not know the shape of its inputs; begin it with keras.Input(shape), "
            "or call it once before it is saved"
        ) from error


def drawing(inputs: Mapping[str, Any], shapes: DynamicShapes, rows: int | None, *, is_padded: bool = False) -> Draw:
    """Draws floats from a normal distribution, and integers that every table of the model has.

    Where 0 is masked, each row but the first ends in zeros, as what is padded does.
    """

    def draw(sizes: Sizes, rng: np.random.Generator) -> dict[str, Tensor]:
        fed = {}
        for name, tensor in inputs.items():
            shape = [sizes[shapes[name][i].name] if size is None else size for i, size in enumerate(tensor.shape)]
            is_token = rows is not None and (len(shape) == 2 or "int" in tensor.dtype)
            values = (
                rng.integers(0, rows or 2, shape) if is_token or "int" in tensor.dtype else rng.standard_normal(shape)
            )
            if is_padded and len(shape) > 1:
                values = _padded(np.where(values == 0, 1, values), rng)
            fed[name] = torch.from_numpy(np.asarray(values, tensor.dtype))
        return fed

    return draw


def _padded(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each row (B, T, …) but the first with zeros from a random step on."""
    lengths = rng.integers(1, values.shape[1] + 1, len(values))
    lengths[0] = values.shape[1]
    is_valid = np.arange(values.shape[1]) < lengths[:, None]  # (B, T)
    return np.where(is_valid.reshape(*is_valid.shape, *(1,) * (values.ndim - 2)), values, 0)


def _masks(model: Any) -> bool:
    """Whether a layer tells others which steps to pass over."""
    layers = list(model._flatten_layers())
    return any(isinstance(layer, keras.layers.Masking) or getattr(layer, "mask_zero", False) for layer in layers)


def _dim(axis: int) -> Dim:
    return Dim(name=NAMES[axis] if axis < len(NAMES) else f"axis_{axis}", min=1, max=64 if axis == 0 else MAX_DIM)


def _table_rows(model: Any) -> int | None:
    """Rows of the smallest embedding; None: there is none."""
    tables = [layer.input_dim for layer in model._flatten_layers() if isinstance(layer, keras.layers.Embedding)]
    return min(tables, default=None)


@contextmanager
def whole_kernels() -> Iterator[None]:
    """While it lasts and a model is exported, Keras' recurrent layers are our operators, whole at any length."""
    originals = [(layer, layer.inner_loop) for layer in (keras.layers.LSTM, keras.layers.GRU)]
    fused = {name: getattr(backend, name) for name in ("bidirectional_lstm", "bidirectional_gru")}
    kernels: tuple[Kernel, ...] = (_lstm, _gru)
    for (layer, original), ours in zip(originals, kernels, strict=True):
        layer.inner_loop = _exported_as(ours, original)
    for name in fused:
        setattr(backend, name, _refuse_fused)
    try:
        yield
    finally:
        for layer, original in originals:
            layer.inner_loop = original
        for name, function in fused.items():
            setattr(backend, name, function)


def _exported_as(ours: Kernel, original: Kernel) -> Kernel:
    """Ours while a model is exported, else Keras' own: what is compared with is computed by it."""

    def inner_loop(layer: Any, sequences: Tensor, initial_state: Any, mask: Any, training: bool = False) -> Any:
        if not torch.compiler.is_exporting():
            return original(layer, sequences, initial_state, mask, training)
        mask = mask[0] if isinstance(mask, list | tuple) else mask
        cell = layer.cell
        options = {
            "kernel": cell.kernel,
            "recurrent_kernel": cell.recurrent_kernel,
            "bias": cell.bias,
            "activation": cell.activation,
            "recurrent_activation": cell.recurrent_activation,
            "reset_after": getattr(cell, "reset_after", True),
            "return_sequences": layer.return_sequences,
            "go_backwards": layer.go_backwards,
            "zero_output_for_mask": layer.zero_output_for_mask,
            "is_masked": mask is not None,
        }
        return ours(sequences, *initial_state, mask, **options)

    return inner_loop


def _refuse_fused(*args: Any, **options: Any) -> Any:
    """Keras then runs each direction by itself."""
    raise NotImplementedError


def _lstm(x: Tensor, h: Tensor, c: Tensor, mask: Tensor | None, **options: Any) -> Result:
    """Keras' gates i, f, c, o are torch's i, f, g, o. Its kernels are (I, 4H) and (H, 4H), its bias (4H,)."""
    x = _steps(x, options)
    w_ih, w_hh = (backend.convert_to_tensor(options[key]).t() for key in ("kernel", "recurrent_kernel"))
    given = options["bias"]
    b_ih = w_ih.new_zeros(w_ih.shape[0]) if given is None else backend.convert_to_tensor(given)
    weights = [w_ih, w_hh, b_ih, torch.zeros_like(b_ih)]
    run = partial(torch.ops.edgeseq.lstm, x)
    if mask is not None:
        return _masked(run, [h, c], mask, weights, options)
    y, hn, cn = run(h.unsqueeze(0), c.unsqueeze(0), None, weights, 1, False)
    return _result(y, [hn.squeeze(0), cn.squeeze(0)], options)


def _gru(x: Tensor, h: Tensor, mask: Tensor | None, **options: Any) -> Result:
    """Keras' gates z, r, h are torch's z, r, n, which torch orders r, z, n.

    Both have two biases (2, 3H) if the reset gate acts after the recurrent product; else Keras has one (3H,).
    """
    x = _steps(x, options)
    w_ih, w_hh = (_rzn(backend.convert_to_tensor(options[key]).t()) for key in ("kernel", "recurrent_kernel"))
    given = options["bias"]
    zero = w_ih.new_zeros(w_ih.shape[0])
    bias = zero if given is None else backend.convert_to_tensor(given)
    weights = [w_ih, w_hh, *(_rzn(part) for part in (bias if bias.dim() == 2 else (bias, zero)))]
    run = partial(_whole_gru, x, reset_after=options["reset_after"])
    if mask is not None:
        return _masked(run, [h], mask, weights, options)
    y, hn = run(h.unsqueeze(0), None, weights, 1, False)
    return _result(y, [hn.squeeze(0)], options)


def _whole_gru(x: Tensor, h: Tensor, *layout: Any, reset_after: bool) -> tuple[Tensor, Tensor]:
    y, hn = torch.ops.edgeseq.gru(x, h, *layout, reset_after)
    return y, hn


def _masked(run: Kernel, states: States, mask: Tensor, weights: list[Tensor], options: Mapping[str, Any]) -> Result:
    """Masked steps as padding at the end of each row (B, T): what a mask in the middle means, no format can say.

    Keras takes the steps of a backward layer from the padding on. The operator has a backward direction only beside a
    forward one, which here has the same weights and is thrown away.
    """
    is_valid = backend.convert_to_tensor(mask).reshape(mask.shape[0], mask.shape[1]).bool()
    steps = is_valid.sum(1)  # (B,)
    lengths = steps.clamp(min=1).int()  # of a row without a valid step, what the first one gives is thrown away below
    backwards = bool(options.get("go_backwards"))
    times = 2 if backwards else 1
    given = [torch.stack([state] * times) for state in states]  # each (D, B, H)
    y, *final = run(*given, lengths, weights * times, 1, backwards)
    width = states[0].shape[-1]
    kept = [torch.where((steps > 0).unsqueeze(1), f[-1], s) for f, s in zip(final, states, strict=True)]
    beyond = torch.zeros_like(kept[0]) if backwards or options["zero_output_for_mask"] else kept[0]
    y = torch.where(is_valid.unsqueeze(2), y[..., -width:], beyond.unsqueeze(1))
    return _result(y.flip(1) if backwards else y, kept, options)


def _rzn(weight: Tensor) -> Tensor:
    """The gates along the first axis, (3H, …), from Keras' order to torch's."""
    z, r, n = weight.chunk(3)
    return torch.cat([r, z, n])


def _steps(x: Tensor, options: Mapping[str, Any]) -> Tensor:
    """The steps in the order in which they are taken; with a mask, as they are.

    Raises:
        RequestError: The layer computes something that the operator does not.
    """
    activations = (options["activation"], options["recurrent_activation"])
    if activations != (keras.activations.tanh, keras.activations.sigmoid):
        raise RequestError("a recurrent layer has other activations than tanh and sigmoid, which no format has")
    x = backend.convert_to_tensor(x)
    return x.flip(1) if options.get("go_backwards") and not options["is_masked"] else x


def _result(y: Tensor, states: States, options: Mapping[str, Any]) -> Result:
    last = states[0]
    return last, y if options.get("return_sequences") else last.unsqueeze(1), states
