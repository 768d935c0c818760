"""The reference: what the PyTorch model computes on named cases, so that artifacts can be verified without PyTorch.

One `.npz` beside the artifacts. Cases differ from the example inputs of the export and from each other.
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np

from edgeseq.errors import RequestError

# parity: tensor errors at a length and batch that the export never saw; chunked: a whole sequence from empty states, which
# is to be given in chunks; greedy: a prompt and the tokens that are likeliest after it, one by one; task: a batch of a
# labelled test set; bench: what is fed while measuring.
Kind = Literal["parity", "chunked", "greedy", "task", "bench"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call of one signature: inputs, the outputs PyTorch gives, and labels where the task has them."""

    name: str
    kind: Kind
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    signature: str = "forward"
    labels: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Every case of a model, in order."""

    model: str
    cases: tuple[Case, ...]

    def of_kind(self, *kinds: Kind) -> tuple[Case, ...]:
        """The cases of these kinds."""
        return tuple(case for case in self.cases if case.kind in kinds)

    def save(self, path: Path) -> None:
        """Write all cases to one `.npz`."""
        arrays: dict[str, np.ndarray] = {}
        index = []
        for number, case in enumerate(self.cases):
            arrays |= {f"{number}/in/{key}": value for key, value in case.inputs.items()}
            arrays |= {f"{number}/out/{key}": value for key, value in case.outputs.items()}
            if case.labels is not None:
                arrays[f"{number}/labels"] = case.labels
            index.append({"name": case.name, "kind": case.kind, "signature": case.signature})
        header = json.dumps({"model": self.model, "cases": index})
        np.savez(path, allow_pickle=False, header=np.array(header), **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read back what `save` wrote.

        Raises:
            RequestError: There is no such file, or it is not a reference.
        """
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                arrays = dict(stored)
            header = json.loads(str(arrays.pop("header")))
            return cls(
                model=header["model"],
                cases=tuple(_case(number, entry, arrays) for number, entry in enumerate(header["cases"])),
            )
        except FileNotFoundError as error:
            raise RequestError(f"there is no reference at '{path}': nothing to verify against") from error
        except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise RequestError(f"'{path}' is not a reference: {error!r}") from error


def _case(number: int, entry: dict[str, str], arrays: dict[str, np.ndarray]) -> Case:
    def part(prefix: str) -> dict[str, np.ndarray]:
        return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}

    if entry["kind"] not in get_args(Kind):
        raise ValueError(f"a case is of kind '{entry['kind']}'")
    return Case(
        name=entry["name"],
        kind=entry["kind"],  # type: ignore[arg-type]  # one of the literals, as was checked
        signature=entry["signature"],
        inputs=part(f"{number}/in/"),
        outputs=part(f"{number}/out/"),
        labels=arrays.get(f"{number}/labels"),
    )
