"""Where in the PyTorch model a node of a captured program comes from, and how to say that a format lacks its operator."""

from collections.abc import Iterable

from torch.fx import Node

from edgeseq.errors import UnsupportedError
from edgeseq.replacements import replacement

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
    for node in nodes:
        path = module_path(node)
        modules.setdefault(str(node.target), set()).add(f"module '{path}'" if path else "the model itself")
    listed = "; ".join(f"{name} in {', '.join(sorted(paths))}{_hint(name)}" for name, paths in sorted(modules.items()))
    return UnsupportedError(
        f"format '{format}' lacks {len(modules)} operator(s) of the model: {listed}; replace them in the model, "
        "or convert to another format"
    )


def _hint(operator: str) -> str:
    known = replacement(operator)
    return f" (instead: {known})" if known else ""
