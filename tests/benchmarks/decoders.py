"""What one step of a GPT costs in each format, with its cache, next to onnxruntime on torch's own export of such a step.

    python -m tests.benchmarks.decoders [--rounds 40]

The model is GPT-2's shape, 6 layers of 384 with 6 heads, vocabulary 8,192, random weights. The contender is float32, twice:
with a cache that every step concatenates (its outputs are the next inputs, without copies), and with a fixed cache of 256
that is written by `index_copy`; ratios are to the faster one. Ours are streams, whose steps include what the host does:
writing new rows into the caches, sampling left out. Milliseconds are the thread's processor time, one thread, batch 1: all
take turns in every round, and the medians of the rounds' ratios are reported. Last, a step is compared with a run of the
whole sequence without a cache.
"""

import argparse
import os
import random
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

import numpy as np
import onnxruntime as ort
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseq import converters, quantize
from edgeseq.artifact import Artifact
from edgeseq.capture import capture, capture_calls
from edgeseq.devices import runtimes
from edgeseq.models.gpt import GPT, Block, GPTSpec
from edgeseq.quantize import Scheme
from edgeseq.signature import Dim

SPEC = GPTSpec(n_vocab=8192, d_model=384, n_layers=6, n_heads=6, max_length=256)
CONTEXTS = (32, 128, 255)
UNCACHED = 128
FORMATS = ("onnx", "tflite")
SCHEMES = ("fp32", "dynamic_wi8_afp32")
Step = Callable[[], object]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = GPT(SPEC).eval()
    with tempfile.TemporaryDirectory() as folder:
        decoders, uncached = artifacts(model, Path(folder))
        contenders = {kind: exported(kind, model, Path(folder)) for kind in ("concatenating", "fixed")}
        for context in CONTEXTS:
            steps = {f"torch export, {kind} cache": contender(contenders[kind], kind, context) for kind in contenders}
            steps |= {name: step(artifact, context) for name, artifact in decoders.items()}
            report(f"step at context {context}", measured(steps, options.rounds), tuple(steps)[:2])
        without = {f"{name}, no cache": whole(artifact) for name, artifact in uncached.items()}
        steps = without | {name: step(artifact, UNCACHED) for name, artifact in decoders.items()}
        report(f"token {UNCACHED} with and without a cache", measured(steps, options.rounds), tuple(without))


def artifacts(model: GPT, folder: Path) -> tuple[dict[str, Artifact], dict[str, Artifact]]:
    """The decoder, and the model without a cache, in every format and scheme."""
    tokens = torch.ones(2, 8, dtype=torch.int64)
    axes = {"tokens": {0: Dim(name="batch", min=1, max=8), 1: Dim(name="time", min=1, max=SPEC.max_length)}}
    captured = {
        "step": capture_calls(model, model.calls()),
        "whole": capture(LastLogits(model), {"tokens": tokens}, axes),
    }
    made: dict[str, dict[str, Artifact]] = {}
    for kind, program in captured.items():
        made[kind] = {}
        for format in FORMATS:
            floating = converters.convert(program, format, folder / kind / format, model="gpt")
            for scheme in SCHEMES:
                name = f"{format} {scheme}"
                made[kind][name] = (
                    floating
                    if scheme == "fp32"
                    else quantize.quantize(floating, Scheme.parse(scheme), folder / kind / name)
                )
                print(f"{kind:6} {name:26} {made[kind][name].size_bytes / 1e6:6.2f} MB")
    return made["step"], made["whole"]


class LastLogits(nn.Module):
    """The model without a cache: tokens (B, T) -> logits (B, V) of the next one."""

    def __init__(self, model: GPT):
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.model.embedding(tokens) + self.model.position(torch.arange(tokens.shape[1]))
        for block in self.model.blocks:
            x = block(x)
        return F.linear(self.model.norm(x[:, -1]), self.model.embedding.weight)


class PlainStep(nn.Module):
    """A step as it is usually written: token (1, 1), position (1,), the cache -> logits (1, V), the cache with the new row."""

    def __init__(self, model: GPT, kind: str):
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, token: Tensor, position: Tensor, *cache: Tensor) -> tuple[Tensor, ...]:
        x = self.model.embedding(token) + self.model.position(position)
        kept: list[Tensor] = []
        for block, keys, values in zip(self.model.blocks, cache[::2], cache[1::2], strict=True):
            assert isinstance(block, Block), "as they were made"
            attention, h = block.attention, block.attention_norm(x)
            q, k, v = (attention.heads(layer(h)) for layer in (attention.query, attention.key, attention.value))
            if self.kind == "concatenating":
                keys, values, mask = torch.cat([keys, k], 2), torch.cat([values, v], 2), None
            else:
                keys, values = keys.index_copy(2, position, k), values.index_copy(2, position, v)
                mask = (torch.arange(keys.shape[2]) <= position)[None]  # (1, S)
            y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
            x = block.feedforward(x + attention.merged(y))
            kept += [keys, values]
        return F.linear(self.model.norm(x[:, -1]), self.model.embedding.weight), *kept


