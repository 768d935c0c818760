"""What can run on this machine, what is missing, and the command that mends it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata

from edgeseq import converters
from edgeseq.devices import host, runtimes
from edgeseq.errors import EdgeseqError

PACKAGES = {
    "torch": "edgeseq",
    "onnx": "edgeseq[onnx]",
    "onnxscript": "edgeseq[onnx]",
    "onnxruntime": "edgeseq[onnx]",
    "ai-edge-litert": "edgeseq[tflite]",
    "ai-edge-quantizer": "edgeseq[tflite]",
    "coremltools": "edgeseq[coreml]",
    "tensorflow": "edgeseq[tensorflow]",
    "tokenizers": "edgeseq[hf]",
    "transformers": "edgeseq[hf]",
    "keras": "edgeseq[keras]",
    "jinja2": "edgeseq[report]",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is there or not."""

    area: str
    name: str
    is_ok: bool
    what: str  # a version, or why not
    remedy: str = ""  # the command that mends it


def examine() -> list[Finding]:
    """Packages, formats, engines and the machine."""
    return [*_packages(), *_formats(), *_engines(), *_machine()]


def render(findings: Sequence[Finding]) -> str:
    """Lines for a terminal."""
    lines = []
    for area in dict.fromkeys(f.area for f in findings):
        lines.append(area)
        for finding in (f for f in findings if f.area == area):
            remedy = f"; {finding.remedy}" if finding.remedy else ""
            lines.append(f"  {'ok     ' if finding.is_ok else 'missing'} {finding.name}: {finding.what}{remedy}")
    return "\n".join(lines)


def to_json(findings: Sequence[Finding]) -> str:
    """The same as JSON."""
    return json.dumps([asdict(finding) for finding in findings], indent=1) + "\n"


def _packages() -> list[Finding]:
    found = []
    for package, home in PACKAGES.items():
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            remedy = f"pip install '{home}'"
            found.append(Finding(area="packages", name=package, is_ok=False, what="not installed", remedy=remedy))
        else:
            found.append(Finding(area="packages", name=package, is_ok=True, what=version))
    return found


def _formats() -> list[Finding]:
    found = []
    for format in converters.names():
        try:
            converters.get(format)
        except EdgeseqError as error:
            found.append(Finding(area="converters", name=format, is_ok=False, what=str(error)))
        else:
            found.append(Finding(area="converters", name=format, is_ok=True, what="converts"))
    return found


def _engines() -> list[Finding]:
    found = []
    for name in runtimes.names():
        try:
            runtime = runtimes.get(name)
        except EdgeseqError as error:
            found.append(Finding(area="engines", name=name, is_ok=False, what=str(error)))
            continue
        reason = runtime.unavailable()
        words = reason or f"{runtime.verified_by}{'' if runtime.is_timed else ' (no times)'}"
        found.append(Finding(area="engines", name=name, is_ok=reason is None, what=words))
    return found


def _machine() -> list[Finding]:
    from torch import cuda  # heavy: only once everything above was said

    gpu = cuda.get_device_name() if cuda.is_available() else None
    machine = [Finding(area="machine", name=name, is_ok=True, what=what) for name, what in host.environment().items()]
    words = gpu or "none that torch sees: teachers train on the processor, by the same code"
    return [*machine, Finding(area="machine", name="GPU", is_ok=gpu is not None, what=words)]
