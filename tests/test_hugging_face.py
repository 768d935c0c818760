"""Hugging Face folders: what they become computes what transformers computes; what is wrong with one is said in a line."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeseq import cli, converters, sources
from edgeseq.devices import runtimes
from edgeseq.errors import RequestError
from edgeseq.sources import Loaded
from edgeseq.sources.hugging_face import inputs
from edgeseq.sources.hugging_face.families import FAMILIES
from tests import pretrained

SIZES = ((1, 4), (2, 13), (4, 30))  # batch and length; the capture saw 2 and 12
IN_EVERY_FORMAT = ("BertForSequenceClassification", "MobileBertForSequenceClassification", "ViTForImageClassification")
TAKES_LONG = ("MarianMTModel", "OPTForCausalLM", "T5ForConditionalGeneration", "WhisperForConditionalGeneration")


def marks(name: str, format: str) -> list[pytest.MarkDecorator]:
    """What takes long is slow."""
    is_quick = name in IN_EVERY_FORMAT or (format == "tflite" and name not in TAKES_LONG)
    return [] if is_quick else [pytest.mark.slow]


CASES = [
    pytest.param(name, format, marks=marks(name, format))
    for name in pretrained.MODELS
    for format in ("tflite", "onnx", "coreml")
]
pytestmark = pytest.mark.filterwarnings("ignore")  # transformers and torch.export warn of themselves


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Each model's folder, saved when it is first asked for."""
    root = tmp_path_factory.mktemp("pretrained")

    def folder(architecture: str) -> Path:
        path = root / architecture
        return path if path.exists() else pretrained.saved(architecture, path)

    return folder


@pytest.fixture(scope="module")
def loaded(folders: Any) -> Any:
    """Each model, captured when it is first asked for."""
    known: dict[str, Loaded] = {}

    def load(architecture: str) -> Loaded:
        if architecture not in known:
            path = folders(architecture)
            assert sources.find(path) == "hugging_face"
            known[architecture] = sources.get("hugging_face").load(path, architecture, forward_only=True)
        return known[architecture]

    return load