def exported(kind: str, model: GPT, folder: Path) -> ort.InferenceSession:
    """Torch's own export of a plain step, in onnxruntime with all its optimizations."""
    rows = 5 if kind == "concatenating" else SPEC.max_length
    shape = (1, SPEC.n_heads, rows, SPEC.d_model // SPEC.n_heads)
    cache = tuple(torch.randn(shape) for _ in range(2 * SPEC.n_layers))
    past = torch.export.Dim("past", min=1, max=SPEC.max_length)
    axes: dict[int, Any] = {2: past} if kind == "concatenating" else {}
    dynamic: tuple[Any, ...] = ({}, {}, tuple(axes for _ in cache))
    inputs = (torch.ones(1, 1, dtype=torch.int64), torch.tensor([3]), *cache)
    path = folder / f"{kind}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            PlainStep(model, kind).eval(), inputs, dynamo=True, dynamic_shapes=dynamic, verbose=False
        )
    assert program is not None
    program.save(path)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def contender(session: ort.InferenceSession, kind: str, context: int) -> Step:
    """One step after `context` tokens; caches go in and come out as onnxruntime's own values, without copies to numpy."""
    rows = context if kind == "concatenating" else SPEC.max_length
    rng = np.random.default_rng(context)
    shape = (1, SPEC.n_heads, rows, SPEC.d_model // SPEC.n_heads)
    first, second, *names = [value.name for value in session.get_inputs()]
    feeds = {name: rng.normal(size=shape).astype(np.float32) for name in names}
    feeds |= {first: np.ones((1, 1), np.int64), second: np.array([context])}
    values = {name: ort.OrtValue.ortvalue_from_numpy(value) for name, value in feeds.items()}
    outputs = [value.name for value in session.get_outputs()]
    return lambda: session.run_with_ort_values(outputs, values)[0].numpy()


def step(artifact: Artifact, context: int) -> Step:
    """One step of a stream after `context` tokens; it overwrites the same row each time."""
    runtime = runtimes.for_format(artifact.format)
    session = runtime.load(artifact.path, artifact.signatures, threads=1)
    stream = runtime.stream(session, artifact.signatures, {"batch": 1})
    prompt = np.random.default_rng(context).integers(0, SPEC.n_vocab, (1, context), dtype=np.int32)
    stream.run({"tokens": prompt}, "prefill")
    token, position = {"tokens": prompt[:, :1]}, dict(stream.positions)

    def again() -> object:
        stream.positions = dict(position)
        return stream.run(token, "step")

    return again


def whole(artifact: Artifact) -> Step:
    """The last token of a sequence without a cache."""
    session = runtimes.for_format(artifact.format).load(artifact.path, artifact.signatures, threads=1)
    tokens = {"tokens": np.random.default_rng(0).integers(0, SPEC.n_vocab, (1, UNCACHED), dtype=np.int32)}
    return lambda: session.run(tokens)


def measured(steps: Mapping[str, Step], rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds of each round: the median of a few runs in a row."""
    order, samples = random.Random(0), {name: np.zeros(rounds) for name in steps}
    for number in range(rounds):
        for name in order.sample(list(steps), len(steps)):
            steps[name]()
            samples[name][number] = np.median([milliseconds(steps[name]) for _ in range(5)])
    return samples


def milliseconds(run: Step) -> float:
    """The thread's processor time of one run."""
    start = time.thread_time()
    run()
    return 1e3 * (time.thread_time() - start)


def report(title: str, samples: Mapping[str, np.ndarray], contenders: tuple[str, ...]) -> None:
    """Medians, and the median ratio to the fastest contender of the same round."""
    best = min(contenders, key=lambda name: float(np.median(samples[name])))
    print(f"\n{title}\n{'':34}{'ms':>8}{'ratio':>8}   to: {best}")
    for name, values in samples.items():
        print(f"{name:34}{np.median(values):8.3f}{np.median(values / samples[best]):8.3f}")


if __name__ == "__main__":
    main()
