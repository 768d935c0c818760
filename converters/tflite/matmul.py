"""Matrix products: linear layers, products of activations, convolutions over time and space."""

from collections.abc import Sequence

import numpy as np

from edgeseq.converters.tflite import _emit
from edgeseq.converters.tflite._emit import binary, reshape, scalar, transpose
from edgeseq.converters.tflite._graph import (
    FLOAT32,
    Graph,
    Options,
    Setting,
    Shape,
    Value,
    constant,
    options,
)
from edgeseq.converters.tflite._site import Site
from edgeseq.errors import UnsupportedError


def fully_connected(graph: Graph, x: Value, weight: Value, bias: Value | None) -> Value:
    """X (..., I) and a constant weight (O, I) -> (..., O)."""
    shape = (*x.shape[:-1], weight.shape[0])
    settings = options("FullyConnectedOptions", keepNumDims=x.rank > 2)
    path = weight.name.rpartition(".")[0]
    outer, graph.scope = graph.scope, path or graph.scope
    y = graph.op("FULLY_CONNECTED", [x, weight, bias], shape, options=settings)
    graph.scope = outer
    return y


def projection_part(graph: Graph, x: Value, index: int) -> Value | None:
    """Entry `index` of the first axis of a packed projection, as a product of its own with those rows of the weight.

    nn.MultiheadAttention projects to (..., n*E), views that as (..., n, E), moves n to the front and takes the entries
    apart: a transposition and n slices that the device need not do. None: x is nothing of the kind.
    """
    moved = _source(x, "RESHAPE") if x.producer is not None and x.producer.code == "RESHAPE" else x
    grouped = _source(moved, "TRANSPOSE")
    packed = _source(grouped, "RESHAPE")
    if moved is None or grouped is None or packed is None or _source(packed, "FULLY_CONNECTED") is None:
        return None
    assert moved.producer is not None and moved.producer.inputs[1] is not None and packed.producer is not None
    order = moved.producer.inputs[1].data
    source, weight, bias = packed.producer.inputs
    assert order is not None and source is not None and weight is not None
    rest = [axis for axis in order[1:].tolist() if grouped.shape[axis] != 1]
    parts, width = grouped.shape[-2], grouped.shape[-1]
    is_packed = order[0] == grouped.rank - 2 and rest == sorted(rest) and moved.shape[0] == x.shape[0] == parts
    if not is_packed or weight.data is None or not isinstance(width, int) or weight.shape[0] != parts * width:
        return None
    first = index * width % weight.data.shape[0]  # of an index from the end as well
    rows = slice(first, first + width)
    part_bias = None if bias is None or bias.data is None else constant(bias.data[rows], name=bias.name)
    return fully_connected(graph, source, constant(weight.data[rows], name=weight.name), part_bias)


def _source(x: Value | None, code: str) -> Value | None:
    """The first input of the operator that gives x, if it is of that kind."""
    return x.producer.inputs[0] if x is not None and x.producer is not None and x.producer.code == code else None


def linear(site: Site, x: Value, weight: Value, bias: Value | None) -> Value:
    """A linear layer."""
    if weight.data is None or x.rank == 1:
        y = _product(site.graph, x, transpose(site.graph, weight, (1, 0)))
        return y if bias is None else binary(site.graph, "ADD", y, bias)
    return fully_connected(site.graph, x, weight, bias)


def add_product(site: Site, bias: Value, x: Value, y: Value, beta: float, alpha: float) -> Value:
    """beta·bias + alpha·x·y."""
    if y.data is not None and y.rank == 2 and bias.data is not None and bias.rank == 1:
        weight = constant(alpha * y.data.T, FLOAT32, name=y.name)
        return fully_connected(site.graph, x, weight, constant(beta * bias.data, FLOAT32, name=bias.name))
    product = _product(site.graph, x, y)
    if alpha != 1:
        product = binary(site.graph, "MUL", product, scalar(alpha, product))
    if beta != 1:
        bias = binary(site.graph, "MUL", bias, scalar(beta, bias))
    return binary(site.graph, "ADD", product, bias)


def product(site: Site, x: Value, y: Value) -> Value:
    """mm, bmm and matmul, vectors included."""
    return reshape(site.graph, _product(site.graph, x, y), site.shape)


