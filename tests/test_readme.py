"""What the README says of the code is true of the code."""

import re
from pathlib import Path

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
