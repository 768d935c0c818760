"""What a BERT costs and how faithful it stays: MiniLM-L6 with its real weights, next to torch's own ONNX export.

    python -m tests.benchmarks.encoders [--length 128] [--rounds 7] [--sentences 200]

Prints a Markdown table. Times are CPU time of the calling thread, one thread, batch 1; contenders take turns in shuffled
order, and each ratio is the median over rounds of both times of one round, so that a busy machine disturbs both alike.
Faithful: 1 − cosine between the mean-pooled embedding and PyTorch's, on real movie snippets, the worst one.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from edgeseq import converters, data, models, quantize
from edgeseq.artifact import Artifact
from edgeseq.capture import capture
from edgeseq.devices import runtimes
from edgeseq.devices.runtimes import Session
from edgeseq.models.bert import Bert, load_checkpoint
from edgeseq.quantize import Scheme
from edgeseq.signature import Dim, Signature
from edgeseq.tasks.classification import padded
from edgeseq.tokens.wordpiece import WordPiece

SCHEMES = {
    "onnx": ("fp16", "weight_only_wi8_afp32", "dynamic_wi8_afp32"),
    "tflite": ("weight_only_wi8_afp32", "dynamic_wi8_afp32"),
}
PLAIN = "onnx, torch's export"  # every ratio is to this one
MAX_LENGTH = 512
EXAMPLES = 8  # training sentences that the models are captured with


class Embedding(nn.Module):
    """tokens (B, T), padded with 0 -> the mean of the last states (B, D)."""

    def __init__(self, bert: Bert):
        super().__init__()
        self.bert = bert

    def forward(self, tokens: Tensor) -> Tensor:
        return self.bert.pool(self.bert.states(tokens), tokens != 0)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sentences", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    files = data.weights("minilm_l6").fetch()
    bert = models.build("bert", {})
    assert isinstance(bert, Bert), "that is what 'bert' builds"
    load_checkpoint(bert, load_file(files.weights))
    model = Embedding(bert).eval()
    corpus, words = data.data("movie_snippets").load(), WordPiece.load(files.vocabulary)
    examples, sentences = (
        words.encode([example.text for example in part], max_length=MAX_LENGTH)
        for part in (corpus.train[:EXAMPLES], corpus.test[: options.sentences])
    )
    with tempfile.TemporaryDirectory() as folder:
        contenders = built(model, padded(examples), Path(folder))
        sessions = {
            name: runtimes.for_format(a.format).load(a.path, a.signatures, threads=1) for name, a in contenders.items()
        }
        ratios, best = raced(sessions, options.length, options.rounds)
        print(f"\n| {options.length} tokens | MB | CPU ms | of {PLAIN} | 1 − cosine, worst of {len(sentences)} |")
        print("|---|---|---|---|---|")
        for name, session in sessions.items():
            size = contenders[name].size_bytes / 1e6
            loss = max(losses(model, session, sentences))
            print(f"| {name} | {size:.1f} | {best[name]:.2f} | {ratios[name]:.2f} | {loss:.5f} |")


def built(model: nn.Module, tokens: Tensor, folder: Path) -> dict[str, Artifact]:
    """Torch's own export, then ours in each format, under each scheme."""
    axes = {0: Dim(name="batch", min=1, max=64), 1: Dim(name="time", min=1, max=MAX_LENGTH)}
    captured = capture(model, {"tokens": tokens}, {"tokens": axes}, output_names=("pooled",))
    found = {PLAIN: exported_by_torch(model, tokens, folder, like=captured.signatures)}
    for format, schemes in SCHEMES.items():
        floats = converters.convert(captured, format, folder / format, model="minilm")
        found[f"{format} fp32"] = floats
        for scheme in schemes:
            found[f"{format} {scheme}"] = quantize.quantize(floats, Scheme.parse(scheme), folder / format / scheme)
    return found


def exported_by_torch(model: nn.Module, tokens: Tensor, folder: Path, *, like: tuple[Signature, ...]) -> Artifact:
    """What `torch.onnx.export` writes without edgeseq."""
    path = folder / "plain.onnx"
    shapes = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    torch.onnx.export(
        model,
        (tokens.int(),),
        path,
        dynamo=True,
        input_names=["tokens"],
        output_names=["pooled"],
        dynamic_shapes=shapes,
        external_data=False,
        verbose=False,
    )
    return Artifact.describe(path, model="plain", format="onnx", scheme="fp32", signatures=like)


def raced(sessions: dict[str, Session], length: int, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """(median ratio to the first contender, least milliseconds) of each."""
    tokens = {"tokens": np.random.default_rng(0).integers(1, 30_000, (1, length), dtype=np.int32)}
    order = random.Random(0)
    taken: dict[str, list[float]] = {name: [] for name in sessions}
    for session in sessions.values():
        session.run(tokens)
    for _ in range(rounds):
        for name in order.sample(list(sessions), len(sessions)):
            sessions[name].run(tokens)
            start = time.thread_time()
            for _ in range(5):
                sessions[name].run(tokens)
            taken[name].append(1e3 * (time.thread_time() - start) / 5)
    first = np.array(taken[next(iter(sessions))])
    ratios = {name: float(np.median(np.array(times) / first)) for name, times in taken.items()}
    return ratios, {name: min(times) for name, times in taken.items()}


def losses(model: nn.Module, session: Session, sentences: list[list[int]]) -> list[float]:
    """1 − cosine between the model's embedding and the engine's, a sentence each."""
    found = []
    for sentence in sentences:
        tokens = np.array([sentence], dtype=np.int32)
        with torch.no_grad():
            expected = model(torch.from_numpy(tokens)).double().numpy()[0]
        actual = session.run({"tokens": tokens})["pooled"][0].astype(np.float64)
        found.append(1 - float(expected @ actual / np.linalg.norm(expected) / np.linalg.norm(actual)))
    return found


if __name__ == "__main__":
    main()