def _product(graph: Graph, x: Value, y: Value) -> Value:
    if y.data is not None and y.rank == 2 and x.rank >= 2:
        return fully_connected(graph, x, transpose(graph, y, (1, 0)), None)
    x = reshape(graph, x, (1, *x.shape)) if x.rank == 1 else x
    y = reshape(graph, y, (*y.shape, 1)) if y.rank == 1 else y
    return batch_matmul(graph, x, y)


def batch_matmul(graph: Graph, x: Value, y: Value) -> Value:
    """X (..., M, K), y (..., K, N) -> (..., M, N). A transposed y is read as it was before."""
    columns = y.shape[-1]
    batch = _emit.broadcast(x.shape[:-2], y.shape[:-2])
    source = _before_swap(y)
    settings = options("BatchMatMulOptions", adjY=source is not None)
    return graph.op("BATCH_MATMUL", [x, source or y], (*batch, x.shape[-2], columns), FLOAT32, settings)


def _before_swap(y: Value) -> Value | None:
    """What y is the transpose (of its last two axes) of, if it is one."""
    if y.producer is None or y.producer.code != "TRANSPOSE":
        return None
    source, order = y.producer.inputs
    assert source is not None and order is not None and order.data is not None
    swapped = [*range(y.rank - 2), y.rank - 1, y.rank - 2]
    return source if order.data.tolist() == swapped else None


def convolution(
    site: Site,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    is_transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Value:
    """Convolutions over one or two axes, channels first in torch: (N, C, W) or (N, C, H, W)."""
    del output_padding
    graph, axes = site.graph, x.rank - 2
    if is_transposed or axes not in (1, 2) or weight.data is None or groups not in (1, x.shape[1]):
        raise UnsupportedError(
            f"converter 'tflite' lowers convolutions over 1 or 2 axes, plain or depthwise, with constant weights; this "
            f"one has {axes} axes, groups={groups}, transposed={is_transposed}"
        )
    if axes == 1:  # over time: as an image of height 1
        x = reshape(graph, x, (*x.shape[:2], 1, x.shape[2]))
        weight = constant(weight.data[:, :, None], name=weight.name)
    first = (1,) * (2 - axes)
    steps, rates, borders = [*first, *stride], [*first, *dilation], [*(0,) * (2 - axes), *padding]
    x = transpose(graph, x, (0, 2, 3, 1))
    if any(borders):
        pairs = constant([(0, 0), *((b, b) for b in borders), (0, 0)], np.dtype(np.int32))
        shape = tuple(size + 2 * b for size, b in zip(x.shape, [0, *borders, 0], strict=True))
        x = graph.op("PAD", [x, pairs], shape, options=options("PadOptions"))
    image = site.shape if axes == 2 else (*site.shape[:2], 1, site.shape[2])
    y = _convolve(graph, x, weight, bias, steps, rates, image)
    return reshape(graph, transpose(graph, y, (0, 3, 1, 2)), site.shape)


def _convolve(
    graph: Graph, x: Value, weight: Value, bias: Value | None, steps: Sequence[int], rates: Sequence[int], shape: Shape
) -> Value:
    """X (N, H, W, C) without further padding, weight (O, C or 1, h, w) -> (N, O, H, W)'s channels-last form."""
    assert weight.data is not None
    channels = weight.data.shape[0]
    is_depthwise = weight.data.shape[1] == 1 and x.shape[3] != 1
    kernel = constant(weight.data.transpose((1, 2, 3, 0) if is_depthwise else (0, 2, 3, 1)), name=weight.name)
    settings: dict[str, Setting] = {
        "padding": 1,  # VALID
        "strideH": steps[0],
        "strideW": steps[1],
        "dilationHFactor": rates[0],
        "dilationWFactor": rates[1],
    }
    if is_depthwise:
        settings["depthMultiplier"] = channels // int(x.shape[3])
    table = "DepthwiseConv2DOptions" if is_depthwise else "Conv2DOptions"
    code = "DEPTHWISE_CONV_2D" if is_depthwise else "CONV_2D"
    inputs = [x, kernel, bias or constant(np.zeros(channels, np.float32))]
    return graph.op(
        code, inputs, (shape[0], shape[2], shape[3], shape[1]), options=Options(table=table, fields=settings)
    )
