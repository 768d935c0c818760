"""Apple's Neural Engine, through Core ML."""

from edgeseq.inspection.delegates import Delegate

DELEGATE = Delegate(
    title="Neural Engine",
    format="coreml",
    source="coremltools guide, 'Typed Execution': the Neural Engine computes in float16 only",
    caveat=(
        "Apple publishes no list of its operators, and Core ML decides by cost as well: MLComputePlan on macOS 14.4 or "
        "later, or Xcode's performance report, tells for one device"
    ),
    otherwise="unknown",
    refuses={"float32": "it computes in float16 only"},
)
