"""What an LSTM costs in each format: operators, seconds to convert, and latency. `make bench` prints the README's tables.

    python -m tests.benchmarks.recurrent [--hidden 128] [--rounds 5]

Conversion is timed in CPU seconds of this process after a first, uncounted conversion has imported everything. Latencies are
minima over interleaved, shuffled rounds of one thread: on a shared machine the least disturbed sample is the one to compare.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import torch

from edgeseq import converters, models, quantize
from edgeseq.artifact import Artifact
from edgeseq.capture import CapturedModel, capture
from edgeseq.devices import runtimes
from edgeseq.quantize import Scheme
from edgeseq.signature import Dim
from tests.benchmarks import stacked_lstm

LENGTHS = (16, 256)
FORMATS = ("onnx", "tflite", "coreml")
TIMED = ("onnx", "tflite")


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=128, help="width of each direction")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        artifacts = conversions(Path(folder), options.hidden)
        latencies(artifacts, options.rounds)
    print()
    stacked_lstm.table(options.rounds)


def conversions(folder: Path, hidden: int) -> dict[str, Artifact]:
    """Convert for both example lengths; returns the artifacts to time."""
    model = models.build("bilstm", {"n_vocab": 10_000, "d_model": hidden, "d_hidden": hidden})
    print(f"BiLSTM, {hidden} wide, vocabulary 10,000")
    print(f"{'format':8} {'example length':>14} {'operators':>10} {'CPU s':>6} {'MB':>6}")
    artifacts = {}
    for format in FORMATS:
        convert(model, format, LENGTHS[0], folder / "uncounted")
        for length in LENGTHS:
            captured = captured_at(model, length)
            start = time.process_time()
            artifact = converters.convert(captured, format, folder / f"{format}{length}", model="bilstm")
            seconds = time.process_time() - start
            count = COUNTERS[format](artifact.path)
            print(f"{format:8} {length:14} {count:10} {seconds:6.2f} {artifact.size_bytes / 1e6:6.2f}")
        if format in TIMED:
            scheme = Scheme.parse("dynamic_wi8_afp32")
            artifacts[f"{format} fp32"] = artifact
            artifacts[f"{format} int8"] = quantize.quantize(artifact, scheme, folder / f"{format}.int8")
    return artifacts


def captured_at(model: torch.nn.Module, length: int) -> CapturedModel:
    """The model captured from an example of that length, batch and length dynamic."""
    dims = {0: Dim(name="batch", min=1, max=64), 1: Dim(name="time", min=1, max=512)}
    return capture(model, {"tokens": torch.randint(1, 10_000, (2, length))}, {"tokens": dims})


def convert(model: torch.nn.Module, format: str, length: int, folder: Path) -> Artifact:
    """Capture and convert."""
    return converters.convert(captured_at(model, length), format, folder, model="bilstm")


def latencies(artifacts: Mapping[str, Artifact], rounds: int) -> None:
    """Time every artifact at several lengths, all taking turns."""
    lengths = (16, 32, 128, 512)
    sessions = {
        name: runtimes.for_format(a.format).load(a.path, a.signatures, threads=1) for name, a in artifacts.items()
    }
    order = random.Random(0)
    print(f"\nms at one thread, batch 1\n{'':12}" + "".join(f"{length:>8}" for length in lengths))
    best = {(name, length): np.inf for name in sessions for length in lengths}
    for _ in range(rounds):
        for name, length in order.sample(list(best), len(best)):
            tokens = {"tokens": np.random.default_rng(length).integers(1, 10_000, (1, length), dtype=np.int32)}
            for _ in range(3):
                sessions[name].run(tokens)
            for _ in range(20):
                start = time.perf_counter()
                sessions[name].run(tokens)
                best[name, length] = min(best[name, length], 1e3 * (time.perf_counter() - start))
    for name in sessions:
        print(f"{name:12}" + "".join(f"{best[name, length]:8.3f}" for length in lengths))


def onnx_operators(path: Path) -> int:
    """Nodes of the graph."""
    return len(onnx.load(path).graph.node)


def tflite_operators(path: Path) -> int:
    """Operators of the main subgraph and of every loop body."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(path.read_bytes())
    return sum(model.Subgraphs(i).OperatorsLength() for i in range(model.SubgraphsLength()))


def coreml_operators(path: Path) -> int:
    """Operations of the function `main`, constants left out."""
    from coremltools.proto.Model_pb2 import Model

    spec = Model()
    spec.ParseFromString((path / "Data/com.apple.CoreML/model.mlmodel").read_bytes())
    block = next(iter(spec.mlProgram.functions["main"].block_specializations.values()))
    return sum(operation.type != "const" for operation in block.operations)


COUNTERS: Mapping[str, Callable[[Path], int]] = {
    "onnx": onnx_operators,
    "tflite": tflite_operators,
    "coreml": coreml_operators,
}

if __name__ == "__main__":
    main()
