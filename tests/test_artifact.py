"""What is written to disk comes back as it was, and what was damaged since is refused."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeseq.artifact import RECORD, Artifact, tree_sha256, tree_size
from edgeseq.errors import RequestError
from edgeseq.reference import Case, Reference
from edgeseq.signature import Dim, Signature, State, TensorSpec

TOKENS = TensorSpec(name="tokens", dtype="int32", shape=("batch", "time"))
LENGTHS = TensorSpec(name="lengths", dtype="int64", shape=(2,))
SIGNATURE = Signature(
    inputs=(TOKENS, LENGTHS),
    outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch", "?", 3)), replace(LENGTHS, name="new_lengths")),
    dims=(Dim(name="batch", min=1, max=8), Dim(name="time", min=1, max=64)),
    states=(State(input="lengths", output="new_lengths"),),
)
FEEDS: dict[str, np.ndarray] = {"tokens": np.zeros((3, 4), np.int32), "lengths": np.zeros(2, np.int64)}

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=8)
SPECS = st.builds(
    TensorSpec,
    name=NAMES,
    dtype=st.sampled_from(["int32", "float32", "bool"]),
    shape=st.lists(st.integers(0, 9) | NAMES, max_size=4).map(tuple),
)
DIMS = st.builds(Dim, name=NAMES, min=st.integers(1, 9), max=st.integers(9, 99))
SIGNATURES = st.builds(
    Signature,
    name=NAMES,
    inputs=st.lists(SPECS, min_size=1, max_size=3).map(tuple),
    outputs=st.lists(SPECS, min_size=1, max_size=3).map(tuple),
    dims=st.lists(DIMS, max_size=2).map(tuple),
    case_of=st.none() | NAMES,
)


def with_states(signature: Signature) -> st.SearchStrategy[Signature]:
    """The signature, some of its inputs continued by its outputs."""
    inputs, outputs = ([spec.name for spec in specs] for specs in (signature.inputs, signature.outputs))
    state = st.builds(
        State,
        input=st.sampled_from(inputs),
        output=st.sampled_from(outputs),
        axis=st.none() | st.integers(0, 3),
        position=st.none() | st.sampled_from(inputs),
    )
    return st.lists(state, max_size=2).map(lambda states: replace(signature, states=tuple(states)))


def saved(folder: Path, *, content: bytes = b"weights", note: str = "") -> Artifact:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    path.write_bytes(content)
    artifact = Artifact.describe(path, model="m", format="onnx", scheme="fp32", signatures=(SIGNATURE,), note=note)
    artifact.save()
    return artifact


def saved_package(folder: Path) -> Artifact:
    path = folder / "model.mlpackage"
    (path / "Data").mkdir(parents=True)
    (path / "Manifest.json").write_text("{}")
    (path / "Data" / "weight.bin").write_bytes(bytes(range(256)))
    artifact = Artifact.describe(path, model="m", format="coreml", scheme="fp16", signatures=(SIGNATURE,))
    artifact.save()
    return artifact


@given(signature=SIGNATURES.flatmap(with_states))
def test_signature_survives_a_round_trip_through_json(signature: Signature) -> None:
    assert Signature.from_json(json.loads(json.dumps(signature.to_json()))) == signature


def test_state_that_names_no_output_is_refused() -> None:
    with pytest.raises(RequestError, match=r"a state of signature 'forward' names 'h', which is none of \['logits'"):
        replace(SIGNATURE, states=(State(input="lengths", output="h"),))


def test_case_of_a_signature_has_the_sizes_it_fixes() -> None:
    step = SIGNATURE.case("step", {"time": 1})

    assert (step.name, step.program, step.states) == ("step", "forward", SIGNATURE.states)
    assert [spec.shape for spec in step.inputs] == [("batch", 1), (2,)]
    assert [dim.name for dim in step.dims] == ["batch"]
    assert step.case("first", {"batch": 1}).program == "forward"


def test_signature_accepts_any_size_of_its_named_dimensions() -> None:
    for batch, time in [(1, 1), (8, 64), (3, 0)]:
        SIGNATURE.check(FEEDS | {"tokens": np.zeros((batch, time), np.int32)})


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "takes inputs ['tokens', 'lengths'], but was given []"),
        (FEEDS | {"extra": np.zeros(1)}, "but was given ['extra', 'lengths', 'tokens']"),
        (
            FEEDS | {"tokens": np.zeros((3, 4), np.int64)},
            "input 'tokens' is int32['batch', 'time'], but was given int64[3, 4]",
        ),
        (FEEDS | {"tokens": np.zeros(4, np.int32)}, "but was given int32[4]"),
        (FEEDS | {"lengths": np.zeros(3, np.int64)}, "input 'lengths' is int64[2], but was given int64[3]"),
    ],
)
def test_signature_refuses_other_feeds_with_both_sides(feeds: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        SIGNATURE.check(feeds)

    assert message in str(caught.value)


@given(signature=SIGNATURES, note=st.text(st.characters(exclude_categories=["Cs"])))
def test_artifact_survives_a_round_trip(signature: Signature, note: str) -> None:
    with TemporaryDirectory() as folder:
        parent = saved(Path(folder) / "fp32")
        path = Path(folder) / "fp16" / "model.onnx"
        path.parent.mkdir()
        path.write_bytes(b"half")
        artifact = Artifact.describe(
            path, model="m", format="onnx", scheme="fp16", signatures=(signature,), parent=parent, note=note
        )

        artifact.save()

        assert Artifact.load(path.parent) == artifact
        assert artifact.parent_sha256 == parent.sha256


def test_artifact_that_is_a_folder_survives_a_round_trip(tmp_path: Path) -> None:
    artifact = saved_package(tmp_path)

    assert Artifact.load(tmp_path) == artifact
    assert artifact.size_bytes == 256 + 2


def test_hash_and_size_of_a_file_are_those_of_its_bytes(tmp_path: Path) -> None:
    artifact = saved(tmp_path, content=b"abc")

    assert artifact.sha256 == hashlib.sha256(b"abc").hexdigest()
    assert artifact.size_bytes == 3


def test_hash_of_a_folder_covers_names_and_bytes_in_sorted_order(tmp_path: Path) -> None:
    package = saved_package(tmp_path).path
    files = {"Data/weight.bin": bytes(range(256)), "Manifest.json": b"{}"}
    lines = "".join(f"{name}\0{hashlib.sha256(data).hexdigest()}\n" for name, data in sorted(files.items()))

    assert tree_sha256(package) == hashlib.sha256(lines.encode()).hexdigest()
    assert tree_size(package) == sum(map(len, files.values()))


def test_record_can_be_moved_with_its_folder(tmp_path: Path) -> None:
    artifact = saved(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")

    moved = Artifact.load(tmp_path / "there")

    assert moved == replace(artifact, path=tmp_path / "there" / "model.onnx")


@pytest.mark.parametrize("position", [0, 3, -1])
def test_one_changed_byte_is_noticed(tmp_path: Path, position: int) -> None:
    path = saved(tmp_path).path
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)

    with pytest.raises(RequestError, match=r"is not the file that artifact.json describes; convert it again"):
        Artifact.load(tmp_path)


@pytest.mark.parametrize("damage", ["added", "removed", "renamed", "emptied", "gone"])
def test_any_change_inside_an_artifact_folder_is_noticed(tmp_path: Path, damage: str) -> None:
    package = saved_package(tmp_path).path
    weights = package / "Data" / "weight.bin"
    match damage:
        case "added":
            (package / "more").write_text("")
        case "removed":
            weights.unlink()
        case "renamed":
            weights.rename(weights.with_name("weights.bin"))
        case "emptied":
            weights.write_bytes(b"")
        case "gone":
            package.rename(tmp_path / "elsewhere")

    with pytest.raises(RequestError, match="is not the file"):
        Artifact.load(tmp_path)


@pytest.mark.parametrize(
    "record", [b"", b"{", b"[]", b"3", b"null", b"{}", b'{"file": 3}', b'{"file": "model.onnx"}', b"\xff\xfe\x00"]
)
def test_damaged_record_is_refused(tmp_path: Path, record: bytes) -> None:
    saved(tmp_path)
    (tmp_path / RECORD).write_bytes(record)

    with pytest.raises(RequestError, match="does not describe an artifact"):
        Artifact.load(tmp_path)


def test_folder_without_a_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"holds no artifact: .*artifact\.json is missing"):
        Artifact.load(tmp_path)


ARRAYS = arrays.arrays(
    dtype=st.sampled_from([np.int32, np.float32, np.bool_, np.float16]),
    shape=arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
CASES = st.builds(
    Case,
    name=st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    kind=st.sampled_from(["parity", "task", "bench"]),
    signature=NAMES,
    inputs=st.dictionaries(NAMES, ARRAYS, max_size=2),
    outputs=st.dictionaries(NAMES, ARRAYS, max_size=2),
    labels=st.none() | arrays.arrays(np.int64, st.integers(0, 3)),
)


@given(cases=st.lists(CASES, max_size=3))
def test_reference_survives_a_round_trip_to_the_bit(cases: list[Case]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "reference.npz"

        Reference(model="m", cases=tuple(cases)).save(path)
        loaded = Reference.load(path)

    assert loaded.model == "m"
    assert len(loaded.cases) == len(cases)
    for have, want in zip(loaded.cases, cases, strict=True):
        assert (have.name, have.kind, have.signature) == (want.name, want.kind, want.signature)
        _same_arrays(have.inputs, want.inputs)
        _same_arrays(have.outputs, want.outputs)
        assert (have.labels is None) == (want.labels is None)
        if have.labels is not None and want.labels is not None:
            _same_arrays({"": have.labels}, {"": want.labels})


def _same_arrays(have: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    assert list(have) == list(want)
    for key, value in want.items():
        assert (have[key].dtype, have[key].shape) == (value.dtype, value.shape)
        assert have[key].tobytes() == value.tobytes()


def test_reference_of_twelve_cases_keeps_each_cases_arrays_apart(tmp_path: Path) -> None:
    cases = tuple(
        Case(name=str(i), kind="parity", inputs={"x": np.array([i])}, outputs={"x": np.array([-i])}) for i in range(12)
    )
    Reference(model="m", cases=cases).save(tmp_path / "reference.npz")

    loaded = Reference.load(tmp_path / "reference.npz")

    assert [(c.inputs["x"][0], c.outputs["x"][0]) for c in loaded.cases] == [(i, -i) for i in range(12)]


def test_cases_are_picked_by_kind_in_order() -> None:
    kinds = ("bench", "task", "parity", "task")
    cases = tuple(Case(name=str(i), kind=k, inputs={}, outputs={}) for i, k in enumerate(kinds))  # type: ignore[arg-type]  # literals

    assert [case.name for case in Reference(model="m", cases=cases).of_kind("task")] == ["1", "3"]


def test_missing_reference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"there is no reference at .*: nothing to verify against"):
        Reference.load(tmp_path / "reference.npz")


def _reference_bytes(folder: Path) -> bytes:
    path = folder / "whole.npz"
    case = Case(name="a", kind="parity", inputs={"x": np.arange(100)}, outputs={"y": np.ones(3)})
    Reference(model="m", cases=(case,)).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("damage", ["cut", "emptied", "flipped", "text", "one array", "other arrays", "pickle"])
def test_damaged_reference_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "reference.npz"
    whole = _reference_bytes(tmp_path)
    middle = whole.index(np.arange(100).tobytes()) + 400
    match damage:
        case "cut":
            path.write_bytes(whole[: len(whole) // 2])
        case "emptied":
            path.write_bytes(b"")
        case "flipped":
            path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        case "text":
            path.write_text("not a reference")
        case "one array":
            with path.open("wb") as stream:
                np.save(stream, np.arange(3))
        case "other arrays":
            np.savez(path, header=np.array("[]"))
        case "pickle":
            np.savez(path, header=np.array({"model": "m"}, dtype=object))

    with pytest.raises(RequestError, match="is not a reference"):
        Reference.load(path)
