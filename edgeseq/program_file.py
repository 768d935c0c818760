"""Reading a `.pt2` file of torch.export.save that somebody else made, without running anything that is in it.

torch.export.load (2.13) unpickles example inputs, custom objects and tensor subclasses, loads native libraries of
AOTInductor packages, evaluates the text of sizes and guards as Python, and calls whatever function of torch a node names.
Here the archive is taken apart first, what cannot be checked is refused or left out, and what is left is written anew, so
that torch reads nothing else than what was checked.
"""

import json
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import torch
from torch.export import ExportedProgram
from torch.export.pt2_archive._package import PT2ArchiveWriter

from edgeseq import operators
from edgeseq.errors import RequestError
from edgeseq.program_text import checked_program

PROGRAM = "models/model.json"
SAMPLES = "data/sample_inputs/model.pt"
CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
TENSOR = re.compile(r"data/(weights|constants)/(weight|tensor)_\d+")
NATIVE = "data/aotinductor/"
PICKLED = re.compile(r"data/(weights|constants)/.*\.pt|data/constants/(custom|opaque)_obj_.*|serialized_.*")
EXPORT_AGAIN = "export it again by torch.export.save of torch 2.10 or newer"


def read(path: Path) -> ExportedProgram:
    """The program in a file, with its inputs by position and its outputs as one flat tuple.

    Raises:
        RequestError: It is no such file, it is damaged, or it holds what could run code.
    """
    operators.load_all()
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryFile() as clean:
            _rewrite(archive, clean, path.name)
            clean.seek(0)
            return torch.export.load(clean)
    except RequestError:
        raise
    except FileNotFoundError as error:
        raise RequestError(f"there is no file '{path}'") from error
    except zipfile.BadZipFile as error:
        raise RequestError(f"'{path}' is no file of torch.export.save, or is damaged: {error}") from error
    except Exception as error:  # torch raises anything on a damaged program
        raise RequestError(f"'{path}' cannot be read: {type(error).__name__}: {error}; {EXPORT_AGAIN}") from error


def _rewrite(archive: zipfile.ZipFile, clean: IO[bytes], name: str) -> None:
    """Copy tensors as they are and JSON that was checked; leave out everything else."""
    entries = _entries(archive, name)
    text = checked_program(json.loads(archive.read(entries[PROGRAM])), name)
    with PT2ArchiveWriter(clean) as writer:
        for config in CONFIGS:
            _check_payload(json.loads(archive.read(entries[config])), name)
            writer.write_bytes(config, archive.read(entries[config]))
        for key, entry in entries.items():
            if TENSOR.fullmatch(key):
                writer.write_bytes(key, archive.read(entry))
        writer.write_bytes(PROGRAM, json.dumps(text).encode())
        writer.write_bytes(SAMPLES, b"")  # a pickle otherwise


def _entries(archive: zipfile.ZipFile, name: str) -> dict[str, zipfile.ZipInfo]:
    """The archive's files by their names below its one root folder.

    Raises:
        RequestError: There are pickles or native libraries among them, or the program is missing.
    """
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        key = "/".join(PurePosixPath(entry.filename).parts[1:]) or entry.filename
        if PICKLED.fullmatch(key):
            raise RequestError(
                f"'{name}' holds a pickle, '{key}', which could run code when it is read; {EXPORT_AGAIN}"
            )
        if key.startswith(NATIVE):
            raise RequestError(f"'{name}' holds compiled code, '{key}'; give the file of torch.export.save instead")
        if key in entries or entry.compress_type != zipfile.ZIP_STORED:
            raise RequestError(f"'{name}' is not as torch.export.save writes it: '{key}' is there twice or compressed")
        entries[key] = entry
    for key in (PROGRAM, *CONFIGS):
        if key not in entries:
            raise RequestError(f"'{name}' is no file of torch.export.save: it lacks '{key}'; {EXPORT_AGAIN}")
    return entries


def _check_payload(config: Any, name: str) -> None:
    """Every weight and constant must be stored as plain bytes."""
    for tensor, stored in config["config"].items():
        if stored["use_pickle"] or not TENSOR.fullmatch(f"data/weights/{stored['path_name']}"):
            raise RequestError(
                f"'{name}' stores '{tensor}' as a pickle, which could run code when it is read; "
                "make it a plain tensor and export again"
            )
        for size in _integers(stored["tensor_meta"]):
            if size < 0:
                raise RequestError(f"'{name}' gives '{tensor}' a negative size or stride")


def _integers(meta: Any) -> Iterator[int]:
    for size in (*meta["sizes"], *meta["strides"], meta["storage_offset"]):
        yield int(size["as_int"])
