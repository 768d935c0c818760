"""TFLite files as flatbuffers in which equal parts are stored once: names, shapes, scales, settings.

A loop's body repeats what the model around it holds, and every channel of a quantized weight has a zero point of 8 bytes:
in small recurrent models that would weigh a tenth of the weights.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_ALIGNMENT = 16  # of buffers, as the schema asks
_NAMELESS = (b"constant", b"carried")
_MOST_SHARED = (
    1 << 16
)  # bytes of a vector that is compared with others; larger ones are buffers, which are unique already


def pack(model: schema.ModelT) -> bytes:
    """The file's bytes; vectors of the model become arrays."""
    for graph in model.subgraphs:
        _use_arrays(graph, ("inputs", "outputs"))
        for tensor in graph.tensors:
            _use_arrays(tensor, ("shape", "shapeSignature"))
            if tensor.quantization is not None and not _is_quantized(tensor.quantization):
                tensor.quantization = None
        for operator in graph.operators:
            _use_arrays(operator, ("inputs", "outputs"))
            operator.intermediates = operator.intermediates if _length(operator.intermediates) else None
    builder = _SharingBuilder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def repack(data: bytes) -> bytes:
    """A file's bytes with equal parts stored once, and every name of a result no longer than it need be.

    AI Edge Quantizer looks tensors up by name and needs names that are unique; engines do not.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
    for buffer in model.buffers:
        if buffer.offset > 1:  # the data lies behind the flatbuffer
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            stem, _, count = tensor.name.rpartition(b"_")
            if count.isdigit() and (b";" in stem or stem in _NAMELESS):
                tensor.name = stem
    return pack(model)


def _is_quantized(parameters: Any) -> bool:
    """Whether there are scales: of channels, or of blocks, which have a tensor of them."""
    return bool(_length(parameters.scale)) or parameters.details is not None


def _use_arrays(table: Any, fields: Iterable[str]) -> None:
    """Vectors of integers as arrays, which the builder compares; empty ones are left out."""
    for field in fields:
        value = getattr(table, field)
        setattr(table, field, np.array(value, np.int32) if _length(value) else None)


def _length(vector: Any) -> int:
    return 0 if vector is None else len(vector)


class _SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]  # flatbuffers has no types
    """Writes a string or vector that it has written before as a reference to it."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._strings: dict[str | bytes, int] = {}
        self._vectors: dict[tuple[str, bytes], int] = {}

    def CreateString(self, s: Any, *args: Any, **kwargs: Any) -> int:  # noqa: N802  # the builder's own name
        """The offset of the string."""
        if s not in self._strings:
            self._strings[s] = int(super().CreateString(s, *args, **kwargs))
        return self._strings[s]

    def CreateNumpyVector(self, x: np.ndarray) -> int:  # noqa: N802  # the builder's own name
        """The offset of the vector."""
        if x.nbytes > _MOST_SHARED:
            return self._aligned(x)
        key = x.dtype.str, hashlib.sha256(x.tobytes()).digest()
        if key not in self._vectors:
            self._vectors[key] = self._aligned(x)
        return self._vectors[key]

    def _aligned(self, x: np.ndarray) -> int:
        if x.dtype == np.uint8:
            self.Prep(_ALIGNMENT, x.nbytes)
        return int(super().CreateNumpyVector(x))
