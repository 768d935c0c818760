"""onnxruntime's CoreML execution provider, as ML program."""

from edgeseq.inspection.delegates import FLOATS, Delegate, Rule

FLOAT = Rule(dtypes=FLOATS)
MOVED = Rule(dtypes=frozenset({*FLOATS, "int32", "int64"}))

DELEGATE = Delegate(
    title="CoreML execution provider (onnxruntime on Apple devices)",
    format="onnx",
    source="tools/ci_build/github/apple/coreml_supported_mlprogram_ops.md in microsoft/onnxruntime, 2026",
    caveat="types of values inside a file are often not written down: an operator is then judged by its name alone",
    rules={
        **dict.fromkeys(
            ("Add", "AveragePool", "Ceil", "Clip", "Conv", "Cos", "Div", "Elu", "Erf", "Exp", "Gelu", "GlobalAveragePool",
             "GlobalMaxPool", "GridSample", "GroupNormalization", "HardSigmoid", "InstanceNormalization",
             "LayerNormalization", "LeakyRelu", "MatMul", "Max", "MaxPool", "Mul", "PRelu", "Pow", "Reciprocal", "ReduceMax",
             "ReduceMean", "ReduceSum", "Relu", "Resize", "Round", "Sigmoid", "Sin", "Softmax", "Softplus", "Sqrt", "Sub",
             "Tanh", "com.microsoft::QuickGelu", "com.microsoft::FusedConv"),
            FLOAT,
        ),
        **dict.fromkeys(
            ("ArgMax", "Cast", "Concat", "DepthToSpace", "GatherND", "Identity", "Range", "Reshape", "Shape", "Squeeze", "Tile",
             "Transpose", "Unsqueeze"),
            MOVED,
        ),
        "ConvTranspose": Rule(dtypes=FLOATS, constant=(1, 2)),
        "Gemm": Rule(dtypes=FLOATS, constant=(1,)),
        "Slice": Rule(dtypes=MOVED.dtypes, constant=(1, 2, 3, 4)),
        "Split": Rule(dtypes=MOVED.dtypes, constant=(1,)),
    },
)  # fmt: skip
