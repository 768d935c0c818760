"""What lies where, what is loaded when, and what a wheel holds."""

import ast
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import edgeseq

ROOT = Path(__file__).parents[1]
LINKED = ("converters", "quantize", "devices")  # real folders at the top level, links in edgeseq/
TOP_LEVEL = {
    "LICENSE",
    "Makefile",
    "README.md",
    "constraints.txt",
    "converters",
    "devices",
    "edgeseq",
    "pyproject.toml",
    "quantize",
    "tests",
}
HEAVY = {
    "ai_edge_litert",
    "ai_edge_quantizer",
    "coremltools",
    "jax",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "onnxscript",
    "tensorflow",
    "torch",
    "transformers",
}


def git(*arguments: str) -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout")
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
    ).stdout.splitlines()


def packages_in_the_tree() -> set[str]:
    """Every folder with an __init__.py, by the name it is imported by."""
    roots = [("edgeseq", ROOT / "edgeseq"), *((f"edgeseq.{name}", ROOT / name) for name in LINKED)]
    found = set()
    for package, folder in roots:
        for file in folder.rglob("__init__.py"):  # rglob does not follow links
            inner = file.parent.relative_to(folder).parts
            if not set(inner) & set(LINKED):
                found.add(".".join([package, *inner]))
    return found


def python(code: str, *, environment: dict[str, str] | None = None, cwd: Path = ROOT) -> str:
    command = [sys.executable, "-c", code]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {}),
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_package_list_names_every_package_of_the_tree_and_no_other() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]

    assert sorted(listed) == sorted(packages_in_the_tree())


def test_every_folder_with_code_is_a_package() -> None:
    folders = {path.parent for name in ("edgeseq", *LINKED) for path in (ROOT / name).rglob("*.py")}

    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize("name", LINKED)
def test_folder_is_a_relative_link_inside_edgeseq(name: str) -> None:
    link = ROOT / "edgeseq" / name

    assert link.is_symlink()
    assert link.readlink() == Path("..") / name
    assert not (ROOT / name).is_symlink()


def test_git_keeps_the_links_as_links() -> None:
    modes = {line.split("\t")[1]: line.split()[0] for line in git("ls-files", "-s", *(f"edgeseq/{n}" for n in LINKED))}

    assert modes == {f"edgeseq/{name}": "120000" for name in LINKED}


def test_top_level_holds_what_the_design_says_and_nothing_else() -> None:
    tracked = {line.split("/")[0] for line in git("ls-files")}

    assert {name for name in tracked if not name.startswith(".")} == TOP_LEVEL


@pytest.mark.parametrize(
    "code",
    [
        "import edgeseq",
        "from edgeseq.cli import parser; parser().format_help()",
        "import edgeseq; edgeseq.Artifact, edgeseq.Signature, edgeseq.Recipe, edgeseq.Scheme, edgeseq.Measurement",
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(code: str) -> None:
    loaded = set(json.loads(python(f"{code}; import json, sys; print(json.dumps(list(sys.modules)))")))

    assert loaded & HEAVY == set()


def test_help_exits_with_0_and_names_every_verb() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "edgeseq", "--help"], capture_output=True, text=True, cwd=ROOT, check=True
    )

    assert result.stderr == ""
    for verb in ("run", "convert", "verify", "bench", "report", "doctor"):
        assert f"\n    {verb} " in result.stdout


@pytest.mark.parametrize("name", edgeseq.__all__)
def test_public_name_can_be_imported(name: str) -> None:
    assert getattr(edgeseq, name) is not None


def test_type_checkers_and_programs_see_the_same_public_names() -> None:
    tree = ast.parse((ROOT / "edgeseq" / "__init__.py").read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    declared = {name.asname for node in guarded.body if isinstance(node, ast.ImportFrom) for name in node.names}

    assert declared | {"__version__"} == set(edgeseq.__all__)


def test_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Artefact"):
        _ = edgeseq.Artefact


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the checkout stays clean."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in git("ls-files", "--cached", "--others", "--exclude-standard"):
        if (ROOT / name).is_symlink() or (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        str(out),
        str(copy),
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return next(out.glob("*.whl"))


def test_wheel_holds_every_tracked_file_of_the_packages(wheel: Path) -> None:
    suffixes = (".py", ".toml", ".css", ".jinja", ".typed")
    expected = set()
    for name in git("ls-files", "edgeseq", *LINKED):
        if name.endswith(suffixes) and (ROOT / name).exists():
            expected.add(name if name.startswith("edgeseq/") else f"edgeseq/{name}")

    held = set(zipfile.ZipFile(wheel).namelist())

    assert expected - held == set()
    assert {
        "edgeseq/converters/onnx/__init__.py",
        "edgeseq/recipes/movie-sentiment.toml",
        "edgeseq/report/page.css",
        "edgeseq/report/page.html.jinja",
    } <= held


def test_wheel_puts_nothing_but_edgeseq_at_the_top_level(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}

    assert tops == {"edgeseq", f"edgeseq-{edgeseq.__version__}.dist-info"}


def test_installed_wheel_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    install = ["install", "--quiet", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    here = {"PYTHONPATH": str(target)}

    where = python("import edgeseq; print(edgeseq.__file__)", environment=here, cwd=tmp_path)
    formats = python("from edgeseq import converters; print(*converters.names())", environment=here, cwd=tmp_path)
    recipes = python("from edgeseq import recipe; print(*recipe.names())", environment=here, cwd=tmp_path)
    described = subprocess.run(
        [sys.executable, "-m", "edgeseq", "--help"], env=os.environ | here, cwd=tmp_path, capture_output=True, text=True
    )

    assert Path(where.strip()).is_relative_to(target)
    assert formats.split() == ["coreml", "onnx", "tflite"]
    assert "movie-sentiment" in recipes.split()
    assert described.returncode == 0
