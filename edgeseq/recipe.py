"""A recipe: a TOML file that says what to train, distil, convert and measure. It sets values and names no code."""

import difflib
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from importlib import resources
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar

from edgeseq import lookup
from edgeseq.errors import RequestError
from edgeseq.measure import Protocol

T = TypeVar("T")


TEACHER_FORMAT = "onnx"  # what a teacher is converted to for labelling: its files take any batch


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training run: AdamW with a linear warm-up over the first tenth and a linear decay to zero."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.01


@dataclass(frozen=True, kw_only=True)
class TeacherRecipe:
    """The full-size model and how it is fine-tuned."""

    model: str
    weights: str  # the source of pretrained weights, a file of edgeseq/data
    training: Training
    options: Mapping[str, Any] = field(
        default_factory=dict
    )  # of the model's spec, such as fewer layers for a quick trial
    frozen_blocks: int = 0  # lowest blocks that keep their pretrained weights, besides the embeddings


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """Each part is a switch: false, zero or 0.0 turns it off."""

    temperature: float = 2.0  # of the soft targets
    soft_target_weight: float = 1.0  # the rest of the weight is on the hard labels, where a sentence has one
    teacher_embeddings: bool = True  # start from the teacher's word embeddings, factorised to the student's width
    expected_states: bool = False  # and from its mean hidden state of every token
    hidden_weight: float = 0.0  # of matching the teacher's hidden states of every token through a projection
    word_dropout: float = 0.0  # probability of hiding from the student a token that the teacher saw
    teacher_scheme: str = "fp32"  # what the teacher is converted to for labelling on a CPU; fp32: PyTorch labels
    augmentations: int = 0  # sentences made per training sentence, labelled by the teacher
    mask_probability: float = 0.1  # of replacing a token by [MASK] in an augmented sentence
    ngram_probability: float = 0.25  # of cutting an augmented sentence to a random n-gram
    ngram_max: int = 20  # words of the longest n-gram

    def in_words(self) -> tuple[str, ...]:
        """Which parts are switched on, for a report."""
        parts = {
            f"soft targets at temperature {self.temperature:g}": self.soft_target_weight > 0,
            "the teacher's word embeddings, pruned and factorised": self.teacher_embeddings,
            "its mean state of every token as a part of them": self.teacher_embeddings and self.expected_states,
            "hidden states of every token matched through a projection": self.hidden_weight > 0,
            f"words hidden from the student with probability {self.word_dropout:g}": self.word_dropout > 0,
            f"{self.augmentations} augmented sentence(s) for each, labelled by the teacher": self.augmentations > 0,
        }
        return tuple(words for words, is_on in parts.items() if is_on)


@dataclass(frozen=True, kw_only=True)
class StudentRecipe:
    """A student: an architecture, the values of its spec, its training, and that of its control."""

    model: str
    training: Training
    control_training: Training | None = None  # the same student from scratch on hard labels; None: no control
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """What is fed and how often."""

    length: int = 32  # tokens of the sentence that is fed, special tokens included
    rounds: int = 2  # fresh processes an artifact, all artifacts taking turns: memory is laid out anew in each
    protocol: Protocol = field(default_factory=Protocol)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything `edgeseq run` does."""

    name: str
    data: str  # a file of edgeseq/data
    seed: int = 0
    limit: int | None = None  # examples of each split that are used, for a quick trial; None: all
    max_length: int = 128  # tokens a sentence is cut to, special tokens included; the bound of the exported length
    teacher: TeacherRecipe
    distillation: Distillation = field(default_factory=Distillation)
    students: Mapping[str, StudentRecipe]
    formats: tuple[str, ...]
    schemes: tuple[str, ...]
    format_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of converters, by format
    measuring: Measuring = field(default_factory=Measuring)


def load(name_or_path: str) -> Recipe:
    """A recipe of the package by name, or any TOML file by path.

    Raises:
        RequestError: There is no such recipe, it is not TOML, or a key or a value is wrong.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml" or path.is_file():
        try:
            text = path.read_text()
        except OSError as error:
            raise RequestError(f"recipe '{path}' cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise RequestError(f"recipe '{path}' is not TOML: {error}") from error
    else:
        source = resources.files("edgeseq.recipes") / f"{name_or_path}.toml"
        if not source.is_file():
            raise lookup.unknown("recipe", name_or_path, names())
        text = source.read_text()
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"recipe '{name_or_path}' is not TOML: {error}") from error
    return options_from(Recipe, data, where=f"recipe '{name_or_path}'")


def names() -> tuple[str, ...]:
    """The recipes that come with the package."""
    files = resources.files("edgeseq.recipes").iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml")))


def to_json(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain data, with every default written out."""
    return asdict(recipe)


def options_from(spec: type[T], data: Mapping[str, Any], *, where: str) -> T:
    """A frozen dataclass from plain data: unknown keys, missing keys and wrong types are errors that say where.

    Raises:
        RequestError: With the nearest known key, or the type that was expected.
    """
    hints = typing.get_type_hints(spec)
    known = {f.name: f for f in fields(typing.cast(Any, spec))}
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
            raise RequestError(f"{where} has an unknown key '{key}'; {hint}")
    missing = [
        f.name for f in known.values() if f.name not in data and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise RequestError(f"{where} lacks '{missing[0]}'")
    return spec(**{key: _typed(value, hints[key], f"{where}: '{key}'") for key, value in data.items()})


def _typed(value: Any, hint: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (UnionType, typing.Union):
        return None if value is None else _typed(value, next(a for a in arguments if a is not NoneType), where)
    if is_dataclass(hint):
        _expect(isinstance(value, Mapping), value, "a table", where)
        return options_from(typing.cast(type, hint), value, where=where)
    if origin is tuple:
        _expect(isinstance(value, list | tuple), value, "a list", where)
        return tuple(_typed(item, arguments[0], where) for item in value)
    if origin is not None and issubclass(origin, Mapping):
        _expect(isinstance(value, Mapping), value, "a table", where)
        return {key: _typed(item, arguments[1], f"{where}: '{key}'") for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    wanted = {"int": "an integer", "str": "a string", "float": "a number", "bool": "true or false"}[hint.__name__]
    _expect(type(value) is hint, value, wanted, where)
    return value


def _expect(holds: bool, value: Any, wanted: str, where: str) -> None:
    if not holds:
        raise RequestError(f"{where} must be {wanted}, not {value!r}")
