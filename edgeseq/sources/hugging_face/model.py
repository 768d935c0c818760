"""From a Hugging Face folder to a transformers model, and to its captured signatures.

Only config.json and the safetensors files are handed to transformers, as values: given the folder itself, it would also look
for adapters, pickled checkpoints, other files that config.json names, and kernels to download.
"""

import importlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from edgeseq import lookup
from edgeseq.capture import Call
from edgeseq.errors import RequestError
from edgeseq.sources import Loaded, _usage
from edgeseq.sources._usage import Usage
from edgeseq.sources.hugging_face import folder, generating, inputs
from edgeseq.sources.hugging_face.families import FAMILIES, Family
from edgeseq.sources.hugging_face.inputs import BENCH, EXAMPLE, UNSEEN

LISTED = 3  # tensors that an error names
# What a config.json may say of how and from where to load, which is decided here.
UNREAD = (
    "auto_map", "attn_implementation", "_attn_implementation", "experts_implementation", "fusion_config", "dtype",
    "torch_dtype", "transformers_weights", "_name_or_path", "name_or_path", "use_cache", "return_dict",
    "output_attentions", "output_hidden_states", "torchscript",
)  # fmt: skip


def load(path: Path, *, forward_only: bool = False) -> Loaded:
    """The folder's model, captured: one that generates text with caches, unless only its `forward` is asked for."""
    config = folder.configuration(path)
    model, family = pretrained(path, config), FAMILIES[config["model_type"]]
    generates = model.can_generate() and family.kind != "image" and not forward_only
    usages = generating.usages(model, family) if generates else [usage(model, family)]
    return _usage.load(usages, values="random tokens, pixels or frames")


def usage(model: Any, family: Family) -> Usage:
    """How the whole of a model is called at once."""
    feeds = inputs.of(model.config, family)
    example = inputs.within(feeds.shapes, EXAMPLE)
    return Usage(
        module=model,
        call=Call(examples=feeds.draw(example, np.random.default_rng(0)), dynamic_shapes=feeds.shapes, by_name=True),
        draw=feeds.draw,
        unseen=inputs.all_within(feeds.shapes, UNSEEN),
        bench=inputs.within(feeds.shapes, BENCH),
    )


def pretrained(path: Path, config: Mapping[str, Any]) -> Any:
    """The model in float32 with the folder's weights, all of them.

    Raises:
        RequestError: The configuration is wrong, or the weights are not those of it.
    """
    logging.getLogger("transformers").setLevel(logging.ERROR)
    architecture = _architecture(path, config)
    state: dict[str, Tensor] = {}
    for file in folder.weights(path):
        state |= load_file(file)
    try:
        parsed = CONFIG_MAPPING[config["model_type"]].from_dict({k: v for k, v in config.items() if k not in UNREAD})
        parsed.use_cache, parsed.return_dict = False, True
        model, loading = architecture.from_pretrained(
            None,
            config=parsed,
            state_dict=state,
            dtype=torch.float32,
            attn_implementation="sdpa",
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # transformers raises anything on values that do not fit together
        raise RequestError(f"'{path}' cannot be loaded as {architecture.__name__}: {_first_line(error)}") from error
    missing = sorted(loading["missing_keys"])
    if missing:
        listed = ", ".join(missing[:LISTED]) + (", …" if len(missing) > LISTED else "")
        raise RequestError(
            f"the weights in '{path}' are not those of {architecture.__name__}: {len(missing)} tensors are missing "
            f"({listed}); name the class that was saved in 'architectures' of config.json"
        )
    return model.eval()


def _architecture(path: Path, config: Mapping[str, Any]) -> Any:
    """The class that config.json names: one of transformers' own, of the same model type; the base model if it names none.

    Raises:
        RequestError: It names another.
    """
    config_class = CONFIG_MAPPING[config["model_type"]]
    named = config.get("architectures")
    if not named:
        return transformers.AutoModel._model_mapping[config_class]
    name = named[0] if isinstance(named, list) else named
    found = getattr(transformers, name, None) if isinstance(name, str) and name.isidentifier() else None
    if not isinstance(found, type) or getattr(found, "config_class", None) is not config_class:
        own = importlib.import_module(config_class.__module__.replace(".configuration_", ".modeling_")).__all__
        known = [name for name in own if not name.endswith("PreTrainedModel")]
        raise lookup.unknown(f"architecture of model_type '{config['model_type']}'", str(name), known)
    return found


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
