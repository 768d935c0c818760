"""The signature's names for the dimensions of a graph, in place of the symbols that torch.export counted."""

import re

import onnx_ir as ir

from edgeseq.signature import Signature

SYMBOL = re.compile(r"[A-Za-z_]\w*")  # in a size such as `s21 + 1`


def name_dimensions(model: ir.Model, signature: Signature) -> None:
    """Give every value's sizes the names that the inputs' have in the signature."""
    inputs = {value.name: value for value in model.graph.inputs}
    names = {
        str(size.value): name
        for spec in signature.inputs
        for size, name in zip(inputs[spec.name].shape or (), spec.shape, strict=True)
        if isinstance(size, ir.SymbolicDim) and isinstance(name, str) and name != "?"
    }
    results = [value for node in model.graph.all_nodes() for value in node.outputs]
    for value in {*inputs.values(), *results}:
        if value.shape is not None:
            value.shape = ir.Shape([_named(size, names) for size in value.shape])


def _named(size: int | ir.SymbolicDim, names: dict[str, str]) -> int | str | None:
    if isinstance(size, int) or size.value is None:
        return size if isinstance(size, int) else None
    return SYMBOL.sub(lambda found: names.get(found[0], found[0]), size.value)
