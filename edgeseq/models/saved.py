"""A trained model on disk: `model.json` says what to build, `weights.safetensors` what to fill it with."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from edgeseq import models
from edgeseq.errors import RequestError
from edgeseq.models.classifier import Classifier

WEIGHTS = "weights.safetensors"


def save(model: Classifier, architecture: str, folder: Path) -> None:
    """Write a model that `edgeseq.models.build` made."""
    description = {"architecture": architecture, "options": asdict(model.spec)}
    (folder / "model.json").write_text(json.dumps(description, indent=1))
    save_file({key: value.contiguous().cpu() for key, value in model.state_dict().items()}, folder / WEIGHTS)


def load(folder: Path) -> Classifier:
    """The model, in eval mode.

    Raises:
        RequestError: The folder holds no trained model.
    """
    try:
        description: Mapping[str, Any] = json.loads((folder / "model.json").read_text())
    except FileNotFoundError as error:
        raise RequestError(f"'{folder}' holds no trained model: model.json is missing") from error
    model = models.build(description["architecture"], description["options"])
    model.load_state_dict(load_file(folder / WEIGHTS))
    return model.eval()


def parameter_count(model: nn.Module) -> int:
    """Trainable and frozen parameters, shared ones once."""
    return sum(p.numel() for p in model.parameters())
