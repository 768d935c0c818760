"""Keras files: what they become computes what Keras computes; what could run code is refused."""

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeseq import converters, sources
from edgeseq.devices import runtimes
from edgeseq.errors import RequestError
from edgeseq.sources.keras import check

os.environ["KERAS_BACKEND"] = "torch"  # read when Keras is imported
keras = pytest.importorskip("keras")
layers = keras.layers

SHAPES = ((1, 4), (3, 7), (2, 40))  # batch and length; the capture saw 2 and 12
pytestmark = pytest.mark.filterwarnings("ignore")  # Keras and torch.export warn of their own parts


def tokens(*rest: Any, mask_zero: bool = False) -> Any:
    embedding = layers.Embedding(50, 8, mask_zero=mask_zero)
    return keras.Sequential([keras.Input((None,), dtype="int32", name="tokens"), embedding, *rest])


def attention() -> Any:
    x = keras.Input((None, 8), name="x")
    y = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4)(x, x))
    return keras.Model(x, {"scores": layers.Dense(3)(layers.GlobalAveragePooling1D()(y))})


MODELS: dict[str, Callable[[], Any]] = {
    "dense": lambda: keras.Sequential(
        [keras.Input((8,), name="x"), layers.Dense(6, "relu"), layers.Dense(3, "softmax")]
    ),
    "lstm": lambda: tokens(layers.LSTM(5, return_sequences=True), layers.LSTM(4, use_bias=False), layers.Dense(3)),
    "backwards": lambda: tokens(layers.LSTM(5, return_sequences=True, go_backwards=True), layers.Dense(3)),
    "bidirectional": lambda: tokens(
        layers.Bidirectional(layers.LSTM(5, return_sequences=True)),
        layers.Bidirectional(layers.LSTM(4), merge_mode="sum"),
        layers.Dense(3),
    ),
    "gru": lambda: tokens(layers.GRU(5, return_sequences=True), layers.Bidirectional(layers.GRU(4)), layers.Dense(3)),
    "gru_reset_before": lambda: tokens(
        layers.GRU(5, return_sequences=True, reset_after=False),
        layers.Bidirectional(layers.GRU(4, reset_after=False, use_bias=False)),
        layers.Dense(3),
    ),
    "attention": attention,
    "masked": lambda: tokens(
        layers.LSTM(5, return_sequences=True),
        layers.GRU(4, return_sequences=True, go_backwards=True),
        layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
        layers.GRU(3, reset_after=False),
        layers.Dense(3),
        mask_zero=True,
    ),
    "masked_features": lambda: keras.Sequential(
        [keras.Input((None, 6), name="x"), layers.Masking(0.0), layers.Bidirectional(layers.GRU(4)), layers.Dense(3)]
    ),
}


def build(name: str) -> Any:
    """The model with every weight drawn, biases included: zeros would hide their order."""
    model = MODELS[name]()
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.5, weight.shape) for weight in model.get_weights()])
    return model


@pytest.mark.parametrize("name", MODELS)
def test_a_keras_model_computes_what_keras_computes(name: str, tmp_path: Path) -> None:
    model = build(name)
    model.save(tmp_path / "mine.keras")

    loaded = sources.get(sources.find(tmp_path / "mine.keras")).load(tmp_path / "mine.keras", "mine")
    artifact = converters.convert(loaded.captured, "tflite", tmp_path / "out", model="mine")

    session = runtimes.for_format("tflite").load(artifact.path, artifact.signatures, threads=1)
    (spec,) = artifact.signatures[0].inputs
    for batch, length in SHAPES:
        fed = feed(spec.shape, spec.dtype, batch, length, is_padded="masked" in name)
        with torch.no_grad():
            result = model(fed)
        expected = (result["scores"] if isinstance(result, dict) else result).numpy()
        (actual,) = session.run({spec.name: fed}).values()
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def feed(shape: tuple[int | str, ...], dtype: str, batch: int, length: int, *, is_padded: bool = False) -> np.ndarray:
    """Random tokens or features; rows of different lengths if padded, one of them empty."""
    sizes = [size if isinstance(size, int) else {"batch": batch, "time": length}[size] for size in shape]
    rng = np.random.default_rng((batch, length))
    low = 1 if is_padded else 0
    values = rng.integers(low, 50, sizes) if dtype == "int32" else rng.normal(0, 1, sizes)
    for row in range(1, batch if is_padded else 1):
        values[row, length // 2 * (2 - row) :] = 0
    return values.astype(dtype)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "coreml"])
