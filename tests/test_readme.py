"""What the README says of the code is true of the code."""

import re
from pathlib import Path

from edgeseq.cli import main
from tests.support_table import README, updated


def test_the_table_of_support_is_up_to_date() -> None:
    text = README.read_text()

    assert updated(text) == text, "run: python -m tests.support_table"


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (README.parent / "Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"make ([a-z-]+)", README.read_text())) <= targets


def test_every_file_that_is_linked_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text())

    assert links and all((README.parent / Path(link)).exists() for link in links)


def test_the_script_that_the_readme_shows_converts(tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(# my_model\.py\n.*?)```", README.read_text(), re.DOTALL)
    script = tmp_path / "my_model.py"
    script.write_text(block)

    code = main(["convert", str(script), "--output", str(tmp_path / "out"), "--format", "tflite", "--scheme", "fp32"])

    assert code == 0
    assert (tmp_path / "out" / "artifacts" / "my_model" / "tflite" / "fp32" / "my_model.tflite").is_file()
