"""edgeseq: trained Transformers and LSTMs on phones, boards and web pages.

Nothing heavy is imported until a name that needs it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from edgeseq.version import __version__ as __version__

if TYPE_CHECKING:
    from edgeseq.artifact import Artifact as Artifact
    from edgeseq.capture import CapturedModel as CapturedModel
    from edgeseq.errors import EdgeseqError as EdgeseqError
    from edgeseq.measure import Measurement as Measurement
    from edgeseq.quantize import Scheme as Scheme
    from edgeseq.recipe import Recipe as Recipe
    from edgeseq.signature import Dim as Dim
    from edgeseq.signature import Signature as Signature
    from edgeseq.signature import TensorSpec as TensorSpec
    from edgeseq.verify import ParityReport as ParityReport

_HOMES = {
    "Artifact": "artifact",
    "CapturedModel": "capture",
    "Dim": "signature",
    "EdgeseqError": "errors",
    "Measurement": "measure",
    "ParityReport": "verify",
    "Recipe": "recipe",
    "Scheme": "quantize.scheme",
    "Signature": "signature",
    "TensorSpec": "signature",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgeseq' has no attribute '{name}'")
    return getattr(importlib.import_module(f"edgeseq.{_HOMES[name]}"), name)
