"""Core ML: the converter, the quantizer, and the evaluator that checks them where Core ML cannot run."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor, nn
from torch.nn import functional

if find_spec("coremltools") is None:
    pytest.skip("coremltools is not installed", allow_module_level=True)

from edgeseq import converters, quantize
from edgeseq.artifact import Artifact
from edgeseq.capture import CapturedModel, capture
from edgeseq.devices import runtimes
from edgeseq.devices.runtimes._mil import elementwise, matmul, recurrent, shape
from edgeseq.errors import UnavailableError, UnsupportedError
from edgeseq.operators.lstm import LSTM
from edgeseq.signature import Dim

# coremltools leaves temporary folders to the garbage collector; torch.export warns of its own code.
pytestmark = pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning", "ignore::FutureWarning")

BATCH = Dim(name="batch", min=1, max=64)
LENGTH = Dim(name="length", min=1, max=256)
VOCABULARY = 50


class LSTMClassifier(nn.Module):
    """Reads padded rows in both directions and pools every kind of result that an LSTM gives."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 32)
        self.lstm = LSTM(32, 32, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(4 * 32 + 2 * 32, 3)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        y, (h, c) = self.lstm(self.embed(ids), None, lengths)  # (B, T, 2H), 2 × (2L, B, H)
        valid = torch.arange(ids.shape[1]) < lengths[:, None]  # (B, T)
        mean = (y * valid[..., None]).sum(1) / lengths[:, None]  # (B, 2H)
        peak = y.masked_fill(~valid[..., None], float("-inf")).amax(1)  # (B, 2H)
        return self.head(torch.cat([mean, peak, h[-1], c[-2]], dim=-1))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(VOCABULARY, 32), nn.Embedding(256, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu", norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(32, 3)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1])
        valid = positions < lengths[:, None]  # (B, T)
        x = self.encoder(self.embed(ids) + self.position(positions), src_key_padding_mask=~valid)  # (B, T, D)
        return self.head(torch.where(valid[..., None], x, 0.0).sum(1) / lengths[:, None])


MODELS: dict[str, type[nn.Module]] = {"lstm": LSTMClassifier, "encoder": Encoder}


def model(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name]().eval()


def captured(name: str) -> CapturedModel:
    examples = {"ids": torch.randint(0, VOCABULARY, (2, 7)), "lengths": torch.tensor([7, 4])}
    shapes = {"ids": {0: BATCH, 1: LENGTH}, "lengths": {0: BATCH}}
    return capture(model(name), examples, shapes)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("coreml")
    return {name: converters.convert(captured(name), "coreml", folder / name, model=name) for name in MODELS}


def worst_error(artifact: Artifact) -> float:
    """Largest difference from PyTorch at batches and lengths that the capture never saw."""
    session = runtimes.get("coreml_evaluator").load(artifact.path, artifact.signatures, threads=1)
    reference, errors = model(artifact.model), []
    for batch, length in ((1, 1), (3, 20), (5, 64)):
        ids = torch.randint(0, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(batch))
        lengths = torch.randint(1, length + 1, (batch,), generator=torch.Generator().manual_seed(length))
        with torch.no_grad():
            expected = reference(ids, lengths).numpy()
        actual = session.run({"ids": ids.int().numpy(), "lengths": lengths.int().numpy()})["logits"]
        errors.append(np.abs(actual - expected).max())
    return float(max(errors))


@pytest.mark.parametrize("name", MODELS)
def test_a_converted_model_equals_pytorch_at_unseen_batches_and_lengths(
    name: str, artifacts: dict[str, Artifact]
) -> None:
    assert worst_error(artifacts[name]) <= 1e-5


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("scheme", "tolerance", "size"),
    [("fp16", 1e-2, 0.56), ("dynamic_wi8_afp32", 0.03, 0.4), ("weight_only_wi4b32_afp32", 0.3, 0.35)],
)
def test_a_quantized_model_is_small_and_close(
    name: str, scheme: str, tolerance: float, size: float, artifacts: dict[str, Artifact], tmp_path: Path
) -> None:
    quantized = quantize.quantize(artifacts[name], quantize.Scheme.parse(scheme), tmp_path)

    weights = [a.path / "Data/com.apple.CoreML/weights/weight.bin" for a in (quantized, artifacts[name])]
    assert weights[0].stat().st_size <= size * weights[1].stat().st_size
    assert worst_error(quantized) <= tolerance


def test_another_process_writes_the_same_bytes_and_is_silent(artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, __file__, str(tmp_path / "theirs")]

    theirs = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    assert theirs.stdout.split() == hashes(artifacts["lstm"], tmp_path / "ours")
    assert "coremltools" not in theirs.stderr


def hashes(artifact: Artifact, folder: Path) -> list[str]:
    """SHA-256 of an artifact in float32, float16, int8 and int4."""
    schemes = [quantize.Scheme.parse(name) for name in ("fp16", "dynamic_wi8_afp32", "weight_only_wi4b32_afp32")]
    others = [quantize.quantize(artifact, scheme, folder / scheme.name) for scheme in schemes]
    return [made.sha256 for made in (artifact, *others)]


def test_evaluating_a_package_does_not_change_it(artifacts: dict[str, Artifact]) -> None:
    worst_error(artifacts["lstm"])

    assert Artifact.load(artifacts["lstm"].path.parent) == artifacts["lstm"]


def test_every_unsupported_operator_is_named_before_anything_is_written(tmp_path: Path) -> None:
    class Bessel(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.bessel_j0(x) + torch.special.i0(x)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Bessel()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    target = tmp_path / "bessel.mlpackage"

    both = r"aten\.i0\.default in module 'inner' .*; aten\.special_bessel_j0\.default in module 'inner'"
    with pytest.raises(UnsupportedError, match=both):
        converters.convert(capture(Outer(), {"x": torch.ones(2, 3)}), "coreml", tmp_path, model="bessel")

    assert not target.exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_conversion_leaves_coremltools_as_it_was(tmp_path: Path) -> None:
    class Mask(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.ones_like(x)

    class Bessel(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.bessel_j0(x)

    converters.convert(capture(Mask(), {"x": torch.ones(2, 3)}), "coreml", tmp_path, model="mask")
    with pytest.raises(UnsupportedError):
        converters.convert(capture(Bessel(), {"x": torch.ones(2, 3)}), "coreml", tmp_path, model="bessel")

    import coremltools  # not before ours, which decides how it is imported

    # A TorchScript model has no meta data, which our translations read.
    traced = torch.jit.trace(Mask(), torch.ones(2, 3))  # type: ignore[no-untyped-call]  # torch has no types there
    shapes, outputs = [coremltools.TensorType(name="x", shape=(2, 3))], [coremltools.TensorType(name="y")]
    made = coremltools.convert(traced, inputs=shapes, outputs=outputs, skip_model_load=True)
    assert [output.name for output in made.get_spec().description.output] == ["y"]


def test_core_ml_itself_says_where_it_runs(artifacts: dict[str, Artifact]) -> None:
    runtime = runtimes.get("coreml")
    if sys.platform == "darwin":
        pytest.skip("Core ML runs here")

    assert runtime.unavailable() == "Core ML predicts on macOS only"
    with pytest.raises(UnavailableError, match="coreml_evaluator"):
        runtime.load(artifacts["lstm"].path, artifacts["lstm"].signatures, threads=1)


def test_core_ml_compiles_a_package_once_for_all_its_signatures(
    artifacts: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Core ML itself: a stand-in counts what it is asked to compile."""
    compiled: list[str] = []
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("coremltools.models.MLModel", lambda path, **_: compiled.append(path))
    artifact = artifacts["lstm"]
    step = artifact.signature().case("step", {"length": 1})

    runtimes.get("coreml").load(artifact.path, (step, artifact.signature()), threads=1)

    assert compiled == [str(artifact.path)]


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "causal attention": lambda x: functional.scaled_dot_product_attention(x, x, x, is_causal=True),
    "infinite triangular mask": lambda x: (
        (x @ x.mT + torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1)).softmax(-1) @ x
    ),
    "approximate gelu": lambda x: functional.gelu(x, approximate="tanh"),
    "rms norm": lambda x: functional.rms_norm(x, (8,)),
    "sizes": lambda x: x * (x.shape[1] // 2 + 1),
    "indices": lambda x: x[torch.arange(x.shape[0]), (x[:, :, 0] > 9).sum(1)],
    "integers": lambda x: x.argmax(-1),
    "booleans": lambda x: ~((x > 0) & (x < 1) | (x < -1)),
    "convolution": lambda x: functional.conv1d(x.mT, torch.ones(8, 8, 3) / 24, padding=1),
    "largest": lambda x: x.topk(3, -1)[0],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_operator_keeps_its_meaning(name: str, tmp_path: Path) -> None:
    class Module(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return FUNCTIONS[name](x)

    program = capture(Module(), {"x": torch.randn(2, 7, 8)}, {"x": {0: BATCH, 1: LENGTH}})
    artifact = converters.convert(program, "coreml", tmp_path, model="operator")
    x = torch.randn(3, 12, 8, generator=torch.Generator().manual_seed(0))

    actual = runtimes.get("coreml_evaluator").load(artifact.path, artifact.signatures, threads=1).run({"x": x.numpy()})

    np.testing.assert_allclose(actual["logits"], Module()(x).numpy(), atol=1e-5)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_evaluators_lstm_is_torchs(bidirectional: bool) -> None:
    torch.manual_seed(0)
    layer, x = nn.LSTM(5, 4, bidirectional=bidirectional), torch.randn(6, 3, 5)
    weights = [ifog(weight.detach().numpy()) for weight in layer.parameters()]
    keys = ["weight_ih", "weight_hh", "bias", "weight_ih_back", "weight_hh_back", "bias_back"]
    merged = [
        array
        for w_ih, w_hh, b_ih, b_hh in zip(*[iter(weights)] * 4, strict=True)
        for array in (w_ih, w_hh, b_ih + b_hh)
    ]
    zeros = np.zeros((3, 4 * (1 + bidirectional)), np.float32)

    y, h, _ = recurrent.lstm(
        x=x.numpy(),
        initial_h=zeros,
        initial_c=zeros,
        direction="bidirectional" if bidirectional else "forward",
        output_sequence=True,
        **dict(zip(keys, merged, strict=False)),
    )

    expected, (hidden, _) = layer(x)
    np.testing.assert_allclose(y, expected.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(h, torch.cat(list(hidden), dim=-1).detach().numpy(), atol=1e-6)


def ifog(weight: np.ndarray) -> np.ndarray:
    i, f, g, o = np.split(weight, 4)
    return np.concatenate([i, f, o, g])


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_the_evaluators_gru_is_torchs_with_reset_after(direction: str) -> None:
    torch.manual_seed(0)
    layer, x, h0 = nn.GRU(5, 4), torch.randn(6, 3, 5), torch.randn(1, 3, 4)
    w_ih, w_hh, b_ih, b_hh = (roz(weight.detach().numpy()) for weight in layer.parameters())

    y, h = recurrent.gru(x.numpy(), h0[0].numpy(), w_ih, w_hh, b_hh, direction, True, reset_after=True, input_bias=b_ih)

    expected, hidden = layer(x if direction == "forward" else torch.flip(x, [0]), h0)
    expected = expected if direction == "forward" else torch.flip(expected, [0])
    np.testing.assert_allclose(y, expected.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(h, hidden[0].detach().numpy(), atol=1e-6)


def test_the_evaluators_gru_resets_before_the_product() -> None:
    """As coremltools' own tests expect of Core ML: o = tanh(W x + R (r * h) + b)."""
    rng = np.random.default_rng(0)
    x, h0 = rng.normal(size=(4, 2, 5)), rng.normal(size=(2, 3))
    w, r, b = rng.normal(size=(3, 3, 5)), rng.normal(size=(3, 3, 3)), rng.normal(size=(3, 3))  # gates r, o, z first
    w_all, r_all, b_all = (np.concatenate(list(part)).astype(np.float32) for part in (w, r, b))

    y, _ = recurrent.gru(x.astype(np.float32), h0.astype(np.float32), w_all, r_all, b_all, output_sequence=True)

    h = h0
    for t in range(4):
        reset, update = (1 / (1 + np.exp(-(x[t] @ w[i].T + h @ r[i].T + b[i]))) for i in (0, 2))
        h = (1 - update) * np.tanh(x[t] @ w[1].T + (reset * h) @ r[1].T + b[1]) + update * h
        np.testing.assert_allclose(y[t], h, atol=1e-5)


def roz(weight: np.ndarray) -> np.ndarray:
    r, z, n = np.split(weight, 3)
    return np.concatenate([r, n, z])


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("output_sequence", [True, False])
def test_the_evaluators_rnn_is_torchs(activation: str, output_sequence: bool) -> None:
    torch.manual_seed(0)
    layer, x, h0 = nn.RNN(5, 4, nonlinearity=activation), torch.randn(6, 3, 5), torch.randn(1, 3, 4)
    w_ih, w_hh, b_ih, b_hh = (weight.detach().numpy() for weight in layer.parameters())
    options = {"output_sequence": output_sequence, "activation": activation}

    y, h = recurrent.rnn(x.numpy(), h0[0].numpy(), w_ih, w_hh, b_ih + b_hh, **options)

    expected, hidden = layer(x, h0)
    np.testing.assert_allclose(y, expected[0 if output_sequence else -1 :].detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(h, hidden[0].detach().numpy(), atol=1e-6)


def test_the_evaluators_attention_and_layer_norm_are_torchs() -> None:
    q, k, v = torch.randn(3, 2, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(6, 6, dtype=torch.bool).tril()

    attended = matmul.attention(q.numpy(), k.numpy(), v.numpy(), mask.numpy())
    normed = elementwise.layer_norm(q.numpy(), axes=[-1])

    np.testing.assert_allclose(attended, functional.scaled_dot_product_attention(q, k, v, mask).numpy(), atol=1e-6)
    np.testing.assert_allclose(normed, functional.layer_norm(q, (8,)).numpy(), atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_evaluators_slices_are_coremltools_own(data: st.DataObject) -> None:
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil import Function

    x = data.draw(
        arrays.arrays(np.float32, arrays.array_shapes(min_dims=1, max_dims=3, min_side=2), elements=st.just(0))
    )
    x = np.arange(x.size, dtype=np.float32).reshape(x.shape)
    sizes: list[int] = list(x.shape)
    begin = [data.draw(st.integers(0, size - 1)) for size in sizes]
    masks = {
        key: data.draw(st.lists(st.booleans(), min_size=x.ndim, max_size=x.ndim)) for key in ("begin_mask", "end_mask")
    }
    squeeze = [data.draw(st.booleans()) and not masked for masked in masks["begin_mask"]]
    end = [data.draw(st.integers(first + 1, size)) for first, size in zip(begin, sizes, strict=True)]
    stride = [1 if squeezed else data.draw(st.integers(1, 3)) for squeezed in squeeze]
    options = {"begin": begin, "end": end, "stride": stride, "squeeze_mask": squeeze, **masks}

    with Function({}):
        expected = Builder.slice_by_index(x=x, **options).val

    np.testing.assert_array_equal(shape.slice_by_index(x, **options), expected)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=4))
def test_the_evaluator_reverses_each_row_within_its_length(lengths: list[int]) -> None:
    x = np.arange(6 * len(lengths), dtype=np.float32).reshape(6, len(lengths), 1)  # (T, B, 1)

    actual = shape.reverse_sequence(x, np.array(lengths), seq_axis=0, batch_axis=1)

    for row, length in enumerate(lengths):
        np.testing.assert_array_equal(actual[:, row], np.concatenate([x[:length, row][::-1], x[length:, row]]))


if __name__ == "__main__":
    made = converters.convert(captured("lstm"), "coreml", Path(sys.argv[1]), model="lstm")
    sys.stdout.write("\n".join(hashes(made, Path(sys.argv[1]))))
