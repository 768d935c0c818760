"""XNNPACK: the processor's fast kernels, on by default in LiteRT's interpreter."""

from edgeseq.inspection.delegates import FLOATS, Delegate, Rule

INT8 = frozenset({"float32", "float16", "int8", "uint8"})
FLOAT = Rule(dtypes=FLOATS)
ANY_8_BIT = Rule(dtypes=INT8)
BINARY = Rule(dtypes=FLOATS, most_inputs=2)

DELEGATE = Delegate(
    title="XNNPACK (processor)",
    format="tflite",
    source="tflite/delegates/xnnpack/README.md and xnnpack_delegate.cc in google-ai-edge/LiteRT, August 2026",
    caveat=(
        "operators whose sizes are only known while running (their shape is computed) are left too; "
        "float16 arithmetic needs a processor with it; what it leaves runs in LiteRT's own kernels"
    ),
    rules={
        **dict.fromkeys(("ADD", "SUB", "MUL"), Rule(dtypes=INT8, most_inputs=2)),
        **dict.fromkeys(("DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE"), BINARY),
        **dict.fromkeys(
            ("ABS", "CEIL", "COS", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LOG", "NEG", "RELU", "RELU6", "RELU_N1_TO_1",
             "ROUND", "RSQRT", "SIN", "SQRT", "SQUARE"),
            FLOAT,
        ),
        **dict.fromkeys(("ELU", "LEAKY_RELU", "LOGISTIC", "TANH"), ANY_8_BIT),
        **dict.fromkeys(("MAX_POOL_2D", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE"), ANY_8_BIT),
        "AVERAGE_POOL_2D": FLOAT,
        "SOFTMAX": Rule(dtypes=FLOATS, unless="beta is not 1"),
        "FULLY_CONNECTED": Rule(dtypes=INT8, constant=(2,), unless="the bias is computed"),
        "CONV_2D": Rule(dtypes=INT8, constant=(1, 2)),
        "DEPTHWISE_CONV_2D": Rule(dtypes=INT8, constant=(1, 2)),
        "TRANSPOSE_CONV": Rule(dtypes=INT8, constant=(0,)),
        "BATCH_MATMUL": Rule(dtypes=INT8),
        "PRELU": Rule(dtypes=FLOATS, constant=(1,)),
        "CONCATENATION": Rule(dtypes=INT8),
        "PAD": Rule(dtypes=INT8, constant=(1,)),
        "RESHAPE": Rule(dtypes=INT8, constant=(1,)),
        "EXPAND_DIMS": Rule(dtypes=INT8, constant=(1,)),
        "TRANSPOSE": Rule(dtypes=INT8, constant=(1,)),
        "RESIZE_BILINEAR": Rule(dtypes=INT8, constant=(1,)),
        "SLICE": Rule(dtypes=INT8, constant=(1, 2)),
        "STRIDED_SLICE": Rule(dtypes=INT8, constant=(1, 2, 3)),
        "SPLIT": Rule(dtypes=frozenset({"int32", *INT8}), constant=(0,), unless="the data are integers"),
        **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), Rule(dtypes=INT8, constant=(1,))),
        "QUANTIZE": ANY_8_BIT,
        "DEQUANTIZE": ANY_8_BIT,
    },
)  # fmt: skip
