"""Models of transformers that generate text: their signatures say, in each format, what transformers' own generate() says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from edgeseq import converters, inspection, quantize, sources
from edgeseq.artifact import Artifact
from edgeseq.devices import runtimes
from edgeseq.quantize import Scheme
from edgeseq.reference import Reference
from edgeseq.signature import Signature, Tensors, TensorSpec
from edgeseq.sources import Loaded
from edgeseq.sources.hugging_face.encoder_decoder import buckets
from edgeseq.stream import Stream
from edgeseq.tasks.generation import beam_search, greedy, read
from edgeseq.verify import verify

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers and torch.export warn of themselves

START, COUNT = 1, 20  # the token that a decoder with an encoder begins with; how many are generated
TOKENS = {"vocab_size": 90, "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
BODY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
LLAMA = TOKENS | BODY | {
    "num_key_value_heads": 2, "intermediate_size": 64, "initializer_range": 0.3, "tie_word_embeddings": True,
}  # fmt: skip
SEQ2SEQ = TOKENS | {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64, "decoder_start_token_id": START,
    "forced_eos_token_id": None, "init_std": 0.5,
}  # fmt: skip
# Weights are large, so that logits tell tokens apart.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {  # architecture -> configuration class and its values
    "GPT2LMHeadModel": (
        "GPT2Config",
        TOKENS | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.3},
    ),
    "OPTForCausalLM": (
        "OPTConfig",
        TOKENS | BODY | {"ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.3},
    ),
    "LlamaForCausalLM": ("LlamaConfig", LLAMA),
    "T5ForConditionalGeneration": (
        "T5Config",
        TOKENS
        | {
            "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": START,
            "initializer_factor": 1.5, "relative_attention_max_distance": 16, "relative_attention_num_buckets": 8,
        },
    ),
    "BartForConditionalGeneration": ("BartConfig", SEQ2SEQ),
    "MarianMTModel": ("MarianConfig", SEQ2SEQ | {"init_std": 0.1}),
    "WhisperForConditionalGeneration": (
        "WhisperConfig",
        SEQ2SEQ
        | {
            "num_mel_bins": 8, "max_source_positions": 20, "max_target_positions": 48, "suppress_tokens": None,
            "begin_suppress_tokens": None,
        },
    ),
}  # fmt: skip
DECODERS = ("GPT2LMHeadModel", "OPTForCausalLM", "LlamaForCausalLM")
QUICK = {
    ("GPT2LMHeadModel", "tflite"), ("LlamaForCausalLM", "tflite"),
    ("MarianMTModel", "tflite"),
}  # fmt: skip
CASES = [
    pytest.param(name, format, marks=[] if (name, format) in QUICK else [pytest.mark.slow])
    for name in MODELS
    for format in ("tflite", "onnx", "coreml")
]

# Whisper's generate() asks for frames, languages and timestamps of its own; its signatures are compared all the same.
SPEAKING = [case for case in CASES if case.values[0] != "WhisperForConditionalGeneration"]

Made = Callable[[str, str], Artifact]


def build(architecture: str) -> Any:
    """The model, always with the same weights."""
    torch.manual_seed(0)
    configuration, values = MODELS[architecture]
    return getattr(transformers, architecture)(getattr(transformers, configuration)(**values)).eval()


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Loaded]:
    """Each model, captured when it is first asked for."""
    known: dict[str, Loaded] = {}

    def load(architecture: str) -> Loaded:
        if architecture not in known:
            folder = tmp_path_factory.mktemp("folder") / architecture
            build(architecture).save_pretrained(folder)
            known[architecture] = sources.get("hugging_face").load(folder, architecture)
        return known[architecture]

    return load


@pytest.fixture(scope="module")
def made(loaded: Callable[[str], Loaded], tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Each artifact, converted when it is first asked for."""
    known: dict[tuple[str, str], Artifact] = {}

    def convert(architecture: str, format: str) -> Artifact:
        if (architecture, format) not in known:
            captured, folder = loaded(architecture).captured, tmp_path_factory.mktemp("artifact")
            known[architecture, format] = converters.convert(captured, format, folder, model="model")
        return known[architecture, format]

    return convert


def stream_of(artifact: Artifact, batch: int) -> Stream:
    runtime = runtimes.for_format(artifact.format)
    return runtime.stream(
        runtime.load(artifact.path, artifact.signatures, threads=1), artifact.signatures, {"batch": batch}
    )


