"""The GPU of iPhones and Macs, through Core ML."""

from edgeseq.inspection.delegates import Delegate

DELEGATE = Delegate(
    title="GPU (Metal)",
    format="coreml",
    source="coremltools guide, 'Typed Execution': the GPU computes in float32 and float16",
    caveat="Apple publishes no list of its operators; what it leaves runs on the processor, which has all of them",
    otherwise="unknown",
)
