"""TFLite under a scheme: AI Edge Quantizer on the float32 file."""

from pathlib import Path

from ai_edge_quantizer import qtyping, quantizer

from edgeseq import tflite_file
from edgeseq.errors import ConversionError
from edgeseq.quantize import Quantizer
from edgeseq.quantize._errors_only import errors_only
from edgeseq.quantize.scheme import Scheme


class TFLiteQuantizer(Quantizer):
    """Weights of products, convolutions and embeddings, inside loops too."""

    schemes = (
        "fp16",
        "dynamic_wi8_afp32",
        "weight_only_wi8_afp32",
        "dynamic_wi4_afp32",
        "weight_only_wi4_afp32",
        "dynamic_wi4b32_afp32",
    )

    @errors_only()  # it warns of every weight that signatures share, as they should
    def apply(self, source: Path, scheme: Scheme, target: Path) -> None:
        """Write the float32 artifact at `source` to `target` under `scheme`."""
        work = quantizer.Quantizer(bytearray(source.read_bytes()))
        work.update_quantization_recipe(
            regex=".*",
            operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
            op_config=_config(scheme),
            algorithm_key=_algorithm(scheme),
        )
        try:
            result = work.quantize(enable_progress_bar=False, enable_progress_report=False).quantized_model
        except ValueError as error:  # such as a width that its blocks do not divide
            raise ConversionError(
                f"AI Edge Quantizer cannot apply scheme '{scheme.name}' to '{source.name}': {error} A scheme "
                "without blocks takes any width"
            ) from error
        if result is None:
            raise ConversionError(f"AI Edge Quantizer gave no model for '{source}' under scheme '{scheme.name}'")
        target.write_bytes(tflite_file.repack(bytes(result)))


def _algorithm(scheme: Scheme) -> quantizer.AlgorithmName:
    floats = scheme.mode == "float"
    return quantizer.AlgorithmName.FLOAT_CASTING if floats else quantizer.AlgorithmName.MIN_MAX_UNIFORM_QUANT


def _config(scheme: Scheme) -> qtyping.OpQuantizationConfig:
    floats = scheme.mode == "float"
    is_weight_only = scheme.mode == "weight_only"
    weights = qtyping.TensorQuantizationConfig(
        num_bits=scheme.weight_bits,
        symmetric=not (is_weight_only and scheme.weight_bits == 8),  # zero points halve the steps of most channels
        granularity=_granularity(scheme),
        dtype=qtyping.TensorDataType.FLOAT if floats else qtyping.TensorDataType.INT,
    )
    is_dynamic = scheme.mode == "dynamic"
    return qtyping.OpQuantizationConfig(
        weight_tensor_config=weights,
        compute_precision=qtyping.ComputePrecision.INTEGER if is_dynamic else qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=not is_dynamic,
    )


def _granularity(scheme: Scheme) -> qtyping.QuantGranularity:
    if scheme.mode == "float":
        return qtyping.QuantGranularity.TENSORWISE
    if scheme.block is None:
        return qtyping.QuantGranularity.CHANNELWISE
    return qtyping.QuantGranularity(f"BLOCKWISE_{scheme.block}")


QUANTIZER = TFLiteQuantizer()