def source_of(architecture: str, batch: int) -> dict[str, torch.Tensor]:
    """What an encoder is fed; every row but the first padded. Empty for a decoder alone."""
    rng = np.random.default_rng(batch)
    if architecture in DECODERS:
        return {}
    mask = (torch.arange(9) < torch.tensor([9, 6, 3][:batch])[:, None]).long()
    return {"input_ids": torch.from_numpy(rng.integers(1, 90, (batch, 9))) * mask, "attention_mask": mask}


def prompt_of(architecture: str, batch: int) -> np.ndarray:
    if architecture in DECODERS:
        return np.random.default_rng(batch).integers(1, 90, (batch, 7), dtype=np.int32)
    return np.full((batch, 1), START, np.int32)


def generated(architecture: str, batch: int, n_beams: int) -> np.ndarray:
    """The tokens that transformers generates: (B, COUNT)."""
    fed, prompt = source_of(architecture, batch), torch.from_numpy(prompt_of(architecture, batch)).long()
    if architecture in DECODERS:
        fed = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt)}
    model = build(architecture)
    model.generation_config.update(forced_eos_token_id=None, eos_token_id=None)
    result = model.generate(**fed, max_new_tokens=COUNT, do_sample=False, num_beams=n_beams)
    return result[:, -COUNT:].numpy()


def numbers(tensors: dict[str, torch.Tensor]) -> Tensors:
    return {key: (x.int() if x.dtype == torch.int64 else x).numpy() for key, x in tensors.items()}


@pytest.mark.parametrize(("architecture", "format"), CASES)
def test_it_computes_what_transformers_computes(
    architecture: str, format: str, loaded: Callable[[str], Loaded], made: Made
) -> None:
    artifact, runtime = made(architecture, format), runtimes.for_format(format)
    session = runtime.load(artifact.path, artifact.signatures, threads=1)
    reference = Reference(model="model", cases=loaded(architecture).cases)

    report = verify(artifact, reference, session.run, verified_by=runtime.verified_by)

    assert report.passed, report.failures
    assert {case.signature for case in reference.cases} == {signature.name for signature in artifact.signatures}


@pytest.mark.parametrize(("architecture", "format"), SPEAKING)
def test_greedy_tokens_are_those_of_transformers(architecture: str, format: str, made: Made) -> None:
    stream = stream_of(made(architecture, format), batch=3)
    if architecture not in DECODERS:
        read(stream, numbers(source_of(architecture, 3)))
    expected = generated(architecture, 3, n_beams=1)
    assert len(np.unique(expected)) > 3
    np.testing.assert_array_equal(greedy(stream, prompt_of(architecture, 3), COUNT), expected)


@pytest.mark.parametrize(("architecture", "format"), SPEAKING)
def test_beams_say_what_those_of_transformers_say(architecture: str, format: str, made: Made) -> None:
    stream = stream_of(made(architecture, format), batch=1)
    if architecture not in DECODERS:
        read(stream, numbers(source_of(architecture, 1)))

    actual, _ = beam_search(stream, prompt_of(architecture, 1), COUNT, n_beams=3)

    np.testing.assert_array_equal(actual, generated(architecture, 1, n_beams=3)[0])


def test_signatures_are_named_as_in_every_model(loaded: Callable[[str], Loaded]) -> None:
    step, prefill, encode = loaded("MarianMTModel").captured.signatures

    assert (step.name, prefill.name, encode.name) == ("step", "prefill", "encode")
    assert [spec.name for spec in encode.inputs] == ["input_ids", "attention_mask"]
    assert encode.outputs[0].shape == ("batch", 4, "source_time", 8)
    assert step.input("tokens").shape == ("batch", 1)
    assert {spec.name for spec in encode.outputs} < {spec.name for spec in step.inputs}
    assert [state.input for state in step.states] == ["keys_0", "values_0", "keys_1", "values_1"]


def test_half_precision_weights_are_read_exactly(tmp_path: Path) -> None:
    model = build("GPT2LMHeadModel").half()
    model.save_pretrained(tmp_path)

    captured = sources.get("hugging_face").load(tmp_path, "half").captured

    weight = captured.programs["prefill"].state_dict["model.transformer.wte.weight"]
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, model.transformer.wte.weight.float(), rtol=0, atol=0)


