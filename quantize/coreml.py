"""Core ML: float16 programs, and integer weights that are expanded to float when they are used."""

import shutil
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from edgeseq.quantize import Quantizer, Scheme
from edgeseq.quantize._rounding import asymmetric_int8
from edgeseq.quiet_coremltools import quietly

DATA = Path("Data/com.apple.CoreML")
DATED = "com.github.apple.coremltools.conversion_date"
TIDYING = ("common::const_elimination", "common::cast_optimization", "common::dead_code_elimination")
VERSIONS = {16: 8, 4: 9}  # of the specification: the first that computes in float16, or has int4 weights
SYSTEMS = {8: "iOS 17 or macOS 14", 9: "iOS 18 or macOS 15"}
MIN_WEIGHTS = 64  # smaller constants gain nothing
FLOAT16_MAX = 65504.0
MASKED = 3e4  # stands for what float16 cannot hold: exp(score - MASKED) is 0, and a score added to it does not overflow


class CoreMLQuantizer(Quantizer):
    schemes = ("fp16", "dynamic_wi8_afp32", "weight_only_wi8_afp32", "weight_only_wi4b32_afp32")

    def note(self, scheme: Scheme, source: Path) -> str:
        """Core ML has no dynamic activations, and newer formats need newer systems."""
        if scheme.mode == "dynamic":
            return "Core ML has no dynamic activations: weights int8, activations float"
        needed = VERSIONS.get(scheme.weight_bits)
        return "" if needed is None else f"needs {SYSTEMS[max(needed, _specification(source).specificationVersion)]}"

    def apply(self, source: Path, scheme: Scheme, target: Path) -> None:
        """Rewrite the program, and write it over a copy of the package."""
        with quietly():
            model = _half_precision(source) if scheme.mode == "float" else _integer_weights(source, scheme)
        spec = model.get_spec()
        spec.description.metadata.userDefined.pop(DATED, None)
        if target != source:
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target)
        data = target / DATA
        (data / "model.mlmodel").write_bytes(spec.SerializeToString(deterministic=True))
        shutil.copyfile(Path(model.weights_dir) / "weight.bin", data / "weights" / "weight.bin")


def _half_precision(source: Path) -> Any:
    """Computes in float16; inputs and outputs stay float32. `lstm` takes float16 from iOS 17 on."""
    ct = import_module("coremltools")
    loaded = _load(source, ct.target.iOS17)
    for function in loaded.program.functions.values():
        _keep_within_float16(function)
    _pass("common::add_fp16_cast")(loaded.program)
    return _model(loaded)


def _integer_weights(source: Path, scheme: Scheme) -> Any:
    """Integers for every weight matrix; vectors, such as biases, stay float."""
    ct = import_module("coremltools")
    target = ct.target.iOS18 if scheme.weight_bits == 4 else ct.target.iOS16
    loaded = _load(source, target)
    for function in loaded.program.functions.values():
        for operation in list(function.operations):
            value = operation.outputs[0].val if operation.op_type == "const" else None
            if _is_matrix(value):
                with function:
                    compressed = _compressed(operation, value, scheme)
                function.replace_uses_of_var_after_op(
                    anchor_op=operation, old_var=operation.outputs[0], new_var=compressed, no_check_var_types=True
                )
    return _model(loaded)


def _is_matrix(value: Any) -> TypeGuard[np.ndarray]:
    is_float = isinstance(value, np.ndarray) and value.dtype == np.float32
    return is_float and value.ndim > 1 and value.size >= MIN_WEIGHTS


