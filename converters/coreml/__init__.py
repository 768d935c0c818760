"""Core ML: an .mlpackage for iPhones and Macs, written by coremltools on any machine.

In float32 a model of one program needs iOS 16 or macOS 13, one of several iOS 18 or macOS 15; `quantize/coreml.py` says
which schemes need newer ones. Batch and length are dynamic within the signature's bounds.
"""

from pathlib import Path

import edgeseq.quiet_coremltools  # noqa: F401  # first: it decides how coremltools is imported
from edgeseq.capture import CapturedModel
from edgeseq.converters import Converter
from edgeseq.converters.coreml.functions import joined
from edgeseq.converters.coreml.kept_states import check_capacity, keeping_states, kept
from edgeseq.converters.coreml.lowering import check_names, lower
from edgeseq.converters.coreml.options import OLDEST, STATEFUL, TARGETS, CoreMLOptions
from edgeseq.converters.coreml.package import write_package
from edgeseq.errors import UnsupportedError
from edgeseq.signature import Signature


class CoreMLConverter(Converter):
    suffix = ".mlpackage"
    options = CoreMLOptions

    def convert(self, model: CapturedModel, target: Path, options: CoreMLOptions) -> None:
        """One program becomes the function `main`, which serves every signature that is a case of it; several, one each."""
        several = len(model.programs) > 1
        if several and options.target not in (None, *STATEFUL):
            raise UnsupportedError(
                f"format 'coreml' holds one program per package for target '{options.target}', but the model has "
                f"{', '.join(model.programs)}; choose the target {' or '.join(STATEFUL)}, or capture and convert each alone"
            )
        check_capacity(model.signatures, options.capacity)
        oldest = STATEFUL[0] if several else OLDEST
        models = {}
        for name, program in model.programs.items():
            signature = model.signature_of(name)
            check_names(signature)
            if options.keeps_states and signature.states:
                program, signature = keeping_states(program, signature, options.capacity)
            models[name] = lower(program, signature, TARGETS[options.target or oldest])
        write_package(joined(models, model.signatures[0].program) if several else next(iter(models.values())), target)

    def signatures(self, model: CapturedModel, options: CoreMLOptions) -> tuple[Signature, ...]:
        """With states marked that the engine keeps."""
        return tuple(kept(s, options.capacity) if options.keeps_states else s for s in model.signatures)


CONVERTER = CoreMLConverter()
