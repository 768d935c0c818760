"""The files of a Hugging Face folder: found, checked, and refused where they could run code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeseq import lookup
from edgeseq.errors import RequestError
from edgeseq.sources.hugging_face.families import FAMILIES

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
RESAVE = "load it where you trust it and save_pretrained(FOLDER) of transformers writes one"


def is_like_one(path: Path) -> bool:
    """Whether the folder holds what such folders hold, complete or not."""
    marks = (CONFIG, "adapter_config.json", "*.safetensors", "pytorch_model*.bin")
    return path.is_dir() and any(True for mark in marks for _ in path.glob(mark))


def configuration(path: Path) -> dict[str, Any]:
    """The content of config.json, of a type that is converted.

    Raises:
        RequestError: It is missing, damaged, or describes something that is not converted.
    """
    if (path / "adapter_config.json").exists():
        raise RequestError(
            f"folder '{path}' holds an adapter; merge it into its model (merge_and_unload() of peft) and save that"
        )
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RequestError(f"folder '{path}' has no {CONFIG}, which says what its weights are; {RESAVE}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"'{path / CONFIG}' cannot be read: {error}") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(kind, str):
        raise RequestError(f"'{path / CONFIG}' names no model_type; known: {', '.join(sorted(FAMILIES))}")
    if kind not in FAMILIES:
        raise lookup.unknown("model_type", kind, FAMILIES)
    if config.get("quantization_config"):
        method = config["quantization_config"]
        name = method.get("quant_method", "somehow") if isinstance(method, dict) else method
        raise RequestError(f"'{path}' is quantized already ({name}); give the original, and a --scheme")
    return config


def weights(path: Path) -> list[Path]:
    """The safetensors files, each with a readable header.

    Raises:
        RequestError: There are none, one is missing or damaged, or they are pickles.
    """
    files = [path / name for name in _names(path)]
    for file in files:
        check_header(file)
    return files


def _names(path: Path) -> list[str]:
    if (path / INDEX).is_file():
        names = sorted(set(_shards(path / INDEX).values()))
        missing = [name for name in names if not (path / name).is_file()]
        if missing:
            raise RequestError(
                f"folder '{path}' lacks {len(missing)} of its {len(names)} weight files: {', '.join(missing)}; "
                "download them again"
            )
        return names
    if (path / WEIGHTS).is_file():
        return [WEIGHTS]
    pickles = sorted(file.name for pattern in PICKLES for file in path.glob(pattern))
    if pickles:
        raise RequestError(
            f"folder '{path}' has its weights in '{pickles[0]}' only, a format that can run code when it is read; "
            f"{WEIGHTS} is wanted: {RESAVE}"
        )
    raise RequestError(f"folder '{path}' has no {WEIGHTS} and no {INDEX}; {RESAVE}")


def _shards(index: Path) -> Mapping[str, str]:
    """Tensor -> file, of an index."""
    try:
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        valid = bool(shards) and all(isinstance(name, str) and Path(name).name == name for name in shards.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RequestError(f"'{index}' cannot be read: {error!r}; download it again") from error
    if not valid:
        raise RequestError(f"'{index}' names no weight files, or files outside of its folder; download it again")
    return dict(shards)


def check_header(file: Path) -> None:
    """Refuse a file that is no safetensors file, or whose end is missing."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise RequestError(f"'{file}' is damaged or no safetensors file: {error}; download it again") from error
