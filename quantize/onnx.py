"""Quantization of ONNX files: onnxruntime's for dynamic activations; weights alone are stored small and widened again."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import numpy as np
import onnx_ir as ir
from onnxruntime.quantization import QuantType, quantize_dynamic

from edgeseq import onnx_file
from edgeseq.artifact import companion, program_files
from edgeseq.quantize import Quantizer, Scheme, _outliers
from edgeseq.quantize._activations import REFUSALS, observed
from edgeseq.quantize._errors_only import errors_only
from edgeseq.quantize._rounding import asymmetric_int8, symmetric_int8
from edgeseq.quantize._tables import round_tables

logger = logging.getLogger(__name__)

RowsByMatrices = Mapping[bytes, Sequence[np.ndarray]]  # digest of matrices (K, N) -> arrays (R, K)

PRODUCTS = ("Gemm", "MatMul")
LEAST_WEIGHTS = 256  # smaller tensors (biases, norms) stay float32: they weigh nothing and scale everything
COMPUTED_IN_INTEGERS = ["Conv", "Gather", "LSTM", "MatMul"]  # not Attention, which onnxruntime mistakes for its own
FLOAT_ONLY = ("GRU", "RNN")  # onnxruntime 1.32 has no integer kernel for them
BALANCING_ROUNDS = 20
CHANNEL_AXES = {"MatMul": -1, "Gemm": 0, "LSTM": 1, "GRU": 1, "RNN": 1, "Gather": 0}
"""The axis of a weight whose entries share no sum.

