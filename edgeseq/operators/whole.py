"""Recurrent layers stay whole while a model is exported."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from edgeseq import operators
from edgeseq.operators.layers import RecurrentLayer, exported
from edgeseq.operators.packing import padded_while_exporting


@contextmanager
def whole_recurrent_layers() -> Iterator[None]:
    """While it lasts, torch's recurrent layers are exported as our operators, over padded batches."""
    with ExitStack() as stack:
        stack.enter_context(padded_while_exporting())
        for name in operators.names():
            stack.enter_context(_exported_whole(operators.get(name)))
        yield


@contextmanager
def _exported_whole(layer: RecurrentLayer) -> Iterator[None]:
    original: Callable[..., Any] = layer.module.forward

    def forward(self: Any, x: Any, state: Any = None) -> Any:
        return exported(layer, self, x, state)

    layer.module.forward = forward
    try:
        yield
    finally:
        layer.module.forward = original
