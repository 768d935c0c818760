"""Core ML's protobuf classes without the rest of coremltools, which takes seconds and loads torch.

The package's `__init__` imports its converters; its folder `proto` needs none of them. So the classes are imported from a
stand-in for the package, which is taken away again: a later import of coremltools finds everything as it would without.
"""

import importlib
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from edgeseq.lookup import missing_package

PACKAGE = "coremltools"


def message_class() -> Any:
    """The class `Model` of Core ML's specification.

    Raises:
        UnavailableError: coremltools is not installed.
    """
    if PACKAGE in sys.modules:
        return importlib.import_module(f"{PACKAGE}.proto.Model_pb2").Model
    found = find_spec(PACKAGE)
    if found is None or found.submodule_search_locations is None:
        raise missing_package(ModuleNotFoundError(name=PACKAGE), wanted_by="reading a Core ML package", extra="coreml")
    stand_in = ModuleType(PACKAGE)
    stand_in.__path__ = list(found.submodule_search_locations)
    sys.modules[PACKAGE] = stand_in
    try:
        return importlib.import_module(f"{PACKAGE}.proto.Model_pb2").Model
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]
