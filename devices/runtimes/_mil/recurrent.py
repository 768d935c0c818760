"""MIL's `lstm`, `gru` and `rnn`. Letters: T time, B batch, I input width, H hidden width, D directions (1 or 2)."""

from typing import Any

import numpy as np

from edgeseq.devices.runtimes._mil.blas import product
from edgeseq.devices.runtimes._mil.elementwise import sigmoid
from edgeseq.devices.runtimes._mil.operator import Array, Operator

Result = tuple[Array, Array, Array]


def lstm(
    x: Array,
    initial_h: Array,
    initial_c: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None = None,
    peephole: Array | None = None,
    weight_ih_back: Array | None = None,
    weight_hh_back: Array | None = None,
    bias_back: Array | None = None,
    peephole_back: Array | None = None,
    direction: Any = "forward",
    output_sequence: Any = False,
    recurrent_activation: Any = "sigmoid",
    cell_activation: Any = "tanh",
    activation: Any = "tanh",
    clip: Any = None,
) -> Result:
    """From x (T, B, I) and states (B, D*H) -> y (T, B, D*H), or (1, B, D*H) of the last step; h, c (B, D*H)."""
    activations = (str(recurrent_activation), str(cell_activation), str(activation))
    if (
        peephole is not None
        or peephole_back is not None
        or clip is not None
        or activations != ("sigmoid", "tanh", "tanh")
    ):
        raise NotImplementedError("lstm with peepholes, clipping or other activations")
    if str(direction) == "bidirectional":
        assert weight_ih_back is not None and weight_hh_back is not None
        (h, h_back), (c, c_back) = (np.split(state, 2, axis=-1) for state in (initial_h, initial_c))
        ahead = one_direction(x, h, c, weight_ih, weight_hh, bias)
        back = one_direction(x[::-1], h_back, c_back, weight_ih_back, weight_hh_back, bias_back)
        y, h, c = (np.concatenate(pair, axis=-1) for pair in zip(ahead, (back[0][::-1], *back[1:]), strict=True))
    elif str(direction) == "reverse":
        y, h, c = one_direction(x[::-1], initial_h, initial_c, weight_ih, weight_hh, bias)
        y = y[::-1]
    else:
        y, h, c = one_direction(x, initial_h, initial_c, weight_ih, weight_hh, bias)
    return (y if output_sequence else h[None]), h, c


def one_direction(x: Array, h: Array, c: Array, weight_ih: Array, weight_hh: Array, bias: Array | None) -> Result:
    """From x (T, B, I), h and c (B, H) -> y (T, B, H), h, c; gates in the order i, f, o, g."""
    steps, batch, _ = x.shape
    hidden = weight_hh.shape[1]
    from_x = _input_half(x, weight_ih, bias)
    recurrent = np.ascontiguousarray(weight_hh.T)  # (H, 4H)
    y = np.empty((steps, batch, hidden), np.float32)
    for t in range(steps):
        gates = from_x[t] + product(h, recurrent)  # (B, 4H)
        i, f, o = np.split(sigmoid(gates[:, : 3 * hidden]), 3, axis=-1)  # each (B, H)
        c = f * c + i * np.tanh(gates[:, 3 * hidden :])
        h = o * np.tanh(c)
        y[t] = h
    return y, h, c


def gru(
    x: Array,
    initial_h: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None = None,
    direction: Any = "forward",
    output_sequence: Any = False,
    recurrent_activation: Any = "sigmoid",
    activation: Any = "tanh",
    reset_after: Any = False,
    input_bias: Array | None = None,
) -> tuple[Array, Array]:
    """From x (T, B, I) and h (B, H) -> y (T, B, H), or (1, B, H) of the last step; h (B, H).

    Gates in the order r, o, z. r multiplies h, or with `reset_after` (iOS 18) the recurrent product and its bias.
    """
    if (str(recurrent_activation), str(activation)) != ("sigmoid", "tanh"):
        raise NotImplementedError("gru with other activations")
    hidden = weight_hh.shape[1]
    recurrent = np.ascontiguousarray(weight_hh.T)  # (H, 3H)

    inner = np.zeros(3 * hidden, np.float32) if bias is None else bias
    r_gate, o_gate, z_gate = (slice(i * hidden, (i + 1) * hidden) for i in range(3))

    def step(from_x: Array, h: Array) -> Array:
        from_h = product(h, recurrent) + inner  # (B, 3H)
        r, z = (sigmoid(from_x[:, gate] + from_h[:, gate]) for gate in (r_gate, z_gate))
        if reset_after:
            reset = r * from_h[:, o_gate]
        else:
            reset = product(r * h, np.ascontiguousarray(recurrent[:, o_gate])) + inner[o_gate]
        o = np.tanh(from_x[:, o_gate] + reset)
        return (1 - z) * o + z * h

    return _outputs(step, _input_half(x, weight_ih, input_bias), initial_h, direction, output_sequence)


def rnn(
    x: Array,
    initial_h: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None = None,
    direction: Any = "forward",
    output_sequence: Any = False,
    activation: Any = "tanh",
) -> tuple[Array, Array]:
    """From x (T, B, I) and h (B, H) -> y (T, B, H), or (1, B, H) of the last step; h (B, H)."""
    if str(activation) not in RNN_ACTIVATIONS:
        raise NotImplementedError(f"rnn with activation {activation}")
    squash = RNN_ACTIVATIONS[str(activation)]
    recurrent = np.ascontiguousarray(weight_hh.T)  # (H, H)

    def step(from_x: Array, h: Array) -> Array:
        return squash(from_x + product(h, recurrent))

    return _outputs(step, _input_half(x, weight_ih, bias), initial_h, direction, output_sequence)


def _outputs(step: Operator, from_x: Array, h: Array, direction: Any, output_sequence: Any) -> tuple[Array, Array]:
    """The steps from_x (T, B, W) one after another -> y (T, B, H), or of the last step only, and h (B, H)."""
    backward = str(direction) == "reverse"
    y = np.empty((len(from_x), *h.shape), np.float32)
    for t in range(len(from_x))[:: -1 if backward else 1]:
        y[t] = h = step(from_x[t], h)
    return (y if output_sequence else h[None]), h


def _input_half(x: Array, weight: Array, bias: Array | None) -> Array:
    """From x (T, B, I), weight (W, I) -> (T, B, W): all steps in one product."""
    result = product(x.reshape(-1, x.shape[-1]), weight.T).reshape(*x.shape[:2], -1)
    return result if bias is None else result + bias


RNN_ACTIVATIONS: dict[str, Operator] = {"tanh": lambda x: np.tanh(x), "relu": lambda x: np.maximum(x, 0)}

OPERATORS: dict[str, Operator] = {"lstm": lstm, "gru": gru, "rnn": rnn}
