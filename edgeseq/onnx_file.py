"""ONNX files on disk: one file, or a file and its companion where the weights are too large for one."""

from pathlib import Path

import onnx_ir as ir

from edgeseq.artifact import companion

MOST = 1_900_000_000  # bytes of weights in the file itself: protobuf refuses messages of 2 GiB


def load(source: Path) -> ir.Model:
    """The graph with all its weights, wherever they lie."""
    model = ir.load(source)
    return ir.external_data.load_to_model(model) if companion(source).exists() else model


def save(model: ir.Model, target: Path, *, most: int = MOST) -> None:
    """Write the graph; its weights go into a companion file if they hold more than `most` bytes."""
    held = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    if held <= most:
        ir.save(model, target)
    else:
        ir.save(model, target, external_data=companion(target).name)
