"""What torch's exporter notes down about each node: kept is the module path, dropped are stack traces of this machine."""

import ast

import onnx_ir as ir

from edgeseq.module_paths import WRAPPER, stripped

SCOPES = "pkg.torch.onnx.name_scopes"  # a Python list of module paths, outermost first, then the node's own name


def keep_module_paths(model: ir.Model) -> None:
    """Replace every node's metadata by `module`, the path of the PyTorch module that it came from."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    for node in model.graph.all_nodes():
        scopes = ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))
        path = next((stripped(s) for s in reversed(scopes[:-1]) if s.startswith(f"{WRAPPER}.")), "")
        node.metadata_props.clear()
        node.doc_string = None
        if path:
            node.metadata_props["module"] = path
        for value in node.outputs:
            value.metadata_props.clear()
    name_after_modules(model.graph)


def name_after_modules(graph: ir.Graph) -> None:
    """Give constants that were folded the name of the module that reads them, which later tools keep, unlike metadata."""
    for value in list(graph.initializers.values()):
        paths = [user.metadata_props.get("module", "") for user, _ in value.uses()]
        if value.name and "." not in value.name and paths and paths[0]:
            value.name = f"{paths[0]}.{value.name}"
