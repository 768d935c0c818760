"""What torch's recurrent layers have in common: how they compute padded batches, and how they are exported whole.

torch.export specialises the time axis of a recurrent layer to the example's length, and its decomposition unrolls it. An
operator with a shape rule of its own does neither: the exported graph holds one node, and each converter lowers it its
own way. `lstm.py`, `gru.py` and `rnn.py` each hold such an operator and end with its `LAYER`.

Letters: B batch, T time, I input width, L layers, D directions (1 or 2), H hidden width, P output width (H, or the
width of an LSTM's projection).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

States = tuple[Tensor, ...]  # each (L*D, B, width)


@dataclass(frozen=True, kw_only=True)
class RecurrentLayer:
    """One kind of recurrent layer.

    `operator` takes the layer, x (B, T, I), its states, lengths (B,) or None, and weights, and gives y and the new states.
    """

    module: type[nn.RNNBase]
    operator: Callable[[Any, Tensor, States, Tensor | None, list[Tensor]], tuple[Tensor, ...]]
    state_widths: Callable[[Any], tuple[int, ...]]  # of a layer: the last axis of each of its states


def compute(
    kernel: Callable[..., Any],
    x: Tensor,
    states: States,
    lengths: Tensor | None,
    weights: list[Tensor],
    num_layers: int,
    bidirectional: bool,
) -> tuple[Tensor, ...]:
    """What one of torch's kernels, such as `torch._VF.lstm`, computes of a padded batch: y (B, T, D*P) and new states.

    Steps from a row's length on change neither its outputs, which are zero there, nor its states; the backward direction
    starts at the row's last valid step.
    """
    layout = (True, num_layers, 0.0, False, bidirectional)  # has_biases, layers, dropout, train, bidirectional
    if lengths is None:
        y, *final = kernel(x, _as_kernels_take(states), weights, *layout, True)
        return y.clone(memory_format=torch.contiguous_format), *(state.clone() for state in final)
    packed = pack_padded_sequence(x, lengths.cpu().long(), batch_first=True, enforce_sorted=False)
    order, back = packed.sorted_indices, packed.unsorted_indices
    assert order is not None and back is not None, "a sequence packed from unsorted lengths has both"
    in_order = tuple(state.index_select(1, order) for state in states)
    data, *final = kernel(packed.data, packed.batch_sizes, _as_kernels_take(in_order), weights, *layout)
    y, _ = pad_packed_sequence(packed._replace(data=data), batch_first=True, total_length=x.shape[1])
    return y.clone(memory_format=torch.contiguous_format), *(state.index_select(1, back) for state in final)


def exported(
    layer: RecurrentLayer, module: Any, x: Tensor | PackedSequence, state: Any = None, lengths: Tensor | None = None
) -> tuple[Any, Any]:
    """What a recurrent layer's `forward` gives, by one operator. Called while a model is exported.

    Takes what `forward` takes: x (B, T, I), (T, B, I), (T, I), or a sequence that `packing.packed` made.
    """
    if isinstance(x, PackedSequence):
        y, final = _batch_first(layer, module, x.data, state, x.batch_sizes)
        return x._replace(data=y), final
    if x.dim() == 2:
        states = tuple(s.unsqueeze(1) for s in _as_tuple(state)) or None  # (L*D, width) -> (L*D, 1, width)
        y, final = _batch_first(layer, module, x.unsqueeze(0), states, lengths)
        return y.squeeze(0), _as_given([s.squeeze(1) for s in _as_tuple(final)])
    if module.batch_first:
        return _batch_first(layer, module, x, state, lengths)
    y, final = _batch_first(layer, module, x.transpose(0, 1), state, lengths)
    return y.transpose(0, 1), final


def _batch_first(
    layer: RecurrentLayer, module: Any, x: Tensor, state: Any, lengths: Tensor | None
) -> tuple[Tensor, Any]:
    """X (B, T, I) -> y (B, T, D*P) and the final state in the layer's own form."""
    rows = module.num_layers * (2 if module.bidirectional else 1)
    states = _as_tuple(state) or tuple(x.new_zeros(rows, x.shape[0], width) for width in layer.state_widths(module))
    y, *final = layer.operator(module, x, states, lengths, weights(module))
    return y, _as_given(final)


def weights(module: Any) -> list[Tensor]:
    """The layer's parameters by name (so that the program keeps their module paths), zeros for missing biases.

    Per layer and direction w_ih, w_hh, b_ih, b_hh, and w_hr where the layer projects its outputs.
    """
    listed = []
    for names in module._all_weights:
        given = {name: getattr(module, name) for name in names}
        w_ih, w_hh, *rest = given.values()
        zero = () if module.bias else (w_ih.new_zeros(w_ih.shape[0]),) * 2
        listed += [w_ih, w_hh, *zero, *rest]
    return listed


def hidden_width(module: Any) -> tuple[int, ...]:
    """The widths of the states of a layer whose only state is its last output."""
    return (module.hidden_size,)


def _as_tuple(state: Any) -> States:
    return () if state is None else tuple(state) if isinstance(state, tuple | list) else (state,)


def _as_given(states: Sequence[Tensor]) -> Any:
    return states[0] if len(states) == 1 else tuple(states)


def _as_kernels_take(states: States) -> Any:
    return states[0] if len(states) == 1 else states
