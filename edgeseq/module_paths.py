"""Where in the PyTorch model a node of a captured program comes from, and how to say that a format lacks its operator."""

from collections.abc import Iterable

from torch import Tensor
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from edgeseq.errors import UnsupportedError
from edgeseq.replacements import replacement

SIZE_OF_VALUES = (
    " (the size of its result depends on values; instead: keep the whole length and mask what is not wanted, "
    "or cut in the app)"
)
WRAPPER = "model"  # of edgeseq.capture, which every path begins with


def module_path(node: Node) -> str:
    """The path of the innermost module, such as `encoder.layers.0`; empty for the model itself."""
    stack = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
    return stripped(stack[-1].removeprefix("L['self'].")) if stack else ""


def stripped(path: str) -> str:
    """A path within the captured program as one within the user's model."""
    return path.removeprefix(WRAPPER).removeprefix(".") if path.split(".")[0] == WRAPPER else path


def lacking(format: str, nodes: Iterable[Node]) -> UnsupportedError:
    """The error that lists every operator a format lacks, each with the modules that use it and what could replace it."""
    modules: dict[str, set[str]] = {}
    hints: dict[str, str] = {}
    for node in nodes:
        path, name = module_path(node), str(node.target)
        modules.setdefault(name, set()).add(f"module '{path}'" if path else "the model itself")
        hints[name] = SIZE_OF_VALUES if has_size_of_values(node) else _hint(name)
    listed = "; ".join(f"{name} in {', '.join(sorted(paths))}{hints[name]}" for name, paths in sorted(modules.items()))
    return UnsupportedError(
        f"format '{format}' lacks {len(modules)} operator(s) of the model: {listed}; replace them in the model, "
        "or convert to another format"
    )


def has_size_of_values(node: Node) -> bool:
    """Whether the operator is the first whose result has a size that depends on the values of a tensor."""

    def unbacked(of: Node) -> bool:
        value = of.meta.get("val")
        return isinstance(value, Tensor) and bool(free_unbacked_symbols(value))

    return unbacked(node) and not any(unbacked(source) for source in node.all_input_nodes)


def _hint(operator: str) -> str:
    known = replacement(operator)
    return f" (instead: {known})" if known else ""
