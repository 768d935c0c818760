"""TFLite: one flatbuffer for Android, iOS, the web and small boards, lowered straight from torch.export programs.

The file has batch 1. Other dynamic dimensions stay dynamic: `resize_tensor_input` takes any length within their bounds.
"""

from dataclasses import dataclass
from pathlib import Path

from edgeseq import fixed_lengths
from edgeseq.capture import CapturedModel
from edgeseq.converters import Converter
from edgeseq.converters.tflite._flatbuffer import Entry, serialize
from edgeseq.converters.tflite._graph import Graph
from edgeseq.converters.tflite._lower import check, lower
from edgeseq.converters.tflite._passes import optimize
from edgeseq.converters.tflite._program import prepare
from edgeseq.signature import Signature


@dataclass(frozen=True, kw_only=True)
class TFLiteOptions:
    """What users may choose of a conversion to TFLite."""

    lengths: tuple[int, ...] = ()  # further signatures, each of one fixed length: `forward_128`


class TFLiteConverter(Converter):
    """Signatures become subgraphs of one file that share their weights."""

    suffix = ".tflite"
    options = TFLiteOptions

    def convert(self, model: CapturedModel, target: Path, options: TFLiteOptions) -> None:
        """Write the model in float32; see `Converter.convert`."""
        signatures = self.signatures(model, options)
        programs = [prepare(model.programs[signature.program], signature) for signature in signatures]
        check(programs)
        subgraphs: list[Graph] = []
        graphs = [lower(program, subgraphs) for program in programs]
        optimize(subgraphs)
        entries = [
            Entry(
                name=program.signature.name,
                graph=graph,
                input_names=tuple(spec.name for spec in program.signature.inputs),
                output_names=tuple(spec.name for spec in program.signature.outputs),
            )
            for program, graph in zip(programs, graphs, strict=True)
        ]
        hints = {size: hint for program in programs for size, hint in program.hints.items()}
        target.write_bytes(serialize(subgraphs, entries, hints))

    def signatures(self, model: CapturedModel, options: TFLiteOptions) -> tuple[Signature, ...]:
        """With those of fixed lengths last."""
        return fixed_lengths.with_lengths(model.signatures, options.lengths)


CONVERTER = TFLiteConverter()
