"""ONNX files on disk: one file, a file and its companion where the weights are too large for one, or a folder of programs.

A graph is one program. Where a model has several, they lie in a folder, `PROGRAM.onnx` each, beside one file of weights that
all of them refer to: what two of them use is stored once, and an app opens the programs that it needs.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir

from edgeseq.artifact import companion

MOST = 1_900_000_000  # bytes of weights in the file itself: protobuf refuses messages of 2 GiB
WEIGHTS = "weights.data"  # of a folder of programs
LEAST_SHARED = 256  # bytes; smaller constants stay in the graph
ALIGNMENT = 64  # bytes, of each weight in the file: engines may read them where they lie


def load(source: Path) -> ir.Model:
    """The graph with all its weights, wherever they lie."""
    model = ir.load(source)
    return ir.external_data.load_to_model(model) if _is_apart(source) else model


def save(model: ir.Model, target: Path, *, most: int = MOST) -> None:
    """Write the graph; its weights go into a companion file if they hold more than `most` bytes."""
    held = sum(tensor.nbytes for _, tensor in _weights(model))
    if held <= most:
        ir.save(model, target)
    else:
        ir.save(model, target, external_data=companion(target).name)


def save_programs(models: Mapping[str, ir.Model], folder: Path) -> None:
    """Write several graphs into a folder, each of their weights once. The graphs are changed to refer to the file.

    What an earlier call wrote there goes: its programs would be taken for the model's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.onnx"):
        stale.unlink()
    places: dict[tuple[str, tuple[int, ...], str], int] = {}  # type, shape and hash of what is written -> offset
    with (folder / WEIGHTS).open("wb") as stream:
        for model in models.values():
            for value, tensor in _weights(model):
                data = tensor.tobytes()
                if len(data) < LEAST_SHARED:
                    continue
                key = (tensor.dtype.name, tuple(tensor.shape.numpy()), hashlib.sha256(data).hexdigest())
                if key not in places:
                    stream.write(b"\0" * (-stream.tell() % ALIGNMENT))
                    places[key] = stream.tell()
                    stream.write(data)
                shape = ir.Shape(tensor.shape.numpy())
                value.const_value = ir.ExternalTensor(
                    WEIGHTS, places[key], len(data), tensor.dtype, shape=shape, name=str(value.name), base_dir=folder
                )
    for name, model in models.items():
        ir.save(model, folder / f"{name}.onnx")


def _weights(model: ir.Model) -> list[tuple[ir.Value, ir.TensorProtocol]]:
    """The constants of a graph that have names, with what they hold."""
    values = list(model.graph.initializers.values())
    return [(value, value.const_value) for value in values if value.const_value is not None]


def _is_apart(source: Path) -> bool:
    return companion(source).exists() or (source.parent / WEIGHTS).exists()
