"""Graph passes before writing: repeated operators once, activations into their producers, unused operators away."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from edgeseq.converters.tflite._graph import Graph, Operator, Options, Value, constant
from edgeseq.converters.tflite._merge import merge_products

_FUSING = frozenset({"FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "SUB", "MUL"})
_ACTIVATIONS = {"RELU": 1, "RELU6": 3}  # the schema's ActivationFunctionType
_MOVES = frozenset({"RESHAPE", "TRANSPOSE"})
_SMALL = 64  # constants up to this size are compared by their bytes


def optimize(graphs: Sequence[Graph]) -> None:
    """Simplify every subgraph in place."""
    for graph in graphs:
        remove_unused(graph)
        merge_repeated(graph)
        fold_scales(graph)
        remove_unused(graph)
        if len(graphs) == 1:  # signatures share their weights only as long as each has them in the same form
            merge_products(graph)
        fuse_activations(graph)
        remove_unused(graph)


def merge_repeated(graph: Graph) -> None:
    """Operators with the same inputs and settings become one, such as a mask that every layer derives."""
    seen: dict[object, Operator] = {}
    renamed: dict[Value, Value] = {}
    kept = []
    for operator in graph.operators:
        operator.inputs = [renamed.get(value, value) if value is not None else None for value in operator.inputs]
        twin = seen.setdefault(_key(operator), operator) if operator.code != "WHILE" else operator
        if twin is operator:
            kept.append(operator)
        else:
            renamed.update(zip(operator.outputs, twin.outputs, strict=True))
    graph.operators = kept
    graph.outputs = [renamed.get(value, value) for value in graph.outputs]


def fold_scales(graph: Graph) -> None:
    """A product with one number goes into the weight that feeds it, such as attention's scale into the queries'."""
    uses = count_uses(graph)
    renamed: dict[Value, Value] = {}
    for operator in graph.operators:
        operator.inputs = [renamed.get(value, value) if value is not None else None for value in operator.inputs]
        if operator.code != "MUL":
            continue
        x, factor = operator.inputs
        source = x
        while (
            source is not None and source.producer is not None and uses[source] == 1 and source.producer.code in _MOVES
        ):
            source = source.producer.inputs[0]
        if (
            x is None
            or source is None
            or factor is None
            or factor.data is None
            or factor.data.size != 1
            or uses[source] != 1
        ):
            continue
        if factor.rank <= x.rank and source.producer is not None and _scale(source.producer, factor.data):
            renamed[operator.outputs[0]] = x
    graph.outputs = [renamed.get(value, value) for value in graph.outputs]


def _scale(product: Operator, factor: np.ndarray) -> bool:
    """Multiply the weight and bias of a linear layer, if it is one."""
    if product.code != "FULLY_CONNECTED" or any(
        value is not None and value.data is None for value in product.inputs[1:]
    ):
        return False
    product.inputs[1:] = [
        value and constant(value.data * factor.item(), name=value.name) for value in product.inputs[1:]
    ]
    return True


def count_uses(graph: Graph) -> Counter[Value | None]:
    """How many operators and outputs read each value."""
    uses: Counter[Value | None] = Counter(value for operator in graph.operators for value in operator.inputs)
    uses.update(graph.outputs)
    return uses


def fuse_activations(graph: Graph) -> None:
    """A RELU that is the only reader of a product or sum becomes its fused activation."""
    uses = count_uses(graph)
    for operator in graph.operators:
        source = operator.inputs[0]
        if operator.code not in _ACTIVATIONS or source is None or uses[source] != 1 or source.producer is None:
            continue
        producer = source.producer
        if producer.code in _FUSING and producer.options and "fusedActivationFunction" not in producer.options.fields:
            fields = {**producer.options.fields, "fusedActivationFunction": _ACTIVATIONS[operator.code]}
            producer.options = Options(table=producer.options.table, fields=fields)
            operator.outputs[0].producer = producer
            producer.outputs, operator.outputs = operator.outputs, []


def remove_unused(graph: Graph) -> None:
    """Operators that no output depends on."""
    needed = set(graph.outputs)
    kept = []
    for operator in reversed(graph.operators):
        if needed.intersection(operator.outputs):
            needed.update(value for value in operator.inputs if value is not None)
            kept.append(operator)
    graph.operators = kept[::-1]


def _key(operator: Operator) -> object:
    settings = operator.options and (operator.options.table, str(sorted(operator.options.fields.items())))
    results = tuple((value.shape, str(value.dtype)) for value in operator.outputs)
    return operator.code, tuple(map(_identity, operator.inputs)), settings, results


def _identity(value: Value | None) -> object:
    if value is None or value.data is None or value.data.size > _SMALL:
        return value
    return value.data.tobytes(), value.shape, str(value.dtype)
