"""Plug-ins by file name."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from edgeseq import converters, errors, lookup, models
from edgeseq.devices import runtimes
from edgeseq.errors import RequestError, UnavailableError


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A package with two good plug-ins (a file and a folder) and everything that must not count as one."""
    folder = tmp_path / "sample_plugins"
    (folder / "boat").mkdir(parents=True)
    (folder / "_private").mkdir()
    files = {
        "__init__.py": "",
        "car.py": 'class Car:\n    kind = "land"\n\nTHING = "a car"\n',
        "boat/__init__.py": '    kind = "water"\nTHING = "a boat"\n'.replace("    kind", "kind"),
        "_hidden.py": "THING = 1\n",
        "_private/__init__.py": "THING = 1\n",
        "other.py": "OTHER_THING = 1\n",
        "indented.py": "if True:\n    THING = 1\n",
        "needy.py": "import a_package_that_nobody_has\nTHING = 1\n",
        "broken.py": "import edgeseq.a_module_that_was_renamed\nTHING = 1\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("sample_plugins")
    for name in [name for name in sys.modules if name.startswith("sample_plugins")]:
        del sys.modules[name]


def test_names_are_the_files_and_folders_that_end_with_the_constant(plugins: ModuleType) -> None:
    assert lookup.names(plugins, "THING") == ("boat", "broken", "car", "needy")


def test_names_imports_none_of_them(plugins: ModuleType) -> None:
    lookup.names(plugins, "THING")

    assert not [name for name in sys.modules if name.startswith("sample_plugins.")]


def test_names_can_be_limited_to_files_with_a_certain_line(plugins: ModuleType) -> None:
    assert lookup.names(plugins, "THING", declaring='kind = "land"') == ("car",)
    assert lookup.names(plugins, "THING", declaring='kind = "water"') == ("boat",)


@pytest.mark.parametrize(("name", "thing"), [("car", "a car"), ("boat", "a boat")])
def test_get_returns_the_constant(plugins: ModuleType, name: str, thing: str) -> None:
    assert lookup.get(plugins, name, "THING") == thing


def test_unknown_name_is_refused_with_the_nearest_one(plugins: ModuleType) -> None:
    with pytest.raises(
        RequestError, match="there is no thing 'caar'; did you mean 'car'\\? known: boat, broken, car, needy"
    ):
        lookup.get(plugins, "caar", "THING")


@pytest.mark.parametrize("name", ["zzzzzz", "_hidden", "other", "", "../car", "os.path"])
def test_what_is_no_plug_in_is_refused(plugins: ModuleType, name: str) -> None:
    with pytest.raises(RequestError, match="known: boat"):
        lookup.get(plugins, name, "THING")


def test_missing_third_party_package_names_the_extra_to_install(plugins: ModuleType) -> None:
    with pytest.raises(UnavailableError, match=r"a_package_that_nobody_has.*pip install 'edgeseq\[land\]'") as caught:
        lookup.get(plugins, "needy", "THING", extra="land")

    assert caught.value.exit_code == 4


def test_missing_third_party_package_without_an_extra_is_named_itself(plugins: ModuleType) -> None:
    with pytest.raises(UnavailableError, match="pip install a_package_that_nobody_has"):
        lookup.get(plugins, "needy", "THING")


def test_our_own_broken_import_stays_a_traceback(plugins: ModuleType) -> None:
    with pytest.raises(ModuleNotFoundError, match="a_module_that_was_renamed"):
        lookup.get(plugins, "broken", "THING", extra="land")


def test_the_folders_of_the_package_list_their_plug_ins() -> None:
    assert converters.names() == ("coreml", "onnx", "tflite")
    assert {"bert", "bilstm", "transformer_encoder"} <= set(models.names())
    assert {"coreml", "coreml_evaluator", "litert", "onnxruntime", "pytorch", "tensorflow"} == set(runtimes.names())


def test_exit_codes_are_those_of_the_contract() -> None:
    kinds = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
    codes = {name: kind.exit_code for name, kind in kinds.items() if issubclass(kind, errors.EdgeseqError)}

    assert codes == {
        "EdgeseqError": 1,
        "GateError": 1,
        "ConversionError": 1,
        "RequestError": 2,
        "UnsupportedError": 2,
        "UnavailableError": 4,
    }
