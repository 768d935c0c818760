"""Which nodes of a program have lowerings."""

import operator
from collections.abc import Iterable, Sequence

import torch
from torch.fx import Node

from edgeseq.converters.tflite._table import LOWERINGS
from edgeseq.module_paths import has_size_of_values

ASSERTIONS = frozenset(
    {"aten._assert_tensor_metadata.default", "aten._assert_scalar.default", "aten._assert_async.msg"}
)
_FRESH = frozenset(
    {"new_zeros", "new_ones", "new_full", "zeros", "zeros_like", "ones", "ones_like", "full", "full_like", "clone"}
)


def is_known(node: Node) -> bool:
    """Whether a call can be lowered as it stands."""
    if has_size_of_values(node):
        return False
    name = str(node.target)
    computes_size = not isinstance(node.meta.get("val"), torch.Tensor | tuple | list)
    return (
        name in ASSERTIONS
        or node.target is operator.getitem
        or ((name in LOWERINGS or computes_size) and _is_functional(node))
    )


def _is_functional(node: Node) -> bool:
    """Whether it writes to nothing, or only to a fresh tensor that nobody else reads."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return True
    written = node.args[0]
    return isinstance(written, Node) and len(written.users) == 1 and _base_name(written) in _FRESH


def _base_name(node: Node) -> str:
    return str(node.target).removeprefix("aten.").split(".")[0]


def unsupported(nodes: Sequence[Node], folded: Iterable[Node]) -> list[Node]:
    """Calls without lowering; those that torch folds need none."""
    skipped = set(folded)
    return [node for node in nodes if node.op == "call_function" and node not in skipped and not is_known(node)]
