"""TFLite's GPU delegate, on Android and iOS."""

from edgeseq.inspection.delegates import FLOATS, Delegate, Rule

FLOAT = Rule(dtypes=FLOATS)
WITH_INTEGERS = Rule(dtypes=frozenset({*FLOATS, "int32", "bool"}))
AXES = Rule(dtypes=FLOATS, constant=(1,))

DELEGATE = Delegate(
    title="GPU delegate",
    format="tflite",
    source="tflite/tools/versioning/gpu_compatibility.cc in google-ai-edge/LiteRT, August 2026",
    caveat=(
        "shapes must be fixed before it is applied; broadcasts other than common ones, and limits of a driver, are not "
        "judged here; integer and quantized data are partly taken, depending on the backend"
    ),
    otherwise="leaves",
    enters_bodies=False,
    rules={
        **dict.fromkeys(
            ("ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "LOGISTIC", "NEG",
             "PRELU", "RELU", "RELU6", "RELU_N1_TO_1", "ROUND", "RSQRT", "SIGN", "SIN", "SQRT", "SQUARE", "TANH", "SOFTMAX",
             "AVERAGE_POOL_2D", "MAX_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "BATCH_MATMUL",
             "FULLY_CONNECTED", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE",
             "CUMSUM", "LSTM"),
            FLOAT,
        ),
        **dict.fromkeys(
            ("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "POW", "SQUARED_DIFFERENCE", "FLOOR_DIV", "FLOOR_MOD", "EQUAL",
             "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "LOGICAL_AND", "LOGICAL_OR", "LOGICAL_NOT",
             "SELECT", "SELECT_V2", "CAST"),
            Rule(dtypes=WITH_INTEGERS.dtypes, most_inputs=3),
        ),
        **dict.fromkeys(("CONCATENATION", "PACK", "RESHAPE", "SPLIT", "SPLIT_V", "TILE", "TRANSPOSE", "ONE_HOT", "TOPK_V2"),
                        WITH_INTEGERS),
        **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "REVERSE_V2"), AXES),
        **dict.fromkeys(("SLICE", "STRIDED_SLICE"), Rule(dtypes=WITH_INTEGERS.dtypes, ranks=(3, 4))),
        **dict.fromkeys(("PAD", "PADV2", "MIRROR_PAD"), Rule(dtypes=FLOATS, constant=(1,), ranks=(3, 4))),
        "GATHER": Rule(dtypes=FLOATS, unless="the indices have other than one axis"),
        "EMBEDDING_LOOKUP": Rule(dtypes=frozenset({*FLOATS, "int32"}), ranks=(1,)),
        "DYNAMIC_UPDATE_SLICE": WITH_INTEGERS,
        "QUANTIZE": Rule(dtypes=frozenset({*FLOATS, "int8", "uint8"})),
        "DEQUANTIZE": Rule(dtypes=frozenset({*FLOATS, "int8", "uint8"})),
    },
)  # fmt: skip
