"""Core ML: an .mlpackage for iPhones and Macs, written by coremltools on any machine.

It needs iOS 16 or macOS 13. Batch and length are dynamic within the signature's bounds.
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
        """Write the one signature as the package's function `main`."""
        if len(model.signatures) != 1:
            names = ", ".join(signature.name for signature in model.signatures)
            raise UnsupportedError(
                f"format 'coreml' holds one signature per package, but the model has {names}; convert each alone"
            )
        register()
        (signature,) = model.signatures
        write_package(lower(model.programs[signature.name], signature), target)


CONVERTER = CoreMLConverter()
