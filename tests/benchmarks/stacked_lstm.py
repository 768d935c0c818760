"""What an int8 LSTM costs in TFLite against onnxruntime on torch's own float32 export, with the goals beside it.

    python -m tests.benchmarks.stacked_lstm [--rounds 8]

Two layers over inputs 256 wide, last state, batch 1, one thread. Contenders take turns, by CPU time; ratios are of the
least disturbed samples of one run.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from onnxruntime import InferenceSession, SessionOptions
from torch import Tensor, nn

from edgeseq import converters, quantize
from edgeseq.artifact import Artifact
from edgeseq.capture import capture
from edgeseq.devices import runtimes
from edgeseq.quantize import Scheme
from edgeseq.signature import Dim

INPUTS, LENGTHS = 256, (32, 128, 512)
GOALS = {512: 0.25, 128: 0.35}  # hidden width -> time at 128 steps as a part of float32's
FLATNESS, MOST_SECONDS, MOST_FILE = 1.25, 4.0, 1.05


class StackedLSTM(nn.Module):
    """x (B, T, I) -> (B, 2), from the last state."""

    def __init__(self, hidden: int):
        super().__init__()
        self.lstm = nn.LSTM(INPUTS, hidden, 2, batch_first=True)
        self.head = nn.Linear(hidden, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.lstm(x)[1][0][-1])
        return logits


def main() -> None:
    """Print the table alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    torch.set_num_threads(1)
    table(parser.parse_args().rounds)


def table(rounds: int) -> None:
    """Measure and print every row."""
    print("| what | goal | measured |\n| --- | --- | --- |")
    for hidden in GOALS:
        with tempfile.TemporaryDirectory() as folder:
            measure(hidden, Path(folder), rounds)


def measure(hidden: int, folder: Path, rounds: int) -> None:
    """The rows of one width."""
    torch.manual_seed(0)
    model = StackedLSTM(hidden).eval()
    reference = torch_export(model, folder / "plain.onnx")
    convert(model, folder / "uncounted")
    start = time.process_time()
    artifact = convert(model, folder / "counted")
    seconds = time.process_time() - start
    session = runtimes.get("litert").load(artifact.path, artifact.signatures, threads=1)
    per_step = {}
    for length in LENGTHS:
        x = np.random.default_rng(length).standard_normal((1, length, INPUTS), dtype=np.float32)
        contenders = {"float32": _call(reference.run, None, {"x": x}), "int8": _call(session.run, {"x": x})}
        best = race(contenders, rounds)
        per_step[length] = best["int8"] / length
        goal = f"≤ {GOALS[hidden]}" if length == 128 else ""
        times = f"{best['int8']:.2f} ms of {best['float32']:.2f} ms"
        print(f"| 2×{hidden}, {length} steps | {goal} | {best['int8'] / best['float32']:.2f} ({times}) |")
    weights = sum(parameter.numel() for parameter in model.parameters())
    print(f"| 2×{hidden}, a step at 512 by one at 32 | ≤ {FLATNESS} | {per_step[512] / per_step[32]:.2f} |")
    print(f"| 2×{hidden}, capture, conversion and int8 | ≤ {MOST_SECONDS} CPU s | {seconds:.2f} |")
    print(f"| 2×{hidden}, file by its weights | ≤ {MOST_FILE} | {artifact.size_bytes / weights:.2f} |", flush=True)


def convert(model: nn.Module, folder: Path) -> Artifact:
    """Capture, convert and quantize."""
    dims = {0: Dim(name="batch", min=1, max=8), 1: Dim(name="time", min=1, max=512)}
    captured = capture(model, {"x": torch.randn(2, 8, INPUTS)}, {"x": dims})
    original = converters.convert(captured, "tflite", folder / "fp32", model="lstm")
    return quantize.quantize(original, Scheme.parse("dynamic_wi8_afp32"), folder / "int8")


def torch_export(model: nn.Module, path: Path) -> InferenceSession:
    """The model as torch exports it, with constants folded, in onnxruntime."""
    example = (torch.randn(1, 32, INPUTS),)
    axes = {"x": {1: "time"}}
    torch.onnx.export(model, example, path, dynamo=False, input_names=["x"], dynamic_axes=axes)
    options = SessionOptions()
    options.intra_op_num_threads = 1
    return InferenceSession(path, options)


def race(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The least CPU time of each in milliseconds, all taking turns."""
    best = dict.fromkeys(contenders, np.inf)
    for _ in range(rounds):
        for name, run in contenders.items():
            run()
            for _ in range(3):
                start = time.process_time()
                run()
                best[name] = min(best[name], 1e3 * (time.process_time() - start))
    return best


def _call(function: Callable[..., object], *args: object) -> Callable[[], object]:
    return lambda: function(*args)


if __name__ == "__main__":
    main()
