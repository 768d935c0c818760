"""Keras models to TFLite: through Keras' torch backend, as `edgeseq convert` goes, next to TensorFlow's own converter.

    python -m tests.benchmarks.keras_models [--steps 64] [--other 48] [--rounds 15]

Prints a Markdown table. Both files run in LiteRT, one thread, batch 1, and are compared with Keras itself. Times are CPU
time of the calling thread; contenders take turns in shuffled order, and each ratio is the median over rounds of both
times of one round. Seconds to convert are CPU time, all threads, from the `.keras` file on, without the imports; what
either loads on first use, its first model pays.

Both compute what Keras computes, in files of about one size. Recurrent layers take ours little more than half of the
time, and other lengths than the file was made for, which TensorFlow's refuses; a dense layer or attention costs the same
either way, and attention takes longer to convert. That is why Keras files go through the torch backend.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"  # read when Keras is imported

import keras
import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from edgeseq import converters, sources

WIDTH, HIDDEN, CLASSES = 64, 128, 8
CALLS = 5  # of each contender in a round
OURS, THEIRS = "ours", "TensorFlow"
Run = Callable[[np.ndarray], np.ndarray]  # x (1, T, I) -> the model's output


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One file of one model."""

    run: Run
    size_bytes: int
    seconds: float  # to convert


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--other", type=int, default=48, help="a length that TensorFlow's file was not made for")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        models = {name: saved(name, Path(folder)) for name in MODELS}
        theirs = by_tensorflow(Path(folder), options.steps)
        print(
            f"\n| {options.steps} steps | | MB | CPU ms | of TensorFlow's | max. error | at {options.other} steps | s |"
        )
        print("|---|---|---|---|---|---|---|---|")
        for name, model in models.items():
            pair = {THEIRS: theirs[name], OURS: by_edgeseq(Path(folder), name)}
            ratio, best = raced(pair, draw(options.steps), options.rounds)
            for way, contender in pair.items():
                errors = [error(contender, model, draw(steps)) for steps in (options.steps, options.other)]
                print(
                    f"| {name} | {way} | {contender.size_bytes / 1e6:.3f} | {best[way]:.3f} | {ratio[way]:.2f} "
                    f"| {errors[0]} | {errors[1]} | {contender.seconds:.1f} |",
                    flush=True,
                )


def sequence(*rest: Any) -> Any:
    return keras.Sequential([keras.Input((None, WIDTH), name="x"), *rest, layers.Dense(CLASSES)])


def attention() -> Any:
    x = keras.Input((None, WIDTH), name="x")
    y = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, WIDTH // 4)(x, x))
    y = layers.LayerNormalization()(y + layers.Dense(WIDTH)(layers.Dense(4 * WIDTH, "gelu")(y)))
    return keras.Model(x, layers.Dense(CLASSES)(y))


MODELS: dict[str, Callable[[], Any]] = {
    "dense": lambda: sequence(layers.Dense(HIDDEN, "relu"), layers.Dense(HIDDEN, "relu")),
    "LSTM, 2 layers": lambda: sequence(layers.LSTM(HIDDEN, return_sequences=True), layers.LSTM(HIDDEN)),
    "GRU, 2 layers": lambda: sequence(layers.GRU(HIDDEN, return_sequences=True), layers.GRU(HIDDEN)),
    "Bidirectional(LSTM)": lambda: sequence(layers.Bidirectional(layers.LSTM(HIDDEN, return_sequences=True))),
    "attention block": attention,
}


def saved(name: str, folder: Path) -> Any:
    """The model with every weight drawn, biases included, as a file too."""
    model = MODELS[name]()
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.1, weight.shape) for weight in model.get_weights()])
    model.save(folder / f"{name}.keras")
    return model


def by_edgeseq(folder: Path, name: str) -> Contender:
    """Ours, as `edgeseq convert` makes it, the reference results it is checked with included."""
    start = time.process_time()
    loaded = sources.get("keras").load(folder / f"{name}.keras", "mine")
    artifact = converters.convert(loaded.captured, "tflite", folder / name, model="mine")
    seconds = time.process_time() - start
    return interpreted(artifact.path, seconds)


def by_tensorflow(folder: Path, steps: int) -> dict[str, Contender]:
    """TensorFlow's file of every model."""
    command = [sys.executable, "-m", "tests.benchmarks.keras_by_tensorflow", str(folder), str(steps)]
    settings = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"TensorFlow's converter failed:\n{done.stderr[-2000:]}")
    seconds = json.loads((folder / "seconds.json").read_text())
    return {name: interpreted(folder / f"{name}.tensorflow.tflite", seconds[name]) for name in seconds}


def interpreted(path: Path, seconds: float) -> Contender:
    """A file of one input and one output in LiteRT; another length than the last one's resizes its input."""
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (fed,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    prepared = [tuple(fed["shape"])]

    def run(x: np.ndarray) -> np.ndarray:
        if x.shape != prepared[-1]:
            interpreter.resize_tensor_input(fed["index"], x.shape)
            interpreter.allocate_tensors()
            prepared.append(x.shape)
        interpreter.set_tensor(fed["index"], x)
        interpreter.invoke()
        output: np.ndarray = interpreter.get_tensor(result["index"])
        return output

    return Contender(run=run, size_bytes=path.stat().st_size, seconds=seconds)


def draw(steps: int) -> np.ndarray:
    return np.random.default_rng(steps).standard_normal((1, steps, WIDTH), dtype=np.float32)


def raced(pair: dict[str, Contender], x: np.ndarray, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """(median ratio to the first contender, least milliseconds) of each."""
    order = random.Random(0)
    taken: dict[str, list[float]] = {name: [] for name in pair}
    for _ in range(rounds):
        for name in order.sample(list(pair), len(pair)):
            pair[name].run(x)
            start = time.thread_time()
            for _ in range(CALLS):
                pair[name].run(x)
            taken[name].append(1e3 * (time.thread_time() - start) / CALLS)
    first = np.array(taken[next(iter(pair))])
    ratios = {name: float(np.median(np.array(times) / first)) for name, times in taken.items()}
    return ratios, {name: min(times) for name, times in taken.items()}


def error(contender: Contender, model: Any, x: np.ndarray) -> str:
    """The largest difference from Keras, or why there is none."""
    with torch.no_grad():
        expected = model(x).numpy()
    try:
        actual = contender.run(x)
    except (RuntimeError, ValueError):
        return "does not run"
    if actual.shape != expected.shape:
        return f"gives {actual.shape}, not {expected.shape}"
    return f"{np.abs(actual - expected).max():.1e}"


if __name__ == "__main__":
    main()
