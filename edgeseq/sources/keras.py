"""A `.keras` file of Keras 3, through Keras' torch backend. Layers are Keras' own; code and pickles in the file are refused."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeseq.errors import RequestError
from edgeseq.lookup import missing_package, unknown
from edgeseq.sources import Loaded, Source, file_name

CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
# Those that read no file and run no code of the file's.
LAYERS = frozenset({
    "InputLayer", "Dense", "Embedding", "LSTM", "GRU", "Bidirectional", "MultiHeadAttention", "Attention",
    "AdditiveAttention", "Dropout", "SpatialDropout1D", "GaussianNoise", "Activation", "ReLU", "LeakyReLU", "ELU",
    "PReLU", "Softmax", "LayerNormalization", "BatchNormalization", "RMSNormalization", "UnitNormalization", "Add",
    "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot", "Flatten", "Reshape", "Permute",
    "RepeatVector", "GlobalAveragePooling1D", "GlobalMaxPooling1D", "AveragePooling1D", "MaxPooling1D", "Conv1D",
    "DepthwiseConv1D", "SeparableConv1D", "ZeroPadding1D", "Identity", "Rescaling", "Masking",
})  # fmt: skip
MODELS = frozenset({"Sequential", "Functional", "DTypePolicy"})
PARTS = (
    "keras.initializers", "keras.regularizers", "keras.constraints", "keras.dtype_policies",
    "keras.src.ops.numpy", "keras.src.ops.nn",
)  # fmt: skip
VALUES = frozenset({"__keras_tensor__", "__tensor__", "__numpy__"})


class KerasSource(Source):
    takes = "a .keras file of Keras 3"

    def is_mine(self, path: Path) -> bool:
        return path.suffix == ".keras" and path.is_file()

    def models(self, path: Path) -> tuple[str, ...]:
        """The file's name, after everything that it would have Keras build was checked."""
        check(path)
        return (file_name(path.resolve().stem),)

    def load(self, path: Path, model: str, *, forward_only: bool = False) -> Loaded:
        del model, forward_only
        check(path)
        try:
            from edgeseq.sources import _keras  # loads torch and keras
        except ModuleNotFoundError as error:
            raise missing_package(error, wanted_by="source 'keras'", extra="keras") from error
        return _keras.load(path)


def check(path: Path) -> None:
    """Refuse a file that is damaged, or that describes anything but Keras' own layers.

    Raises:
        RequestError: With the first thing that is refused.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read(CONFIG))
            archive.getinfo(WEIGHTS)
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, RecursionError) as error:
        raise RequestError(
            f"'{path}' is no file of Keras 3, or is damaged: {error}; model.save('NAME.keras') writes one"
        ) from error
    for part in _described(config):
        _check_part(part, path)


def _check_part(part: dict[str, Any], path: Path) -> None:
    name, module, registered = str(part["class_name"]), part.get("module"), part.get("registered_name")
    if name in VALUES:
        return
    if registered is not None and ">" in str(registered):
        raise RequestError(
            f"'{path}' needs the class '{registered}', which is not Keras' own; give a script that has it"
        )
    if module == "keras.layers":
        if name not in LAYERS:
            raise unknown("convertible Keras layer", name, LAYERS)
        return
    is_model = str(module).split(".")[0] == "keras" and name in MODELS
    if not is_model and module not in PARTS:
        raise RequestError(
            f"'{path}' would have Keras build '{module}.{name}', which could run code; replace it by layers of Keras, or "
            "give a script"
        )


def _described(config: Any) -> Iterator[dict[str, Any]]:
    """Everything that the file says by class; what the whole was trained with, but not its parts, Keras leaves out."""
    pending = [{**config, "compile_config": None} if isinstance(config, dict) else config]
    while pending:
        current = pending.pop()
        if isinstance(current, dict):
            if "class_name" in current:
                yield current
            pending.extend(current.values())
        elif isinstance(current, list):
            pending.extend(current)


SOURCE = KerasSource()
