"""Rotary position embeddings (Su et al. 2021) as the standard's operator, which torch's exporter finds in a model."""

import onnx_ir as ir


def give_angles_every_row(model: ir.Model) -> None:
    """Repeat cosines and sines of (1, T, K/2) for each of the B rows: onnxruntime insists, where the model broadcasts."""
    for node in model.graph:
        if node.op_type != "RotaryEmbedding" or len(node.inputs) < 3:
            continue
        for place in (1, 2):
            angles = node.inputs[place]
            if angles is None or angles.shape is None or angles.shape.rank() != 3 or angles.shape[0] != 1:
                continue
            rows = ir.node("Shape", [node.inputs[0]], {"start": 0, "end": 1})
            ones = ir.node("Constant", [], {"value_ints": [1, 1]})
            shape = ir.node("Concat", [rows.outputs[0], ones.outputs[0]], {"axis": 0})
            repeated = ir.node("Expand", [angles, shape.outputs[0]])
            model.graph.insert_before(node, [rows, ones, shape, repeated])
            node.replace_input_with(place, repeated.outputs[0])