def _compressed(operation: Any, weight: np.ndarray, scheme: Scheme) -> Any:
    """The operation that expands a weight: int8 per output channel from iOS 16 on, int4 per block from iOS 18 on."""
    mb = import_module("coremltools.converters.mil").Builder
    name = f"{operation.outputs[0].name}_int{scheme.weight_bits}"
    channels = _channel_axis(operation)
    if scheme.weight_bits == 8:
        data, scale, zero = asymmetric_int8(weight, channels)
        return mb.constexpr_affine_dequantize(
            quantized_data=data,
            zero_point=zero.reshape(-1),
            scale=scale.reshape(-1),
            axis=np.int32(channels),
            before_op=operation,
            name=name,
        )
    inputs = weight.ndim - 1 if channels == 0 else weight.ndim - 2
    size = weight.shape[inputs]
    block = scheme.block if scheme.block and size % scheme.block == 0 else size
    blocks = weight.reshape(*weight.shape[:inputs], size // block, block, *weight.shape[inputs + 1 :])
    data, scale = rounded(blocks, 7, (inputs + 1,))
    int4 = import_module("coremltools.converters.mil.mil.types").np_int4_dtype
    return mb.constexpr_blockwise_shift_scale(
        data=data.reshape(weight.shape).astype(int4), scale=scale.squeeze(inputs + 1), before_op=operation, name=name
    )


def _channel_axis(operation: Any) -> int:
    """Where the output channels of a weight lie: first, except in the second operand of a plain matrix product."""
    reader = operation.outputs[0].child_ops[0]
    plain = reader.op_type == "matmul" and reader.y is operation.outputs[0] and not reader.transpose_y.val
    return operation.outputs[0].rank - 1 if plain else 0


def rounded(weight: np.ndarray, most: int, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Integers in [-most, most] and the scale that slices along `axes` share; slices of zeros have the scale 1."""
    peak = np.abs(weight).max(axis=axes, keepdims=True)
    scale = np.where(peak > 0, peak / np.float32(most), np.float32(1)).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale


def _keep_within_float16(function: Any) -> None:
    """Constants beyond float16, such as the -inf of a mask, become ±MASKED; as infinities they would breed NaN."""
    mb = import_module("coremltools.converters.mil").Builder
    for operation in list(function.operations):
        value = operation.outputs[0].val if operation.op_type == "const" else None
        if not isinstance(value, (np.ndarray, np.float32)) or value.dtype != np.float32:
            continue
        outside = np.abs(value) > FLOAT16_MAX
        if outside.any():
            with function:
                held = mb.const(
                    val=np.where(outside, np.copysign(MASKED, value), value).astype(np.float32), before_op=operation
                )
            function.replace_uses_of_var_after_op(anchor_op=operation, old_var=operation.outputs[0], new_var=held)


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """A package's program, the description of its interface, and the version of the specification it is written for."""

    program: Any
    description: Any
    version: int


def _load(source: Path, target: int) -> _Loaded:
    """The program of a package, read for a deployment target, or its own where that is newer."""
    data = source / DATA
    spec = _specification(source)
    load = import_module("coremltools.converters.mil.frontend.milproto.load").load
    version = max(target, spec.specificationVersion)
    return _Loaded(program=load(spec, version, str(data / "weights")), description=spec.description, version=version)


def _specification(source: Path) -> Any:
    """What a package holds but for its weights."""
    with quietly():
        message = import_module("coremltools.proto.Model_pb2").Model
    return message.FromString((source / DATA / "model.mlmodel").read_bytes())


def _model(loaded: _Loaded) -> Any:
    """The program as a model again, with nothing but dead code and doubled casts removed.

    Functions share their weights again.
    """
    ct = import_module("coremltools")
    program = loaded.program
    if loaded.description.functions:
        for name in TIDYING:
            _pass(name)(program)
        _pass("common::const_deduplication")._deduplicate_const_across_functions(program)
        program.default_function_name = loaded.description.defaultFunctionName
        program.skip_all_passes = program.export_as_multifunction = True
    return import_module("coremltools.converters.mil.converter").mil_convert(
        program,
        convert_from="milinternal",
        convert_to="mlprogram",
        compute_units=ct.ComputeUnit.ALL,
        specification_version=loaded.version,
        model_description=loaded.description,
        pass_pipeline=ct.PassPipeline(list(TIDYING), "tidy"),
        skip_model_load=True,
    )


def _pass(name: str) -> Any:
    return import_module("coremltools.converters.mil.mil.passes.pass_registry").PASS_REGISTRY[name]


QUANTIZER = CoreMLQuantizer()
