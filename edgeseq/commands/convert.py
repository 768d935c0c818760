"""`edgeseq convert MODEL`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from edgeseq.commands import Command, _limits
from edgeseq.commands._conclusion import conclude

FORMATS = ("onnx", "tflite", "coreml")
SCHEMES = ("fp32", "fp16", "dynamic_wi8_afp32")


class Convert(Command):
    what = "convert your own model, and prove that every file computes the same"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "model",
            metavar="MODEL",
            type=Path,
            help="a script with get_model() and get_args() or get_calls(), a .pt2 or .keras file, a Hugging Face folder, or a "
            "run folder",
        )
        for name, letter, usual in (("--format", "F", FORMATS), ("--scheme", "S", SCHEMES)):
            told = f"repeat for several (default: {', '.join(usual)})"
            parser.add_argument(name, metavar=letter, action="append", help=told)
        parser.add_argument(
            "--option",
            metavar="FORMAT.NAME=VALUE",
            action="append",
            default=[],
            help="of a converter, such as coreml.target=ios18 (repeat)",
        )
        parser.add_argument(
            "--forward-only",
            action="store_true",
            help="one forward without caches, of a model that has prefill and step",
        )
        parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="run folder to write")
        _limits.add(parser)

    def run(self, options: argparse.Namespace) -> int:
        from edgeseq import pipeline, progress

        formats, schemes = _once(options.format or FORMATS), _once(options.scheme or SCHEMES)
        given, limits = pipeline.parsed_options(options.option), _limits.parsed(options)
        with progress.watcher() as watcher:
            report = pipeline.convert(
                options.model,
                formats,
                schemes,
                options.output,
                watcher,
                limits,
                options=given,
                forward_only=options.forward_only,
            )
        return conclude(report, options.output, options)


def _once(names: Sequence[str]) -> tuple[str, ...]:
    """Each name once, in order."""
    return tuple(dict.fromkeys(names))


COMMAND = Convert()
