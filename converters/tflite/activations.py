"""Activations, softmax and the functions that TFLite lacks."""

from edgeseq.converters.tflite import _emit
from edgeseq.converters.tflite._emit import binary, scalar, unary
from edgeseq.converters.tflite._graph import Options, Value, options
from edgeseq.converters.tflite._site import Site
from edgeseq.converters.tflite.elementwise import clamp
from edgeseq.errors import UnsupportedError


def relu(site: Site, x: Value) -> Value:
    """max(x, 0)."""
    return unary(site.graph, "RELU", x)


def hard_tanh(site: Site, x: Value, low: float, high: float) -> Value:
    """Between bounds; ReLU6 by its own operator."""
    return unary(site.graph, "RELU6", x) if (low, high) == (0, 6) else clamp(site, x, float(low), float(high))


def leaky_relu(site: Site, x: Value, slope: float) -> Value:
    """x, or slope·x below zero."""
    return unary(site.graph, "LEAKY_RELU", x, options("LeakyReluOptions", alpha=float(slope)))


def elu(site: Site, x: Value, alpha: float, scale: float, input_scale: float) -> Value:
    """exp(x) - 1 below zero."""
    if (alpha, scale, input_scale) != (1, 1, 1):
        raise UnsupportedError(f"converter 'tflite' has ELU with alpha 1 only, not {alpha}")
    return unary(site.graph, "ELU", x)


def gelu(site: Site, x: Value, approximate: str) -> Value:
    """Hendrycks and Gimpel 2016, exact or with tanh."""
    return unary(site.graph, "GELU", x, options("GeluOptions", approximate=approximate == "tanh"))


def silu(site: Site, x: Value) -> Value:
    """x·sigmoid(x)."""
    return binary(site.graph, "MUL", x, unary(site.graph, "LOGISTIC", x))


def hard_sigmoid(site: Site, x: Value) -> Value:
    """relu6(x + 3) / 6."""
    shifted = unary(site.graph, "RELU6", binary(site.graph, "ADD", x, scalar(3, x)))
    return binary(site.graph, "MUL", shifted, scalar(1 / 6, x))


def hard_swish(site: Site, x: Value) -> Value:
    """x·relu6(x + 3) / 6."""
    return unary(site.graph, "HARD_SWISH", x)


def softplus(site: Site, x: Value, beta: float, threshold: float) -> Value:
    """log(1 + exp(beta·x)) / beta, as max(x, 0) + log(1 + exp(-beta·|x|)) / beta so that exp stays finite."""
    del threshold
    graph = site.graph
    decay = unary(graph, "EXP", binary(graph, "MUL", unary(graph, "ABS", x), scalar(-beta, x)))
    tail = unary(graph, "LOG", binary(graph, "ADD", decay, scalar(1, x)))
    return binary(graph, "ADD", unary(graph, "RELU", x), binary(graph, "MUL", tail, scalar(1 / beta, x)))


def reciprocal(site: Site, x: Value) -> Value:
    """1 / x."""
    return binary(site.graph, "DIV", scalar(1, x), x)


def log1p(site: Site, x: Value) -> Value:
    """log(1 + x)."""
    return unary(site.graph, "LOG", binary(site.graph, "ADD", x, scalar(1, x)))


def expm1(site: Site, x: Value) -> Value:
    """exp(x) - 1."""
    return binary(site.graph, "SUB", unary(site.graph, "EXP", x), scalar(1, x))


def erf(site: Site, x: Value) -> Value:
    """Abramowitz and Stegun 1964, 7.1.26 (absolute error below 1.5e-7): TFLite has no such operator."""
    graph = site.graph
    magnitude = unary(graph, "ABS", x)
    t = reciprocal(site, binary(graph, "ADD", binary(graph, "MUL", magnitude, scalar(0.3275911, x)), scalar(1, x)))
    series = scalar(1.061405429, x)
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = binary(graph, "ADD", binary(graph, "MUL", series, t), scalar(coefficient, x))
    gauss = unary(graph, "EXP", unary(graph, "NEG", binary(graph, "MUL", x, x)))
    rest = binary(graph, "MUL", binary(graph, "MUL", series, t), gauss)
    return binary(graph, "MUL", unary(graph, "SIGN", x), binary(graph, "SUB", scalar(1, x), rest))


def settings_of_softmax() -> Options:
    """Softmax without temperature."""
    return options("SoftmaxOptions", beta=1.0)


def softmax(site: Site, x: Value, axis: int, dtype_or_half: object) -> Value:
    """Softmax over any axis; TFLite's works on the last."""
    del dtype_or_half
    return _over_last_axis(site, "SOFTMAX", x, axis, settings_of_softmax())


def log_softmax(site: Site, x: Value, axis: int, dtype_or_half: object) -> Value:
    """Log-softmax over any axis."""
    del dtype_or_half
    return _over_last_axis(site, "LOG_SOFTMAX", x, axis, options("LogSoftmaxOptions"))


def _over_last_axis(site: Site, code: str, x: Value, axis: int, settings: Options) -> Value:
    graph, last = site.graph, x.rank - 1
    x = _emit.as_float(graph, x)
    if axis % x.rank == last:
        return unary(graph, code, x, settings)
    order = list(range(x.rank))
    order[axis], order[last] = order[last], order[axis]
    return _emit.transpose(graph, unary(graph, code, _emit.transpose(graph, x, order), settings), order)