@pytest.mark.parametrize("name", MODELS)
def test_a_keras_model_computes_the_same_in_other_formats(name: str, format: str, tmp_path: Path) -> None:
    build(name).save(tmp_path / "mine.keras")

    loaded = sources.get("keras").load(tmp_path / "mine.keras", "mine")
    artifact = converters.convert(loaded.captured, format, tmp_path / "out", model="mine")

    session = runtimes.for_format(format).load(artifact.path, artifact.signatures, threads=1)
    for case in loaded.cases:
        actual = session.run(case.inputs)
        for key, expected in case.outputs.items():
            np.testing.assert_allclose(actual[key], expected, atol=1e-5)


def test_recurrent_layers_stay_whole(tmp_path: Path) -> None:
    build("bidirectional").save(tmp_path / "mine.keras")

    loaded = sources.get("keras").load(tmp_path / "mine.keras", "mine")

    (program,) = loaded.captured.programs.values()
    assert sum(node.target is torch.ops.edgeseq.lstm.default for node in program.graph.nodes) == 4


def test_recurrent_layer_that_no_format_has_is_refused(tmp_path: Path) -> None:
    tokens(layers.LSTM(4, activation="relu")).save(tmp_path / "mine.keras")

    with pytest.raises(RequestError, match="other activations than tanh and sigmoid"):
        sources.get("keras").load(tmp_path / "mine.keras", "mine")


# What could run code.


def edited(path: Path, edit: Callable[[str], str]) -> Path:
    """The file with another description in it."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["config.json"] = edit(files["config.json"].decode()).encode()
    target = path.with_name("edited.keras")
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keras") / "mine.keras"
    build("dense").save(path)
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"class_name": "Dense"', '"class_name": "Lambda"', "there is no convertible Keras layer 'Lambda'"),
        (
            '"class_name": "Dense"',
            '"class_name": "TorchModuleWrapper"',
            "no convertible Keras layer 'TorchModuleWrapper'",
        ),
        ('"module": "keras.layers"', '"module": "os"', r"would have Keras build 'os\.\w+', which could run code"),
        ('"module": "keras.initializers"', '"module": "keras.utils"', r"would have Keras build 'keras\.utils\."),
        ('"registered_name": null', '"registered_name": "mine>Thing"', "needs the class 'mine>Thing'"),
        (
            '"activation": "relu"',
            '"activation": {"class_name": "__lambda__"}',
            r"would have Keras build 'None\.__lambda__'",
        ),
    ],
)
def test_file_that_could_run_code_is_refused(saved: Path, old: str, new: str, message: str) -> None:
    def edit(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    with pytest.raises(RequestError, match=message):
        check(edited(saved, edit))


def test_what_it_was_trained_with_is_not_read(saved: Path) -> None:
    check(edited(saved, lambda text: json.dumps(json.loads(text) | {"compile_config": {"class_name": "Mine"}})))


def test_what_a_part_was_trained_with_is_checked(tmp_path: Path) -> None:
    """Keras builds it, whatever it is told about the whole."""
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(3)])
    keras.Sequential([keras.Input((8,), name="x"), inner]).save(tmp_path / "nested.keras")

    def trained(text: str) -> str:
        config = json.loads(text)
        part = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Sequential")
        part["compile_config"] = {"optimizer": {"module": "os", "class_name": "system", "config": {}}}
        return json.dumps(config)

    check(tmp_path / "nested.keras")
    with pytest.raises(RequestError, match=r"would have Keras build 'os\.system', which could run code"):
        check(edited(tmp_path / "nested.keras", trained))


def test_model_without_the_shape_of_its_inputs_is_refused(tmp_path: Path) -> None:
    keras.Sequential([layers.Dense(3)]).save(tmp_path / "mine.keras")

    with pytest.raises(RequestError, match="does not know the shape of its inputs; begin it with"):
        sources.get("keras").load(tmp_path / "mine.keras", "mine")


@pytest.mark.parametrize("kept", [0, 100, -20])
def test_damaged_file_is_refused(saved: Path, kept: int, tmp_path: Path) -> None:
    path = tmp_path / "damaged.keras"
    path.write_bytes(saved.read_bytes()[:kept])

    with pytest.raises(RequestError, match=r"damaged\.keras' is no file of Keras 3, or is damaged"):
        check(path)