Gemm weights come transposed from nn.Linear; a recurrent layer's are (directions, gates, inputs); a table's rows are tokens.
"""


class OnnxQuantizer(Quantizer):
    schemes: ClassVar = ("fp16", "dynamic_wi8_afp32", "weight_only_wi8_afp32")

    def note(self, scheme: Scheme, source: Path) -> str:
        """How onnxruntime computes with them."""
        if scheme.mode == "dynamic":
            graphs = [onnx_file.load(file).graph for file in program_files(source).values()]
            floats = sorted({node.op_type for graph in graphs for node in graph if node.op_type in FLOAT_ONLY})
            if not floats:
                return ""
            return f"onnxruntime has no integer {' and '.join(floats)}: their weights are stored as int8, computed in float32"
        return "stored small and widened when the file is loaded; computed in float32"

    def apply(self, source: Path, scheme: Scheme, target: Path) -> None:
        if source.is_file():
            apply([source], scheme, [target])
            return
        with TemporaryDirectory() as folder:  # each program alone; what they share is the same again afterwards
            files = program_files(source)
            whole, quantized = ([Path(folder, f"{name}{kind}.onnx") for name in files] for kind in (".float", ""))
            for file, alone in zip(files.values(), whole, strict=True):
                onnx_file.save(onnx_file.load(file), alone)
            apply(whole, scheme, quantized)
            onnx_file.save_programs(dict(zip(files, map(onnx_file.load, quantized), strict=True)), target)


def apply(sources: Sequence[Path], scheme: Scheme, targets: Sequence[Path]) -> None:
    """Write the programs of a model, a file each, to `targets` under `scheme`."""
    rows = rows_by_matrices(sources) if scheme.mode == "dynamic" else {}
    for source, target in zip(sources, targets, strict=True):
        if scheme.mode == "dynamic":
            dynamic_int8(source, target, rows)
        elif scheme.mode == "float":
            rewrite_weights(source, target, as_float16)
        else:
            rewrite_weights(source, target, as_int8)


def dynamic_int8(source: Path, target: Path, rows: RowsByMatrices) -> None:
    """Weights int8 by output channel, activations uint8 with ranges found at each call; `rows` tell the large channels."""
    model = onnx_file.load(source)
    done = tame_outliers(model, rows)
    done += round_tables(model, symmetric_int8, least=LEAST_WEIGHTS)
    with TemporaryDirectory() as folder:
        shared, quantized = Path(folder, "shared.onnx"), Path(folder, "quantized.onnx")
        onnx_file.save(model, shared)
        with errors_only():  # onnxruntime advises to preprocess, which was done
            quantize_dynamic(
                shared,
                quantized,
                op_types_to_quantize=COMPUTED_IN_INTEGERS,
                weight_type=QuantType.QInt8,
                per_channel=True,
                nodes_to_exclude=done,
                use_external_data_format=companion(shared).exists(),
            )
        rewrite_weights(quantized, target, as_int8, only=FLOAT_ONLY)


def rows_by_matrices(sources: Sequence[Path]) -> RowsByMatrices:
    """What the products of all programs multiply, by their matrices: programs that share those are to change them alike."""
    found: dict[bytes, list[np.ndarray]] = {}
    for source in sources:
        sites = _outliers.sites(onnx_file.load(source))
        if not sites:
            continue
        try:
            rows = observed(source, [site.name for site in sites])
        except REFUSALS as error:
            logger.warning("large channels of '%s' are not looked for: it refuses random inputs (%s)", source, error)
            continue
        for site in sites:
            found.setdefault(site.digest, []).extend(rows[site.name])
    return found


def tame_outliers(model: ir.Model, rows: RowsByMatrices) -> list[str]:
    """Keep single large channels from coarsening the range of the others; returns the names of nodes that stay float32."""
    known = {site: rows[site.digest] for site in _outliers.sites(model) if site.digest in rows}
    return _outliers.take_out(model, list(known), {site.name: arrays for site, arrays in known.items()})


Encode = Callable[[ir.Value], tuple[ir.Value, list[ir.Node]]]  # a weight -> the input that replaces it, and its nodes


def rewrite_weights(source: Path, target: Path, encode: Encode, *, only: Collection[str] = ()) -> None:
    """Store every large float32 weight as `encode` says, with the nodes that widen it again in front of the graph.

    Where operators are named in `only`, others keep their weights.
    """
    model = onnx_file.load(source)
    graph = model.graph
    for name, value in list(graph.initializers.items()):
        weight = value.const_value
        if weight is None or weight.dtype != ir.DataType.FLOAT or weight.size < LEAST_WEIGHTS:
            continue
        if only and not all(user.op_type in only for user, _ in value.uses()):
            continue
        wide, nodes = encode(value)
        value.replace_all_uses_with(wide)
        del graph.initializers[name]
        for stored in dict.fromkeys(i for node in nodes for i in node.inputs if i is not None and i.producer() is None):
            graph.register_initializer(stored)
        graph.insert_before(graph[0], nodes)
    onnx_file.save(model, target)


def channel_axis(value: ir.Value) -> int:
    """The axis along which a weight has scales of its own, by what uses it."""
    axes = [CHANNEL_AXES[user.op_type] for user, _ in value.uses() if user.op_type in CHANNEL_AXES]
    return axes[0] if axes else 0


def as_float16(value: ir.Value) -> tuple[ir.Value, list[ir.Node]]:
    """float16, and a Cast."""
    name, weight = _of(value)
    stored = _constant(f"{name}.float16", weight.astype(np.float16))
    node = ir.node("Cast", [stored], {"to": ir.DataType.FLOAT}, name=f"{name}.widen")
    return _renamed(node, name), [node]


def as_int8(value: ir.Value) -> tuple[ir.Value, list[ir.Node]]:
    """int8 with a scale and a zero point a channel, and in a matrix of products a scale for each of its inputs too.

    Widened by Cast, Sub and Mul: onnxruntime computes those once, when it loads the file, but a DequantizeLinear at every
    call.
    """
    name, weight = _of(value)
    axis = channel_axis(value) % weight.ndim
    factors: dict[str, np.ndarray] = {}
    if weight.ndim == 2 and all(user.op_type in PRODUCTS for user, _ in value.uses()):
        factors["input_scale"] = input_scale(weight, axis)
        weight = weight / factors["input_scale"]
    rounded, factors["scale"], zero = asymmetric_int8(weight, axis)
    wide = [
        ir.node("Cast", [_constant(f"{name}.{kind}", stored)], {"to": ir.DataType.FLOAT}, name=f"{name}.cast_{kind}")
        for kind, stored in (("int8", rounded), ("zero", zero))
    ]
    nodes = [*wide, ir.node("Sub", [node.outputs[0] for node in wide], name=f"{name}.minus_zero")]
    for kind, factor in factors.items():
        inputs = [nodes[-1].outputs[0], _constant(f"{name}.{kind}", factor.astype(np.float32))]
        nodes.append(ir.node("Mul", inputs, name=f"{name}.times_{kind}"))
    return _renamed(nodes[-1], name), nodes


def input_scale(weight: np.ndarray, axis: int) -> np.ndarray:
    """How large a matrix's weights are that one input reads, once outputs are made alike, so that one coarsens few others.

    Rows and columns are divided by their size in turns (Sinkhorn and Knopp 1967), until steps follow both. On MiniLM-L6 it
    and zero points bring 1 − cosine of the worst of 200 sentence embeddings from 0.0015 to 0.0004.
    """
    squares = np.square(weight, dtype=np.float64)
    inputs = np.ones_like(squares.mean(axis=axis, keepdims=True))
    for _ in range(BALANCING_ROUNDS):
        outputs = (squares / inputs).mean(axis=1 - axis, keepdims=True)
        sizes = (squares / np.where(outputs > 0, outputs, 1)).mean(axis=axis, keepdims=True)
        inputs = np.where(sizes > 0, sizes, 1)
    return np.sqrt(inputs).astype(np.float32)


def _of(value: ir.Value) -> tuple[str, np.ndarray]:
    assert value.name is not None and value.const_value is not None, "weights have names and values"
    return value.name, value.const_value.numpy()


def _constant(name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    return ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))


def _renamed(node: ir.Node, name: str) -> ir.Value:
    node.outputs[0].name = f"{name}.wide"
    return node.outputs[0]


QUANTIZER = OnnxQuantizer()
