"""TFLite: files of any length from torch.export programs, against the torch layers that they come from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeseq import converters, quantize, tflite_file
from edgeseq.artifact import Artifact
from edgeseq.capture import Call, capture, capture_calls
from edgeseq.converters.tflite._program import batch_dimensions
from edgeseq.devices import runtimes
from edgeseq.errors import ConversionError, UnsupportedError
from edgeseq.given_types import tensors_of
from edgeseq.operators.lstm import LSTM
from edgeseq.quantize.scheme import Scheme
from edgeseq.signature import Dim, Signature, State, TensorSpec

BATCH = Dim(name="batch", min=1, max=8)
TIME = Dim(name="time", min=1, max=256)
VOCABULARY, WIDTH = 50, 32
UNSEEN_LENGTHS = (1, 2, 15, 16, 17, 33, 256)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:copyreg", "ignore:.*LeafSpec.*:FutureWarning")


class Function(nn.Module):
    """A plain function of tokens as a model."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function
        self.embed = nn.Embedding(VOCABULARY, WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.embed(ids)
        return self.function(embedded)  # (B, T, WIDTH) -> anything


class Recurrent(nn.Module):
    """Embedding, LSTM, mean over valid steps, head."""

    def __init__(self, width: int = 24, layers: int = 1, bidirectional: bool = True):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.lstm = LSTM(WIDTH, width, layers, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(width * (1 + bidirectional), 3)

    def forward(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.lstm(self.embed(ids), None, lengths)
        return self.head(y), h.transpose(0, 1), c.transpose(0, 1)


class Encoder(nn.Module):
    """A padding-aware transformer encoder with learned positions."""

    def __init__(self, width: int = 32, activation: str = "gelu", norm_first: bool = False):
        super().__init__()
        self.embed, self.positions = nn.Embedding(VOCABULARY, width), nn.Embedding(256, width)
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, batch_first=True, activation=activation, norm_first=norm_first
        )
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(width, 3)

    def forward(self, ids: Tensor) -> Tensor:
        is_padding = ids == 0
        x = self.embed(ids) + self.positions.weight[: ids.shape[1]]
        x = self.encoder(x, src_key_padding_mask=is_padding)
        keep = (~is_padding).unsqueeze(-1).float()
        logits: Tensor = self.head((x * keep).sum(1) / keep.sum(1).clamp(min=1))
        return logits


Files = dict[str, tuple[nn.Module, Artifact]]


def convert(model: nn.Module, folder: Path, **examples: Tensor) -> Artifact:
    axes = {"ids": {0: BATCH, 1: TIME}, "lengths": {0: BATCH}}
    with torch.no_grad():
        names = ("logits", "h", "c")[: len(tensors_of(model.eval()(*examples.values())))]
    captured = capture(model, examples, {name: axes[name] for name in examples}, output_names=names)
    return converters.convert(captured, "tflite", folder, model="model")


def tokens(length: int, *, batch: int = 2, first: int = 1) -> Tensor:
    return torch.randint(first, VOCABULARY, (batch, length))


def largest_error(model: nn.Module, artifact: Artifact, **inputs: Tensor) -> float:
    session = runtimes.get("litert").load(artifact.path, artifact.signatures, threads=1)
    with torch.no_grad():
        expected = model(*inputs.values())
    actual = session.run({name: (x.int() if x.dtype == torch.int64 else x).numpy() for name, x in inputs.items()})
    references = expected if isinstance(expected, tuple) else (expected,)
    pairs = zip(references, actual.values(), strict=True)
    return max(float(np.abs(have.astype(np.float64) - want.numpy()).max(initial=0)) for want, have in pairs)


@pytest.fixture(scope="module", autouse=True)
def one_thread_and_no_fused_encoder() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.backends.mha.set_fastpath_enabled(False)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    recurrent, encoder = Recurrent(width=64), Encoder(width=64)
    folder = tmp_path_factory.mktemp("float32")
    inputs = {"ids": tokens(20), "lengths": torch.tensor([20, 9])}
    return {
        "recurrent": (recurrent, convert(recurrent, folder / "recurrent", **inputs)),
        "encoder": (encoder, convert(encoder, folder / "encoder", ids=tokens(20))),
    }


@pytest.mark.parametrize(("layers", "bidirectional"), [(1, True), (2, True), (2, False)])
def test_lstm_with_lengths_equals_torch_at_lengths_never_exported(
    layers: int, bidirectional: bool, tmp_path: Path
) -> None:
    model = Recurrent(layers=layers, bidirectional=bidirectional)
    artifact = convert(model, tmp_path, ids=tokens(7), lengths=torch.tensor([7, 3]))

    errors = {
        length: largest_error(model, artifact, ids=tokens(length), lengths=torch.tensor([length, (length + 1) // 2]))
        for length in UNSEEN_LENGTHS
    }

    assert max(errors.values()) <= 1e-5, errors


def test_lstm_of_which_only_the_state_is_read_equals_torch(tmp_path: Path) -> None:
    class LastState(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.lstm = (
                nn.Embedding(VOCABULARY, WIDTH),
                nn.LSTM(WIDTH, 8, 2, batch_first=True, bidirectional=True),
            )

        def forward(self, ids: Tensor) -> Tensor:
            _, (h, _) = self.lstm(self.embed(ids))
            return torch.cat([h[-2], h[-1]], -1)

    model = LastState()
    artifact = convert(model, tmp_path, ids=tokens(7))

    assert max(largest_error(model, artifact, ids=tokens(length)) for length in UNSEEN_LENGTHS) <= 1e-5


@pytest.mark.parametrize("time", [1, 20])
def test_lstm_with_a_fixed_batch_length_and_given_states_equals_torch(time: int, tmp_path: Path) -> None:
    model = nn.LSTM(WIDTH, 8, batch_first=True, bidirectional=True).eval()

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = model

        def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            y, (h, c) = self.lstm(x, (h, c))
            return y, h, c

    inputs = {"x": torch.randn(3, time, WIDTH), "h": torch.randn(2, 3, 8), "c": torch.randn(2, 3, 8)}
    captured = capture(Step(), inputs, output_names=("y", "hn", "cn"), name="step")
    artifact = converters.convert(captured, "tflite", tmp_path, model="model")
    session = runtimes.get("litert").load(artifact.path, artifact.signatures, threads=1)
    with torch.no_grad():
        expected = Step()(*inputs.values())

    actual = session.run({name: value.numpy() for name, value in inputs.items()}, "step")

    for want, name in zip(expected, ("y", "hn", "cn"), strict=True):
        np.testing.assert_allclose(actual[name], want.numpy(), atol=1e-5)


@pytest.mark.parametrize(("activation", "norm_first"), [("gelu", False), ("relu", True)])
def test_encoder_equals_torch_at_lengths_never_exported(activation: str, norm_first: bool, tmp_path: Path) -> None:
    model = Encoder(activation=activation, norm_first=norm_first)
    artifact = convert(model, tmp_path, ids=tokens(7))

    errors = {length: largest_error(model, artifact, ids=_padded(length)) for length in UNSEEN_LENGTHS}

    assert max(errors.values()) <= 1e-5, errors


def _padded(length: int) -> Tensor:
    ids = tokens(length)
    ids[1, length // 2 + 1 :] = 0
    return ids


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "arithmetic": lambda x: (x * 2 - 1) / (x.abs() + 0.5) + x**3 - x.square(),
    "comparisons": lambda x: torch.where((x > 0) & (x <= 1) | (x < -1), x, -x).masked_fill(x == 0, 7.0),
    "roots": lambda x: (x.abs() + 1e-3).sqrt() + (x.abs() + 1).rsqrt() + (x.abs() + 1).log() + x.exp() + torch.erf(x),
    "activations": lambda x: (
        nn.functional.silu(x) + nn.functional.softplus(x) + nn.functional.elu(x) + nn.functional.hardswish(x)
    ),
    "more activations": lambda x: (
        nn.functional.leaky_relu(x) + nn.functional.relu6(x) + torch.sigmoid(x) + torch.tanh(x)
    ),
    "clamp": lambda x: x.clamp(-0.5, 0.5) + x.clamp(min=0.1) + torch.maximum(x, -x),
    "joins": lambda x: torch.cat([x, torch.stack([x, x], -1).flatten(-2)], -1),
    "splits": lambda x: torch.cat([x.chunk(2, -1)[1], *torch.split(x, [4, 4, 24], -1)[1:], x.flip(1)], -1),
    "first, last and middle": lambda x: torch.cat([x[:, 0], x[:, -1], x[:, :, 3:7].mean(1)], -1),
    "extremes": lambda x: torch.cat([x.max(1).values, x.min(1).values, x.amax(1)], -1),
    "positions of extremes": lambda x: x.argmax(-1).float() + x.argmin(1).sum(-1, keepdim=True),
    "moments": lambda x: x.var(-1) + x.mean(-1) + x.std(-1, unbiased=False) + x.sum((-1,)),
    "running totals": lambda x: x.cumsum(1),
    "log-softmax": lambda x: torch.log_softmax(x, -1) + torch.softmax(x, 1),
    "positions": lambda x: x + torch.arange(x.shape[1]).float().unsqueeze(-1) / x.shape[1],
    "expansion": lambda x: torch.cat([x, x.mean(1, keepdim=True).expand(-1, x.shape[1], -1)], -1),
    "repetition": lambda x: x.repeat(1, 2, 1),
    "padding": lambda x: nn.functional.pad(x, (1, 2, 3, 0)),
    "causal mask": lambda x: torch.softmax(
        (x @ x.mT).masked_fill(torch.ones(x.shape[1], x.shape[1]).triu(1).bool(), -torch.inf), -1
    ),
    "causal attention": lambda x: nn.functional.scaled_dot_product_attention(
        x[:, None], x[:, None], x[:, None], is_causal=True
    ),
    "products": lambda x: torch.matmul(x.transpose(1, 2), x) + torch.bmm(x.mT, x),
    "gathering": lambda x: x.gather(1, (x > 0).long().cumsum(1).clamp(max=0)),
    "selection by index": lambda x: x[:, torch.zeros(3, dtype=torch.long)] + x.index_select(1, torch.tensor([0])),
}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_operators_equal_torch(name: str, tmp_path: Path) -> None:
    model = Function(FUNCTIONS[name])
    artifact = convert(model, tmp_path, ids=tokens(5))

    for length in (1, 3, 40) if name != "moments" else (2, 40):
        assert largest_error(model, artifact, ids=tokens(length)) <= 1e-4, length


class Places(nn.Module):
    """The numbers of the places that a row of booleans marks."""

    def forward(self, ids: Tensor) -> Tensor:
        return ids.float() * torch.arange(ids.shape[1]).float()  # (B, T)


def test_positions_along_booleans_equal_torch(tmp_path: Path) -> None:
    artifact = convert(Places(), tmp_path, ids=torch.ones(2, 5, dtype=torch.bool))

    for length in (1, 4, 40):
        assert largest_error(Places(), artifact, ids=torch.rand(2, length) < 0.5) == 0


@pytest.mark.parametrize("groups", [1, WIDTH])
def test_convolution_over_time_equals_torch(groups: int, tmp_path: Path) -> None:
    convolution = nn.Conv1d(WIDTH, 2 * WIDTH, 3, padding=2, dilation=2, groups=groups)
    model = Function(lambda x: convolution(x.mT).relu().amax(-1))
    model.convolution = convolution
    artifact = convert(model, tmp_path, ids=tokens(9))

    assert max(largest_error(model, artifact, ids=tokens(length)) for length in (2, 30)) <= 1e-4


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(width=st.integers(1, 40), layers=st.integers(1, 2), length=st.integers(1, 60), data=st.data())
def test_lstm_of_any_shape_equals_torch(
    tmp_path: Path, width: int, layers: int, length: int, data: st.DataObject
) -> None:
    model = Recurrent(width=width, layers=layers)
    artifact = convert(model, tmp_path, ids=tokens(3), lengths=torch.tensor([3, 2]))
    lengths = torch.tensor([data.draw(st.integers(1, length)) for _ in range(2)])

    assert largest_error(model, artifact, ids=tokens(length), lengths=lengths) <= 1e-5


def test_lstm_with_large_weights_equals_torch_within_and_beyond_its_blocks(tmp_path: Path) -> None:
    model = Recurrent(width=200, layers=2, bidirectional=False)
    artifact = convert(model, tmp_path, ids=tokens(7), lengths=torch.tensor([7, 3]))

    errors = {
        length: largest_error(model, artifact, ids=tokens(length), lengths=torch.tensor([length, (length + 1) // 2]))
        for length in (1, 16, 17, 64, 65, 130)
    }

    assert max(errors.values()) <= 1e-5, errors


class Stack(nn.Module):
    """Layers upon one another; every step's output and the states (B, L, H)."""

    def __init__(self, kind: type[nn.RNNBase], layers: int, width: int = WIDTH, **more: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.rnn = kind(WIDTH, width, layers, batch_first=True, **more)  # type: ignore[arg-type]  # of RNNBase's own

    def forward(self, ids: Tensor) -> tuple[Tensor, ...]:
        y, state = self.rnn(self.embed(ids))
        return y, *(s.transpose(0, 1) for s in (state if isinstance(state, tuple) else (state,)))


def while_loops(artifact: Artifact) -> int:
    model = schema.Model.GetRootAs(artifact.path.read_bytes())
    code = {model.OperatorCodes(i).BuiltinCode(): i for i in range(model.OperatorCodesLength())}
    graphs = [model.Subgraphs(i) for i in range(model.SubgraphsLength())]
    used = [g.Operators(i).OpcodeIndex() for g in graphs for i in range(g.OperatorsLength())]
    return used.count(code[schema.BuiltinOperator.WHILE])


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize("layers", [2, 3])
@pytest.mark.parametrize(("kind", "more"), [(nn.LSTM, {}), (nn.LSTM, {"proj_size": 5}), (nn.GRU, {}), (nn.RNN, {})])
def test_small_layers_that_share_a_loop_equal_torch(
    kind: type[nn.RNNBase], more: dict[str, int], layers: int, tmp_path: Path
) -> None:
    model = Stack(kind, layers, **more).eval()
    names = ("y", "h", "c") if kind is nn.LSTM else ("y", "h")
    captured = capture(model, {"ids": tokens(7)}, {"ids": {0: BATCH, 1: TIME}}, output_names=names)
    artifact = converters.convert(captured, "tflite", tmp_path, model="model")

    errors = {length: largest_error(model, artifact, ids=tokens(length)) for length in (1, 2, 16, 17, 65, 130, 2)}

    assert max(errors.values()) <= 1e-5, errors
    assert while_loops(artifact) == 3 * (layers - 1)  # of steps, of 16 and of 64 of them


class Chunks(nn.Module):
    """Two layers whose states (B, L, H) come from the last chunk of a sequence and go to the next."""

    def __init__(self, kind: type[nn.RNNBase], width: int = 64) -> None:
        super().__init__()
        self.rnn = kind(width, width, 2, batch_first=True)  # type: ignore[arg-type]  # of RNNBase's own

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        before = tuple(state.transpose(0, 1) for state in states)
        y, after = self.rnn(x, before if len(before) == 2 else before[0])
        return y, *(state.transpose(0, 1) for state in (after if isinstance(after, tuple) else (after,)))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_signatures_of_one_step_and_of_many_share_small_layers(kind: type[nn.RNNBase], tmp_path: Path) -> None:
    model, names = Chunks(kind).eval(), ("h", "c") if kind is nn.LSTM else ("h",)
    call = Call(
        name="many",
        method="forward",
        examples={"x": torch.randn(2, 5, 64)} | {name: torch.randn(2, 2, 64) for name in names},
        dynamic_shapes={"x": {0: BATCH, 1: TIME}} | {name: {0: BATCH} for name in names},
        output_names=("y", *(f"next_{name}" for name in names)),
        cases={"step": {"time": 1}},
    )
    artifact = converters.convert(capture_calls(model, (call,)), "tflite", tmp_path, model="model")
    session = runtimes.for_format("tflite").load(artifact.path, artifact.signatures, threads=1)
    held = sum(
        len(buffer.data)
        for buffer in schema.ModelT.InitFromPackedBuf(artifact.path.read_bytes(), 0).buffers
        if buffer.data is not None
    )

    for signature, length in (("step", 1), ("many", 1), ("many", 4)):
        given = {"x": torch.randn(1, length, 64)} | {name: torch.randn(1, 2, 64) for name in names}
        actual = session.run({name: value.numpy() for name, value in given.items()}, signature)
        for mine, expected in zip(actual.values(), model(*given.values()), strict=True):
            np.testing.assert_allclose(mine, expected.detach().numpy(), atol=1e-5)
    assert held <= 1.1 * sum(parameter.numel() * 4 for parameter in model.parameters())


def test_wide_layers_have_loops_of_their_own(tmp_path: Path) -> None:
    made = {}
    for width in (128, 192):
        captured = capture(Stack(nn.LSTM, 2, width).eval(), {"ids": tokens(7)}, {"ids": {0: BATCH, 1: TIME}})
        made[width] = while_loops(converters.convert(captured, "tflite", tmp_path / str(width), model="model"))

    assert made == {128: 3, 192: 6}


def test_outputs_that_nobody_reads_are_not_collected(tmp_path: Path) -> None:
    class LastState(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.lstm = nn.Embedding(VOCABULARY, WIDTH), nn.LSTM(WIDTH, 8, batch_first=True)

        def forward(self, ids: Tensor) -> Tensor:
            last: Tensor = self.lstm(self.embed(ids))[1][0][-1]
            return last

    with_outputs = convert(
        Recurrent(bidirectional=False), tmp_path / "all", ids=tokens(5), lengths=tokens(1)[:, 0].clamp(1, 5)
    )
    without = convert(LastState(), tmp_path / "last", ids=tokens(5))

    subgraphs = [Interpreter(str(artifact.path)).num_subgraphs() for artifact in (with_outputs, without)]
    assert subgraphs == [7, 3]  # the model, then condition and body of each loop: two of blocks, one of steps


def test_rows_that_are_masked_altogether_give_numbers(files: Files) -> None:
    _, artifact = files["encoder"]
    session = runtimes.get("litert").load(artifact.path, artifact.signatures, threads=1)

    logits = session.run({"ids": np.zeros((1, 5), np.int32)})["logits"]

    assert np.isfinite(logits).all()


@pytest.mark.parametrize("scheme", quantize.get("tflite").schemes)
@pytest.mark.parametrize("kind", ["recurrent", "encoder"])
def test_every_scheme_stays_near_float32(scheme: str, kind: str, files: Files, tmp_path: Path) -> None:
    model, original = files[kind]
    parsed = Scheme.parse(scheme)
    lengths = {"lengths": torch.tensor([20, 9])} if kind == "recurrent" else {}

    artifact = quantize.quantize(original, parsed, tmp_path)

    tolerance = 1e-2 if parsed.mode == "float" else 8 * 2.0 ** (1 - parsed.weight_bits)
    assert largest_error(model, artifact, ids=tokens(20), **lengths) <= tolerance
    assert artifact.size_bytes < original.size_bytes * (0.3 + parsed.weight_bits / 32)


def test_recurrent_weights_and_embeddings_are_integers_under_a_dynamic_scheme(files: Files, tmp_path: Path) -> None:
    artifact = quantize.quantize(files["recurrent"][1], Scheme.parse("dynamic_wi8_afp32"), tmp_path)
    interpreter = Interpreter(str(artifact.path))

    stored = {
        detail["name"]: detail["dtype"]
        for index in range(interpreter.num_subgraphs())
        for detail in interpreter.get_tensor_details(index)
    }

    names = ("embed.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.weight_hh_l0_reverse", "head.weight")
    assert {stored[name] for name in names} == {np.int8}


def test_the_file_is_deterministic_and_weights_are_stored_once(tmp_path: Path) -> None:
    model = Recurrent(width=64)
    inputs = {"ids": tokens(20), "lengths": torch.tensor([20, 9])}

    first, second = (convert(model, tmp_path / name, **inputs) for name in "ab")

    assert first.sha256 == second.sha256
    parameters = sum(p.numel() * 4 for p in model.parameters())
    assert first.size_bytes < parameters + 40_000


def test_equal_parts_are_stored_once_and_nothing_else_changes(files: Files, tmp_path: Path) -> None:
    artifact = quantize.quantize(files["recurrent"][1], Scheme.parse("dynamic_wi8_afp32"), tmp_path)
    data = artifact.path.read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
    scales = [t.quantization.scale for g in model.subgraphs for t in g.tensors if t.quantization is not None]
    named = {t.name for g in model.subgraphs for t in g.tensors}

    assert data == tflite_file.repack(data)
    assert data.count(np.zeros(max(map(len, scales)), np.int64).tobytes()) == 1  # zero points of the widest weight
    assert {b"embed.weight", b"lstm.weight_ih_l0", b"head.weight"} <= named
    assert all(not name.rpartition(b"_")[2].isdigit() for name in named if b";" in name)
    assert {(buffer.ctypes.data - np.frombuffer(data, np.uint8).ctypes.data) % 16 for buffer in buffers(data)} == {0}


def buffers(data: bytes) -> list[np.ndarray]:
    model = schema.Model.GetRootAs(data)
    found = (model.Buffers(i) for i in range(model.BuffersLength()))
    return [buffer.DataAsNumpy() for buffer in found if buffer.DataLength()]


def test_quantized_files_are_deterministic(files: Files, tmp_path: Path) -> None:
    original, scheme = files["encoder"][1], Scheme.parse("dynamic_wi8_afp32")

    hashes = {quantize.quantize(original, scheme, tmp_path / name).sha256 for name in "ab"}

    assert len(hashes) == 1


def test_blocks_that_do_not_divide_a_width_are_refused_with_the_reason(tmp_path: Path) -> None:
    original = convert(Function(nn.Linear(WIDTH, 8).forward), tmp_path / "fp32", ids=tokens(5))
    narrow = convert(Encoder(width=24), tmp_path / "narrow", ids=tokens(5))

    quantize.quantize(original, Scheme.parse("dynamic_wi4b32_afp32"), tmp_path / "fits")
    with pytest.raises(ConversionError, match="block size 32"):
        quantize.quantize(narrow, Scheme.parse("dynamic_wi4b32_afp32"), tmp_path / "refused")


def test_signature_names_and_types_are_those_of_the_model(tmp_path: Path) -> None:
    artifact = convert(Recurrent(), tmp_path, ids=tokens(7), lengths=torch.tensor([7, 3]))

    interpreter = Interpreter(str(artifact.path))
    runner = interpreter.get_signature_runner("forward")

    assert {name: detail["dtype"] for name, detail in runner.get_input_details().items()} == {
        "ids": np.int32,
        "lengths": np.int32,
    }
    assert sorted(runner.get_output_details()) == ["c", "h", "logits"]
    assert runner.get_input_details()["ids"]["shape_signature"].tolist() == [1, -1]


def test_all_missing_operators_are_named_before_anything_is_written(tmp_path: Path) -> None:
    model = Function(lambda x: torch.linalg.inv(x.mT @ x) + torch.lgamma(x).sum())

    with pytest.raises(UnsupportedError, match="lgamma") as caught:
        convert(model, tmp_path, ids=tokens(7))

    assert "inv" in str(caught.value)
    assert not list(tmp_path.glob("*.tflite"))


def test_the_batch_is_a_dimension_that_is_only_ever_first() -> None:
    def signature(**shapes: tuple[int | str, ...]) -> Signature:
        specs = tuple(TensorSpec(name=name, dtype="float32", shape=shape) for name, shape in shapes.items())
        states = tuple(State(input=spec.name, output=spec.name) for spec in specs if spec.name == "h")
        return Signature(inputs=specs, outputs=specs, states=states)

    assert batch_dimensions(signature(ids=("n", "t"), lengths=("n",), h=(2, "n", 8))) == {"n"}
    assert batch_dimensions(signature(x=("t", 3), y=(3, "t"))) == frozenset()