def test_what_is_held_goes_with_the_sequences_that_are_chosen() -> None:
    shape = ("batch", 2)
    inputs = (TensorSpec(name="tokens", dtype="int32", shape=("batch", 1)),)
    given = TensorSpec(name="memory", dtype="float32", shape=shape)
    output = TensorSpec(name="seen", dtype="float32", shape=shape)
    signature = Signature(name="step", inputs=(*inputs, given), outputs=(output,))
    stream = Stream(lambda fed, _: {"seen": fed["memory"]}, [signature], {"batch": 1})
    stream.hold({"memory": np.array([[1, 2], [3, 4]], np.float32), "unknown": np.zeros(1)})

    stream.choose([1, 1, 0])

    tokens = np.zeros((3, 1), np.int32)
    assert stream.run({"tokens": tokens}, "step")["seen"].tolist() == [[3, 4], [3, 4], [1, 2]]


def test_groups_of_heads_share_a_cache(loaded: Callable[[str], Loaded]) -> None:
    step, _ = loaded("LlamaForCausalLM").captured.signatures

    assert step.input("keys_0").shape == ("batch", 2, "capacity", 8)


def test_the_encoder_is_not_part_of_a_step_nor_the_decoder_of_encode(loaded: Callable[[str], Loaded]) -> None:
    programs = loaded("MarianMTModel").captured.programs

    def read_by(program: str) -> set[str]:
        graph, names = programs[program].graph, programs[program].graph_signature.inputs_to_parameters
        return {names[node.name] for node in graph.nodes if node.name in names and node.users}

    assert not [name for name in read_by("prefill") if "encoder.layers" in name or "encoder_attn.k" in name]
    assert not [name for name in read_by("encode") if "decoder.layers" in name and "encoder_attn." not in name]


def test_programs_in_onnx_store_what_they_share_once(made: Made, tmp_path: Path) -> None:
    artifact = made("MarianMTModel", "onnx")
    parameters = sum(p.numel() for p in build("MarianMTModel").parameters())

    int8 = quantize.quantize(artifact, Scheme.parse("dynamic_wi8_afp32"), tmp_path)

    files = sorted(path.name for path in artifact.path.iterdir())
    assert files == ["encode.onnx", "prefill.onnx", "weights.data"]
    assert artifact.size_bytes == sum(path.stat().st_size for path in artifact.path.iterdir())
    graphs = sum((artifact.path / name).stat().st_size for name in files[:2])
    assert artifact.size_bytes - graphs < 4.1 * parameters
    assert (int8.path / "weights.data").stat().st_size < 0.5 * (artifact.path / "weights.data").stat().st_size
    contents = inspection.inspect(artifact.path)
    assert sum(stored.size_bytes for stored in contents.contents.stored) < 4.2 * parameters
    assert [signature.name for signature in contents.contents.signatures] == ["step", "prefill", "encode"]


def test_quantized_programs_go_on_nearly_the_same(made: Made, tmp_path: Path) -> None:
    int8 = quantize.quantize(made("MarianMTModel", "onnx"), Scheme.parse("weight_only_wi8_afp32"), tmp_path)
    stream = stream_of(int8, batch=1)

    read(stream, numbers(source_of("MarianMTModel", 1)))

    expected = generated("MarianMTModel", 1, n_beams=1)
    assert (greedy(stream, prompt_of("MarianMTModel", 1), 4) == expected[:, :4]).all()


@pytest.mark.parametrize(("n_buckets", "longest"), [(8, 16), (32, 128), (32, 256)])
def test_distances_have_the_buckets_of_t5(n_buckets: int, longest: int) -> None:
    config = transformers.T5Config(
        d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=8,
        relative_attention_num_buckets=n_buckets, relative_attention_max_distance=longest,
    )  # fmt: skip
    model = transformers.T5ForConditionalGeneration(config)
    attention = model.decoder.block[0].layer[0].SelfAttention

    found = buckets(model, "relative")

    far = attention._relative_position_bucket(torch.tensor([-5 * longest]), False, n_buckets, longest)
    assert found[-1] == int(far) == n_buckets - 1
    assert found[: n_buckets // 2] == list(range(n_buckets // 2))
