"""What an int8 LSTM costs in TFLite and ONNX against onnxruntime on torch's own float32 export, with the goals beside it.

    python -m tests.benchmarks.stacked_lstm [--rounds 8]

Two layers over inputs 256 wide, last state, batch 1, one thread. Contenders take turns, by CPU time; ratios are of the
least disturbed samples of one run. Memory is the peak of a fresh process beyond the engine that it imported.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from onnxruntime import InferenceSession, SessionOptions
from torch import Tensor, nn

from edgeseq import converters, quantize
from edgeseq.artifact import Artifact
from edgeseq.capture import capture
from edgeseq.devices import host, runtimes
from edgeseq.measure import Protocol
from edgeseq.quantize import Scheme
from edgeseq.signature import Dim

INPUTS, LENGTHS, FORMATS = 256, (32, 128, 512), ("tflite", "onnx")
GOALS = {512: 0.25, 128: 0.35}  # hidden width -> time at 128 steps as a part of float32's
FLATNESS, MOST_SECONDS, MOST_FILE, MOST_MB = 1.25, 4.0, 1.05, 100
BRIEFLY = Protocol(warmup_runs=2, runs=3, min_runs=3)


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
    print("| what | goal | TFLite | ONNX |\n| --- | --- | --- | --- |")
    for hidden in GOALS:
        with tempfile.TemporaryDirectory() as folder:
            measure(hidden, Path(folder), rounds)
    with tempfile.TemporaryDirectory() as folder:
        fixed_against_any(Path(folder), rounds)


def measure(hidden: int, folder: Path, rounds: int) -> None:
    """The rows of one width."""
    torch.manual_seed(0)
    model = StackedLSTM(hidden).eval()
    reference = torch_export(model, folder / "plain.onnx")
    artifacts, seconds = {}, []
    for format in FORMATS:
        convert(model, format, folder / format / "uncounted")
        start = time.process_time()
        artifacts[format] = convert(model, format, folder / format / "counted")
        seconds.append(time.process_time() - start)
    show = partial(row, hidden)
    per_step = latencies(show, GOALS[hidden], artifacts, reference, rounds)
    weights = sum(parameter.numel() for parameter in model.parameters())
    show("a step at 512 by one at 32", f"≤ {FLATNESS}", [f"{per_step[f, 512] / per_step[f, 32]:.2f}" for f in FORMATS])
    show("capture, conversion and int8", f"≤ {MOST_SECONDS} CPU s", [f"{taken:.2f}" for taken in seconds])
    show("file by its weights", f"≤ {MOST_FILE}", [f"{artifacts[f].size_bytes / weights:.2f}" for f in FORMATS])
    for length in LENGTHS[1:]:
        peaks = [peak_mb(artifacts[format], length) for format in FORMATS]
        goal = f"≤ {MOST_MB + weights / 1e6:.0f} MB"
        show(f"memory of a process, {length} steps", goal, [f"{peak:.1f} MB" for peak in peaks])


def fixed_against_any(folder: Path, rounds: int) -> None:
    """Signatures of fixed lengths beside the one of any length, in one TFLite file of 2×128."""
    model = StackedLSTM(128).eval()
    alone = convert(model, "tflite", folder / "alone")
    several = convert(model, "tflite", folder / "several", lengths=LENGTHS)
    session = runtimes.for_format("tflite").load(several.path, several.signatures, threads=1)
    contenders = {
        "128 steps by `forward`": partial(session.run, inputs(128)),
        "128 steps by `forward_128`": partial(session.run, inputs(128), "forward_128"),
        "40 steps by `forward`": partial(session.run, inputs(40)),
        "40 steps padded for `forward_128`": partial(session.run, inputs(128), "forward_128"),
    }
    print("\n| 2×128 int8, TFLite | measured |\n| --- | --- |")
    for what, milliseconds in race(contenders, rounds).items():
        print(f"| {what} | {milliseconds:.2f} ms |")
    extra = (several.size_bytes - alone.size_bytes) / len(LENGTHS)
    print(f"| a further signature's part of the file | {extra / 1e3:.1f} of {several.size_bytes / 1e3:.0f} kB |")


def row(hidden: int, what: str, goal: str, measured: list[str]) -> None:
    """Print one row."""
    print(f"| 2×{hidden}, {what} | {goal} | {' | '.join(measured)} |", flush=True)


def latencies(
    show: Callable[[str, str, list[str]], None],
    goal: float,
    artifacts: Mapping[str, Artifact],
    reference: InferenceSession,
    rounds: int,
) -> dict[tuple[str, int], float]:
    """The rows of latency; milliseconds of a step by format and length."""
    sessions = {f: runtimes.for_format(f).load(a.path, a.signatures, threads=1) for f, a in artifacts.items()}
    per_step: dict[tuple[str, int], float] = {}
    for length in LENGTHS:
        x = inputs(length)
        contenders = {format: partial(session.run, x) for format, session in sessions.items()}
        best = race({"float32": partial(reference.run, None, x), **contenders}, rounds)
        per_step |= {(format, length): best[format] / length for format in FORMATS}
        measured = [f"{best[f] / best['float32']:.2f} ({best[f]:.2f} of {best['float32']:.2f} ms)" for f in FORMATS]
        show(f"{length} steps", f"≤ {goal}" if length == 128 else "", measured)
    return per_step


def inputs(length: int) -> dict[str, np.ndarray]:
    """One random sequence."""
    return {"x": np.random.default_rng(length).standard_normal((1, length, INPUTS), dtype=np.float32)}


def peak_mb(artifact: Artifact, length: int) -> float:
    """What a fresh process that runs the artifact holds at most, beyond its imports."""
    subject = host.Subject(
        path=artifact.path, format=artifact.format, sha256=artifact.sha256, signatures=artifact.signatures
    )
    measured = host.measure(subject, inputs(length), input=f"{length} steps", threads=1, protocol=BRIEFLY)
    return (measured.peak_rss_bytes or 0) / 1e6


def convert(model: nn.Module, format: str, folder: Path, lengths: Sequence[int] = ()) -> Artifact:
    """Capture, convert and quantize; `lengths` get signatures of their own."""
    dims = {0: Dim(name="batch", min=1, max=8), 1: Dim(name="time", min=1, max=512)}
    captured = capture(model, {"x": torch.randn(2, 8, INPUTS)}, {"x": dims})
    given = {"lengths": lengths} if lengths else {}
    original = converters.convert(captured, format, folder / "fp32", model="lstm", given=given)
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


if __name__ == "__main__":
    main()
