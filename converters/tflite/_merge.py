"""Linear layers of the same rows become one where only columns of their results are read, as heads of attention are.

Under dynamic quantization every FULLY_CONNECTED rounds its input anew: one for queries, keys and values does so once.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from edgeseq.converters.tflite._graph import INT32, Graph, Operator, Value, constant

_SLICES = {"SLICE": 2, "STRIDED_SLICE": 3}  # how many inputs of each, from the second on, count from the axis' start


def merge_products(graph: Graph) -> None:
    """Rewrite such layers in place; what a column is does not change, so neither does any number."""
    readers: dict[Value | None, list[Operator]] = defaultdict(list)
    for operator in graph.operators:
        for value in operator.inputs:
            readers[value].append(operator)
    groups: dict[Value | None, list[Operator]] = defaultdict(list)
    for operator in graph.operators:
        if operator.code == "FULLY_CONNECTED" and _is_alone(graph, operator, readers):
            groups[operator.inputs[0]].append(operator)
    for layers in groups.values():
        if len(layers) > 1 and len({str(layer.options) for layer in layers}) == 1:
            _merge(graph, layers, readers)


def _is_alone(graph: Graph, layer: Operator, readers: dict[Value | None, list[Operator]]) -> bool:
    """Whether nobody else reads its weights, and only slices of columns its result."""
    _, weight, bias = layer.inputs
    result = layer.outputs[0]
    return (
        weight is not None
        and bias is not None
        and weight.data is not None
        and bias.data is not None
        and len(readers[weight]) == 1
        and result not in graph.outputs
        and all(_takes_columns(reader, result) for reader in readers[result])
    )


def _takes_columns(operator: Operator, source: Value) -> bool:
    """Whether it is a slice of the last axis that says where it ends."""
    if operator.code not in _SLICES or operator.inputs[0] is not source:
        return False
    masks = operator.options.fields if operator.options is not None else {}
    return not int(str(masks.get("endMask", 0))) >> (source.rank - 1) & 1


def _merge(graph: Graph, layers: Sequence[Operator], readers: dict[Value | None, list[Operator]]) -> None:
    first, parts = layers[0], [layer.outputs[0] for layer in layers]
    stacked = [
        constant(np.concatenate([v.data for v in values if v is not None and v.data is not None]), name=_name(values))
        for values in ([layer.inputs[place] for layer in layers] for place in (1, 2))
    ]
    shape = (*parts[0].shape[:-1], stacked[1].shape[0])
    merged = Operator(code=first.code, inputs=[first.inputs[0], *stacked], outputs=[], options=first.options)
    result = Value(name=parts[0].name, shape=shape, dtype=parts[0].dtype, producer=merged)
    merged.outputs = [result]
    graph.operators[graph.operators.index(first)] = merged
    graph.operators = [operator for operator in graph.operators if operator not in layers]
    start = 0
    for part in parts:
        for reader in readers[part]:
            reader.inputs[0] = result
            for place in range(1, _SLICES[reader.code]):
                reader.inputs[place] = _shifted(reader.inputs[place], start)
        width = part.shape[-1]
        assert isinstance(width, int)
        start += width


def _shifted(position: Value | None, columns: int) -> Value:
    assert position is not None and position.data is not None
    moved = position.data.copy()
    moved[-1] += columns
    return constant(moved, INT32)


def _name(values: Sequence[Value | None]) -> str:
    """`a.query.weight` and `a.key.weight` -> `a.query+key.weight`."""
    paths = [value.name.split(".") for value in values if value is not None]
    if any(len(path) < 2 for path in paths):
        return paths[0][-1]
    layers = list(dict.fromkeys(path[-2] for path in paths))
    return ".".join([*paths[0][:-2], "+".join(layers), paths[0][-1]])