def feeds(inputs: list[str], batch: int, length: int) -> dict[str, torch.Tensor]:
    """Inputs of these names, every row but the first padded at its end."""
    rng = np.random.default_rng((batch, length))
    ids = torch.from_numpy(rng.integers(3, pretrained.VOCABULARY - 1, (batch, length)))
    mask = torch.ones(batch, length, dtype=torch.int64)
    for row in range(1, batch):
        mask[row, max(1, length - 2 * row) :] = 0
    every = {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": (torch.arange(length) >= length // 2).long().expand(batch, -1),
        "pixel_values": torch.from_numpy(rng.standard_normal((batch, 3, 16, 16), dtype=np.float32)),
        "decoder_input_ids": ids[:, : length // 2].flip(1),
        "input_features": torch.from_numpy(rng.standard_normal((batch, 8, 40), dtype=np.float32)),
    }
    return {name: every[name] for name in inputs}


@pytest.mark.parametrize(("architecture", "format"), CASES)
def test_a_pretrained_model_computes_what_transformers_computes(
    architecture: str, format: str, loaded: Any, tmp_path: Path
) -> None:
    captured = loaded(architecture).captured
    (signature,) = captured.signatures
    model = pretrained.build(architecture)

    artifact = converters.convert(captured, format, tmp_path, model="model")

    session = runtimes.for_format(format).load(artifact.path, artifact.signatures, threads=1)
    for batch, length in SIZES:
        fed = feeds([spec.name for spec in signature.inputs], batch, length)
        with torch.no_grad():
            expected = model(**fed)
        numbers = {key: (x.int() if x.dtype == torch.int64 else x).numpy() for key, x in fed.items()}
        actual = session.run(numbers)
        for spec in signature.outputs:
            np.testing.assert_allclose(actual[spec.name], expected[spec.name].numpy(), atol=1e-4, err_msg=spec.name)


def test_inputs_and_outputs_have_the_names_of_transformers(loaded: Any) -> None:
    (signature,) = loaded("BertForSequenceClassification").captured.signatures
    (encoder,) = loaded("BertModel").captured.signatures
    (answering,) = loaded("AlbertForQuestionAnswering").captured.signatures

    assert [spec.name for spec in signature.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    assert [spec.name for spec in signature.outputs] == ["logits"]
    assert [spec.name for spec in encoder.outputs] == ["last_hidden_state", "pooler_output"]
    assert [spec.name for spec in answering.outputs] == ["start_logits", "end_logits"]
    assert signature.dims[1].max == 64


def test_positions_after_the_padding_bound_the_length(loaded: Any) -> None:
    (signature,) = loaded("RobertaForSequenceClassification").captured.signatures

    assert signature.dims[1].max == 64 - 2


@pytest.mark.parametrize("padding", [None, -1])
def test_tokens_without_a_padding_are_tokens(padding: int | None) -> None:
    """Some configurations say by -1 that there is none."""
    config = pretrained.build("BertModel").config
    config.pad_token_id = padding
    feeds = inputs.of(config, FAMILIES["bert"])

    drawn = feeds.draw({"batch": 3, "time": 9}, np.random.default_rng(0))["input_ids"]

    assert 0 <= drawn.min() < drawn.max() < config.vocab_size


def test_its_cases_have_padding_and_sizes_that_the_capture_never_saw(loaded: Any) -> None:
    cases = loaded("BertForSequenceClassification").cases
    parity = [case for case in cases if case.kind == "parity"]

    assert len({case.inputs["input_ids"].shape for case in parity}) == len(parity) >= 4
    assert any((case.inputs["attention_mask"] == 0).any() for case in parity)
    assert [case.inputs["input_ids"].shape for case in cases if case.kind == "bench"] == [(1, 64)]


def test_shards_are_read_as_one_file_is(folders: Any, tmp_path: Path) -> None:
    model = pretrained.build("BertForSequenceClassification")
    model.save_pretrained(tmp_path / "sharded", max_shard_size="4KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1

    loaded = sources.get("hugging_face").load(tmp_path / "sharded", "sharded")

    case = loaded.cases[0]
    with torch.no_grad():
        expected = model(**{key: torch.from_numpy(value).long() for key, value in case.inputs.items()}).logits
    np.testing.assert_allclose(case.outputs["logits"], expected.numpy(), atol=1e-6)


# What is wrong with a folder.


@pytest.fixture
def folder(folders: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders("BertForSequenceClassification"), tmp_path / "mine"))


def edited(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the command says, with exit code 2 and no folder left."""
    out = folder.parent / "out"
    capsys.readouterr()
    code = cli.main(["convert", str(folder), "--output", str(out), "--format", "tflite", "--scheme", "fp32"])
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert len(lines) == 1, lines
    assert not out.exists()
    return lines[0].removeprefix("edgeseq: ")


def test_folder_without_config_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "config.json").unlink()

    assert "has no config.json, which says what its weights are; load it" in refused(folder, capsys)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"model_type": "distil-bert"},
            "there is no model_type 'distil-bert'; did you mean 'distilbert'? known: albert, bart",
        ),
        ({"model_type": None}, "names no model_type; known: albert, bart, bert"),
        (
            {"quantization_config": {"quant_method": "gptq"}},
            "is quantized already (gptq); give the original, and a --scheme",
        ),
    ],
)
def test_configuration_that_is_not_converted_is_refused(
    folder: Path, values: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edited(folder, **values)

    assert message in refused(folder, capsys)


@pytest.mark.parametrize("text", ["{", "[]", "", '"bert"'])
def test_damaged_configuration_is_refused(folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "config.json").write_text(text)

    assert "config.json'" in refused(folder, capsys)


def test_pickled_weights_are_refused_with_what_to_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    line = refused(folder, capsys)

    assert "has its weights in 'pytorch_model.bin' only, a format that can run code when it is read" in line
    assert "save_pretrained(FOLDER)" in line


def test_missing_shard_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "sharded"
    pretrained.build("BertForSequenceClassification").save_pretrained(folder, max_shard_size="4KB")
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.unlink()

    assert f"weight files: {shard.name}; download them again" in refused(folder, capsys)


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_damaged_weights_are_refused(folder: Path, kept: int, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])

    assert "model.safetensors' is damaged or no safetensors file" in refused(folder, capsys)


def test_index_that_points_outside_of_its_folder_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = {"weight_map": {"a": "../other.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    assert "or files outside of its folder" in refused(folder, capsys)


def test_adapter_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "adapter_config.json").write_text("{}")

    assert "holds an adapter; merge it into its model" in refused(folder, capsys)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"architectures": ["BertForSequenceClasification"]}, "did you mean 'BertForSequenceClassification'?"),
        ({"architectures": ["GPT2LMHeadModel"]}, "there is no architecture of model_type 'bert' 'GPT2LMHeadModel'"),
        ({"architectures": ["BertForQuestionAnswering"]}, "tensors are missing (qa_outputs.bias, qa_outputs.weight)"),
        ({"hidden_size": 24, "num_attention_heads": 3}, "cannot be loaded as BertForSequenceClassification"),
        ({"hidden_size": "wide"}, "cannot be loaded as BertForSequenceClassification"),
    ],
)
def test_weights_that_do_not_fit_the_configuration_are_refused(
    folder: Path, values: dict[str, Any], message: str
) -> None:
    edited(folder, **values)

    with pytest.raises(RequestError) as caught:
        sources.get("hugging_face").load(folder, "mine")
    assert message in str(caught.value)


def test_code_in_the_folder_is_never_run(folder: Path, tmp_path: Path) -> None:
    """Neither what auto_map names nor what config.json says of how to load the weights."""
    mark = tmp_path / "was_run"
    (folder / "modeling.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    (folder / "pytorch_model.bin").write_bytes(b"no pickle")
    edited(
        folder,
        auto_map={"AutoConfig": "modeling.Config", "AutoModelForSequenceClassification": "modeling.Model"},
        attn_implementation="someone/kernel",
        transformers_weights="pytorch_model.bin",
    )

    loaded = sources.get("hugging_face").load(folder, "mine")

    assert loaded.cases
    assert not mark.exists()


def test_folder_is_converted_from_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder.parent / "out"

    code = cli.main(
        ["convert", str(folder), "--output", str(out), "--format", "tflite", "--scheme", "dynamic_wi8_afp32"]
    )

    assert code == 0, capsys.readouterr().err
    assert (out / "artifacts/mine/tflite/dynamic_wi8_afp32/mine.tflite").exists()
    assert (out / "report.html").exists()
