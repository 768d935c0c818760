"""Core ML: an .mlpackage for iPhones and Macs, written by coremltools on any machine.

In float32 it needs iOS 16 or macOS 13; `quantize/coreml.py` says which schemes need newer ones. Batch and length are
dynamic within the signature's bounds.
"""

from pathlib import Path

import edgeseq.quiet_coremltools  # noqa: F401  # first: it decides how coremltools is imported
from edgeseq.capture import CapturedModel
from edgeseq.converters import Converter
from edgeseq.converters.coreml.lowering import lower
from edgeseq.converters.coreml.operators import register
from edgeseq.converters.coreml.package import write_package
from edgeseq.errors import UnsupportedError


class CoreMLConverter(Converter):
    suffix = ".mlpackage"

    def convert(self, model: CapturedModel, target: Path) -> None:
        """Write the one program as the package's function `main`, which serves every signature that is a case of it."""
        if len(model.programs) != 1:
            raise UnsupportedError(
                f"format 'coreml' holds one program per package, but the model has {', '.join(model.programs)}; capture "
                "and convert each alone, or make one a case of the other"
            )
        register()
        ((name, program),) = model.programs.items()
        write_package(lower(program, model.signature_of(name)), target)


CONVERTER = CoreMLConverter()
