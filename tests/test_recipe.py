"""Recipes: what is read is what was written, and everything else is refused in words."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq import pipeline, plans, recipe
from edgeseq.errors import EdgeseqError, RequestError
from edgeseq.recipe import Recipe, TeacherRecipe, Training, options_from

TRAINING = {"epochs": 1, "batch_size": 2, "learning_rate": 0.5}
MINIMAL: dict[str, Any] = {
    "name": "small",
    "data": "movie_snippets",
    "teacher": {"model": "bert", "weights": "minilm_l6", "training": TRAINING},
    "students": {"one": {"model": "bilstm", "training": TRAINING, "options": {"d_model": 8}}},
    "formats": ["onnx"],
    "schemes": ["fp32"],
}


def read(data: dict[str, Any]) -> Recipe:
    return options_from(Recipe, data, where="recipe 'small'")


def changed(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """`MINIMAL` with one value replaced or added."""
    data = copy.deepcopy(MINIMAL)
    inner = data
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    inner[path[-1]] = value
    return data


@pytest.mark.parametrize("name", recipe.names())
def test_recipe_of_the_package_loads_and_asks_for_nothing_impossible(name: str) -> None:
    loaded = recipe.load(name)

    assert loaded.name == name
    assert len(plans.of_recipe(loaded)) > len(loaded.students)


def test_minimal_recipe_gets_the_documented_defaults() -> None:
    loaded = read(MINIMAL)

    assert (loaded.seed, loaded.limit, loaded.max_length) == (0, None, 128)
    assert loaded.teacher.training == Training(epochs=1, batch_size=2, learning_rate=0.5, weight_decay=0.01)
    assert loaded.students["one"].control_training is None
    assert loaded.measuring.protocol.runs == 200


@pytest.mark.parametrize("name", recipe.names())
def test_recipe_survives_a_round_trip_through_plain_data(name: str) -> None:
    loaded = recipe.load(name)

    assert read(json.loads(json.dumps(recipe.to_json(loaded)))) == loaded


def test_integer_is_taken_for_a_number_but_keeps_nothing_of_an_integer() -> None:
    loaded = options_from(Training, TRAINING | {"learning_rate": 1}, where="training")

    assert type(loaded.learning_rate) is float


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("sheed",), 1, "recipe 'small' has an unknown key 'sheed'; did you mean 'seed'?"),
        (
            ("teacher", "wieghts"),
            "x",
            "recipe 'small': 'teacher' has an unknown key 'wieghts'; did you mean 'weights'?",
        ),
        (
            ("teacher", "training", "epoch"),
            1,
            "'teacher': 'training' has an unknown key 'epoch'; did you mean 'epochs'?",
        ),
        (("students", "one", "modle"), "x", "'students': 'one' has an unknown key 'modle'; did you mean 'model'?"),
        (("qqqqqqqq",), 1, "unknown key 'qqqqqqqq'; known: name, data, seed"),
        (("seed",), "0", "recipe 'small': 'seed' must be an integer, not '0'"),
        (("seed",), True, "'seed' must be an integer, not True"),
        (("seed",), 1.0, "'seed' must be an integer, not 1.0"),
        (("name",), 3, "'name' must be a string, not 3"),
        (("formats",), "onnx", "'formats' must be a list, not 'onnx'"),
        (("formats",), ["onnx", 1], "'formats' must be a string, not 1"),
        (("teacher",), [], "'teacher' must be a table, not []"),
        (("students",), "bilstm", "'students' must be a table, not 'bilstm'"),
        (("students", "one"), 1, "'students': 'one' must be a table, not 1"),
        (("students", "one", "options"), 1, "'options' must be a table, not 1"),
        (("distillation",), {"teacher_embeddings": 1}, "'teacher_embeddings' must be true or false, not 1"),
        (("distillation",), {"temperature": "hot"}, "'temperature' must be a number, not 'hot'"),
        (("distillation",), {"temperature": True}, "'temperature' must be a number, not True"),
    ],
)
def test_wrong_key_or_value_is_refused_with_its_place(path: tuple[str, ...], value: Any, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        read(changed(path, value))

    assert message in str(caught.value)


@pytest.mark.parametrize("key", MINIMAL)
def test_missing_key_is_named(key: str) -> None:
    with pytest.raises(RequestError, match=f"recipe 'small' lacks '{key}'"):
        read({name: value for name, value in MINIMAL.items() if name != key})


PATHS = st.sampled_from(
    [(key,) for key in MINIMAL]
    + [("teacher", key) for key in ("model", "weights", "training", "options", "frozen_blocks")]
    + [("students", "one"), ("students", "one", "training"), ("students", "one", "control_training", "epochs")]
    + [
        ("measuring", "protocol"),
        ("measuring", "protocol", "max_seconds"),
        ("limit",),
        ("distillation", "augmentations"),
    ]
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(path=PATHS, value=PLAIN)
def test_any_plain_data_is_either_a_recipe_or_refused(path: tuple[str, ...], value: Any) -> None:
    try:
        loaded = read(changed(path, value))
    except RequestError as error:
        assert str(error).startswith("recipe 'small'")
    else:
        assert isinstance(loaded, Recipe)


def test_toml_file_is_read_by_path_whatever_its_suffix(tmp_path: Path) -> None:
    text = 'model = "bert"\nweights = "w"\ntraining = { epochs = 1, batch_size = 1, learning_rate = 1 }\n'
    teacher = tmp_path / "recipe"
    teacher.write_text(text)

    with pytest.raises(RequestError, match="has an unknown key 'model'"):  # a teacher's keys are not a recipe's
        recipe.load(str(teacher))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"name = ", "is not TOML"), (b"name = 1\nname = 2", "is not TOML"), (b"PK\x03\x04\xff\xfe", "is not TOML")],
)
def test_file_that_is_not_toml_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "small.toml"
    path.write_bytes(content)

    with pytest.raises(RequestError, match=message):
        recipe.load(str(path))


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()

    with pytest.raises(RequestError, match="cannot be read: No such file"):
        recipe.load(str(tmp_path / "absent.toml"))
    with pytest.raises(RequestError, match="cannot be read: Is a directory"):
        recipe.load(str(tmp_path / "folder.toml"))


def test_unknown_recipe_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(RequestError, match="there is no recipe 'movie-sentimant'; did you mean 'movie-sentiment'\\?"):
        recipe.load("movie-sentimant")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("data",), "movie_snipets", "did you mean 'movie_snippets'"),
        (("teacher", "model"), "brt", "did you mean 'bert'"),
        (("teacher", "weights"), "minilm_l12", "did you mean 'minilm_l6'"),
        (("teacher", "options"), {"n_layer": 1}, "did you mean 'n_layers'"),
        (("students", "one", "model"), "bilsm", "did you mean 'bilstm'"),
        (("students", "one", "options"), {"d_modell": 8}, "did you mean 'd_model'"),
        (("formats",), ["onxx"], "did you mean 'onnx'"),
        (("schemes",), ["int8"], "'int8' is no quantization scheme"),
        (("format_options",), {"coreml": {}}, "options are given for format 'coreml', which is none of onnx"),
        (("format_options",), {"onnx": {"opset": 9}}, "format 'onnx' has an unknown key 'opset'"),
        (("schemes",), ["static_wi8_ai8"], "format 'onnx' cannot express scheme 'static_wi8_ai8'; it can: fp32, fp16"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work_starts(path: tuple[str, ...], value: Any, message: str) -> None:
    loaded = read(changed(path, value))

    with pytest.raises(RequestError) as caught:
        pipeline.check(loaded)

    assert message in str(caught.value)


def test_options_of_a_format_are_settings_of_its_conversion_alone() -> None:
    chosen = MINIMAL | {"formats": ["coreml", "onnx"], "format_options": {"coreml": {"target": "ios18"}}}

    stages = {stage.name: stage for stage in plans.of_recipe(read(chosen))}

    assert stages["artifacts/one/coreml"].settings["options"] == {"target": "ios18"}
    assert stages["artifacts/one/onnx"].settings["options"] == {}


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], {}),
        (["coreml.target=ios18", "coreml.capacity=64"], {"coreml": {"target": "ios18", "capacity": 64}}),
        (['a.b="1"', "c.d=true"], {"a": {"b": "1"}, "c": {"d": True}}),
    ],
)
def test_options_on_the_command_line_are_assignments(texts: list[str], expected: dict[str, Any]) -> None:
    assert pipeline.parsed_options(texts) == expected


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["target=ios18"], "--option 'target=ios18' is no option; write FORMAT.NAME=VALUE"),
        (["coreml.target"], "--option 'coreml.target' is no option"),
        (["coreml.target=ios17", "coreml.target=ios18"], "--option 'coreml.target' is given twice"),
    ],
)
def test_other_texts_are_no_options(texts: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        pipeline.parsed_options(texts)


def test_minimal_recipe_passes_the_check() -> None:
    try:
        pipeline.check(read(MINIMAL))
    except EdgeseqError as error:
        pytest.fail(str(error))


def test_changed_student_setting_changes_no_other_students_stages() -> None:
    before = {stage.name: stage for stage in plans.of_recipe(read(MINIMAL | {"students": _two(d_model=8)}))}
    after = {stage.name: stage for stage in plans.of_recipe(read(MINIMAL | {"students": _two(d_model=16)}))}

    assert {name for name in before if before[name] != after[name]} == {"students/one"}


def _two(*, d_model: int) -> dict[str, Any]:
    one = {"model": "bilstm", "training": TRAINING, "options": {"d_model": d_model}}
    return {"one": one, "two": one | {"options": {"d_model": 4}}}


def test_teacher_recipe_can_be_read_from_a_stages_settings() -> None:
    teacher = read(MINIMAL).teacher

    again = options_from(TeacherRecipe, plans.of_recipe(read(MINIMAL))[1].settings["teacher"], where="teacher")

    assert again == teacher
