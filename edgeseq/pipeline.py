"""What each command does."""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edgeseq import converters, data, models, plans, quantize, run_folder, scheduler, sources
from edgeseq.errors import RequestError
from edgeseq.limits import Limits
from edgeseq.quantize import Scheme
from edgeseq.recipe import TEACHER_FORMAT, Measuring, Recipe, options_from
from edgeseq.report import gather
from edgeseq.report.contents import Report
from edgeseq.scheduler import Watcher
from edgeseq.stages import Done, Stage, exclusive, write_atomically
from edgeseq.version import __version__

SCHEMA_VERSION = 1
NAME = re.compile(r"[A-Za-z0-9_-]+")
OPTION = re.compile(r"(?P<format>\w+)\.(?P<name>\w+)=(?P<value>.+)")


def run(recipe: Recipe, root: Path, watcher: Watcher, limits: Limits | None = None) -> Report:
    """Everything a recipe asks for; goes on where an interrupted run stood."""
    check(recipe)
    request = {"recipe": asdict(recipe)}
    return carry_out(plans.of_recipe(recipe), root, watcher, title=recipe.name, request=request, limits=limits)


def convert(
    path: Path,
    formats: Sequence[str],
    schemes: Sequence[str],
    root: Path,
    watcher: Watcher,
    limits: Limits | None = None,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    forward_only: bool = False,
) -> Report:
    """What the user has, whatever kind of source it is, to every format and scheme, verified.

    Args:
        path: The source.
        formats: Names of formats.
        schemes: Names of schemes.
        root: The run folder to write.
        watcher: Told of the progress.
        limits: Of each stage.
        options: Of converters, by format.
        forward_only: One `forward` of a model that has signatures with caches.

    Raises:
        RequestError: It cannot be converted, and why.
    """
    source = sources.find(path)
    if forward_only and not sources.get(source).has_forward:
        raise RequestError(
            f"--forward-only chooses among several signatures, but '{path}' has what it has; leave it out"
        )
    if root.resolve() == path.resolve():
        raise RequestError(f"output folder '{root}' is what is to be converted; choose another by --output")
    models = sources.get(source).models(path)
    check_formats(formats, schemes, options or {})
    stages = plans.of_models(source, path, models, formats, schemes, options or {}, forward_only=forward_only)
    title = path.resolve().stem if len(models) > 1 else models[0]
    request: dict[str, Any] = {"source": source, "model": path.name, "formats": list(formats), "schemes": list(schemes)}
    request |= {"options": options} if options else {}
    return carry_out(stages, root, watcher, title=title, request=request, limits=limits)


def verify(root: Path, watcher: Watcher, limits: Limits | None = None) -> Report:
    """Run every artifact of a run folder again and compare it with its reference."""
    request, found = run_folder.opened(root)
    stages = [replace(stage, is_kept=False) for stage in plans.parity_stages(run_folder.formats_by_model(found))]
    return carry_out(
        stages, root, watcher, title=request["title"], request=request["request"], given=found, limits=limits
    )


def bench(root: Path, measuring: Measuring, watcher: Watcher, limits: Limits | None = None) -> Report:
    """Measure every artifact of a run folder again."""
    request, found = run_folder.opened(root)
    stage = plans.measurement_stage(run_folder.formats_by_model(found), measuring, has_teacher="teacher" in found)
    stages = [replace(stage, is_kept=False)]
    return carry_out(
        stages, root, watcher, title=request["title"], request=request["request"], given=found, limits=limits
    )


def report(root: Path) -> Report:
    """Write the report of a run folder anew."""
    request, _ = run_folder.opened(root)
    return gather.write(root, title=request["title"])


def carry_out(
    stages: Sequence[Stage],
    root: Path,
    watcher: Watcher,
    *,
    title: str,
    request: Mapping[str, Any],
    given: Mapping[str, Done] | None = None,
    limits: Limits | None = None,
) -> Report:
    """Bring the stages up to date, then write the manifest and the report."""
    run_folder.require_own_folder(root)
    with exclusive(root):
        write_atomically(root / run_folder.REQUEST, json.dumps({"title": title, "request": request}, indent=1))
        done = scheduler.run(stages, root, watcher, given=given or {}, limits=limits)
        write_atomically(root / "manifest.json", manifest(title, request, done))
        return gather.write(root, title=title)


def manifest(title: str, request: Mapping[str, Any], done: Mapping[str, Done]) -> str:
    """What was made, with the hash of every file; measurements are named without one, since they differ from run to run."""
    measured = sorted(name for name, stage in done.items() if not stage.is_repeatable)
    made = {name: dict(sorted(done[name].files.items())) for name in sorted(done) if name not in measured}
    contents = {
        "schema_version": SCHEMA_VERSION,
        "edgeseq": __version__,
        "title": title,
        "request": request,
        "files": made,
        "measured": measured,
    }
    return json.dumps(contents, indent=1) + "\n"


def check(recipe: Recipe) -> None:
    """Refuse what cannot work before any work starts.

    Raises:
        RequestError: An unknown name.
        UnsupportedError: A format cannot express a scheme.
    """
    for name, student in recipe.students.items():
        if not NAME.fullmatch(name):
            raise RequestError(f"student '{name}' names a folder; use letters, digits, '-' and '_' only")
        check_model(student.model, student.options)
    check_model(recipe.teacher.model, recipe.teacher.options)
    data.data(recipe.data)
    data.weights(recipe.teacher.weights)
    check_formats(recipe.formats, recipe.schemes, recipe.format_options)
    labels_as = Scheme.parse(recipe.distillation.teacher_scheme)
    if labels_as.name != "fp32":
        quantize.check(TEACHER_FORMAT, labels_as)


def parsed_options(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """From `coreml.target=ios18` to a mapping by format; values are as in TOML, and words need no quotes.

    Raises:
        RequestError: A text that is no such assignment, or an option that is given twice.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        match = OPTION.fullmatch(text)
        if match is None:
            raise RequestError(f"--option '{text}' is no option; write FORMAT.NAME=VALUE, such as coreml.target=ios18")
        of_format = found.setdefault(match["format"], {})
        if match["name"] in of_format:
            raise RequestError(f"--option '{match['format']}.{match['name']}' is given twice; give one value")
        of_format[match["name"]] = _value(match["value"])
    return found


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def check_model(name: str, options: Mapping[str, Any]) -> None:
    """Refuse an unknown architecture, and values that its spec does not have."""
    options_from(models.get(name).spec, {"n_vocab": 1, **options}, where=f"model '{name}'")


def check_formats(formats: Sequence[str], schemes: Sequence[str], options: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse unknown formats, schemes and options, formats whose packages are missing, and what a format cannot express."""
    parsed = [Scheme.parse(scheme) for scheme in schemes]
    for format in formats:
        converters.get(format)
        for scheme in parsed:
            quantize.check(format, scheme)
    for format, given in options.items():
        if format not in formats:
            raise RequestError(f"options are given for format '{format}', which is none of {', '.join(formats)}")
        converters.options(format, given)
