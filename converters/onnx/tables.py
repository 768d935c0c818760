"""Tables that are looked up and also multiplied with, as embeddings tied to a head: both read one constant.

torch writes a product of (B, T, D) as MatMul with the transposed table. Folded, that would be a second copy; onnxruntime does
it when it loads the file, and then computes the same.
"""

import onnx_ir as ir

READERS = ("Gather", "Gemm", "Transpose")


def should_fold(node: ir.Node) -> bool | None:
    """False: the node transposes such a table, for products alone; None: as the optimizer sees fit."""
    table = node.inputs[0] if node.op_type == "Transpose" else None
    if table is None or not table.is_initializer():
        return None
    users = [user for user, _ in table.uses()]
    kinds = {user.op_type for user in users}
    is_tied = "Gather" in kinds and kinds <= set(READERS)
    return False if is_tied and all(_is_for_products(user) for user in users if user.op_type == "Transpose") else None


def _is_for_products(node: ir.Node) -> bool:
    """Whether all that reads the output multiplies rows with it."""
    value = node.outputs[0]
    return not value.is_graph_output() and all(user.op_type == "MatMul" and place == 1 for user, place in value.uses())
