"""What each command does, as a graph of stages."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edgeseq import converters, data, models, quantize, scheduler
from edgeseq.errors import RequestError
from edgeseq.limits import Limits
from edgeseq.quantize import Scheme
from edgeseq.recipe import TEACHER_FORMAT, Measuring, Recipe, options_from
from edgeseq.report import gather
from edgeseq.report.contents import Report
from edgeseq.scheduler import Watcher
from edgeseq.stages import PARTIAL, Done, Stage, exclusive, recorded, write_atomically
from edgeseq.version import __version__

SCHEMA_VERSION = 1
NAME = re.compile(r"[A-Za-z0-9_-]+")


def run(recipe: Recipe, root: Path, watcher: Watcher, limits: Limits | None = None) -> Report:
    """Everything a recipe asks for; goes on where an interrupted run stood."""
    check(recipe)
    return carry_out(plan(recipe), root, watcher, title=recipe.name, request={"recipe": asdict(recipe)}, limits=limits)


def convert(
    script: Path,
    formats: Sequence[str],
    schemes: Sequence[str],
    root: Path,
    watcher: Watcher,
    limits: Limits | None = None,
) -> Report:
    """The user's own model to every format and scheme, verified."""
    check_formats(formats, schemes)
    name = script.stem
    captured = Stage(
        name=f"models/{name}",
        work="edgeseq.steps.script:work",
        settings={"script": str(script.resolve()), "model": name},
        is_kept=False,  # the script may read anything
    )
    stages = [captured, *artifact_stages(name, formats, schemes), *parity_stages({name: formats})]
    request = {"script": script.name, "formats": list(formats), "schemes": list(schemes)}
    return carry_out(stages, root, watcher, title=name, request=request, limits=limits)


def verify(root: Path, watcher: Watcher) -> Report:
    """Run every artifact of a run folder again and compare it with its reference."""
    request, found = opened(root)
    stages = [replace(stage, is_kept=False) for stage in parity_stages(formats_by_model(found))]
    return carry_out(stages, root, watcher, title=request["title"], request=request["request"], given=found)


def bench(root: Path, measuring: Measuring, watcher: Watcher) -> Report:
    """Measure every artifact of a run folder again."""
    request, found = opened(root)
    stage = measurement_stage(formats_by_model(found), measuring, has_teacher="teacher" in found)
    return carry_out(
        [replace(stage, is_kept=False)], root, watcher, title=request["title"], request=request["request"], given=found
    )


def report(root: Path) -> Report:
    """Write the report of a run folder anew."""
    request, _ = opened(root)
    return gather.write(root, title=request["title"])


def plan(recipe: Recipe) -> list[Stage]:
    """The stages of a recipe."""
    values = json.loads(json.dumps(asdict(recipe)))  # tuples become lists, as they are after a round trip
    common = {"seed": recipe.seed}
    stages = [
        Stage(
            name="data",
            work="edgeseq.steps.prepare:work",
            settings={
                "data": recipe.data,
                "weights": recipe.teacher.weights,
                "max_length": recipe.max_length,
                "limit": recipe.limit,
            },
        ),
        Stage(
            name="teacher",
            work="edgeseq.steps.teach:work",
            settings={**common, "teacher": values["teacher"]},
            needs=("data",),
            threads=None,
        ),
        Stage(
            name="transfer",
            work="edgeseq.steps.transfer:work",
            settings={**common, "distillation": values["distillation"]},
            needs=("data", "teacher"),
            threads=None,
        ),
    ]
    stages += [distilled_stage(name, values) for name in recipe.students]
    stages += [control_stage(name, values) for name, s in recipe.students.items() if s.control_training is not None]
    stages += [captured_stage(name, values) for name in recipe.students]
    for name in recipe.students:
        stages += artifact_stages(name, recipe.formats, recipe.schemes)
    formats = dict.fromkeys(recipe.students, recipe.formats)
    return [*stages, *parity_stages(formats), measurement_stage(formats, recipe.measuring, has_teacher=True)]


def distilled_stage(student: str, recipe: Mapping[str, Any]) -> Stage:
    """Distil a student from the teacher."""
    return Stage(
        name=f"students/{student}",
        work="edgeseq.steps.learn:distil",
        settings={
            "seed": recipe["seed"],
            "student": recipe["students"][student],
            "distillation": recipe["distillation"],
        },
        needs=("data", "teacher", "transfer"),
    )


def control_stage(student: str, recipe: Mapping[str, Any]) -> Stage:
    """Train the same student without the teacher."""
    return Stage(
        name=f"controls/{student}",
        work="edgeseq.steps.learn:control",
        settings={"seed": recipe["seed"], "student": recipe["students"][student]},
        needs=("data",),
    )


def captured_stage(student: str, recipe: Mapping[str, Any]) -> Stage:
    """Capture a distilled student."""
    return Stage(
        name=f"models/{student}",
        work="edgeseq.steps.capture:work",
        settings={
            "student": student,
            "max_length": recipe["max_length"],
            "bench_length": recipe["measuring"]["length"],
        },
        needs=("data", f"students/{student}"),
    )


def artifact_stages(model: str, formats: Sequence[str], schemes: Sequence[str]) -> list[Stage]:
    """Convert one captured model to every format, under every scheme."""
    return [
        Stage(
            name=f"artifacts/{model}/{format}",
            work="edgeseq.steps.convert:work",
            settings={"model": model, "format": format, "schemes": list(schemes)},
            needs=(f"models/{model}",),
        )
        for format in formats
    ]


def parity_stages(formats: Mapping[str, Sequence[str]]) -> list[Stage]:
    """Verify the artifacts of each model in each of its formats."""
    return [
        Stage(
            name=f"parity/{model}/{format}",
            work="edgeseq.steps.verify:work",
            settings={"model": model, "format": format},
            needs=(f"models/{model}", f"artifacts/{model}/{format}"),
        )
        for model, of_model in formats.items()
        for format in of_model
    ]


def measurement_stage(formats: Mapping[str, Sequence[str]], measuring: Measuring, *, has_teacher: bool) -> Stage:
    """Measure everything on this machine, with nothing beside it."""
    needs = [f"models/{model}" for model in formats]
    needs += [f"artifacts/{model}/{format}" for model, of_model in formats.items() for format in of_model]
    return Stage(
        name="measurements",
        work="edgeseq.steps.measure:work",
        settings={"measuring": asdict(measuring)},
        needs=(*needs, *(("data", "teacher") if has_teacher else ())),
        threads=None,
        is_repeatable=False,
    )


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
    require_own_folder(root)
    with exclusive(root):
        write_atomically(root / "request.json", json.dumps({"title": title, "request": request}, indent=1))
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
    check_formats(recipe.formats, recipe.schemes)
    labels_as = Scheme.parse(recipe.distillation.teacher_scheme)
    if labels_as.name != "fp32":
        quantize.check(TEACHER_FORMAT, labels_as)


def check_model(name: str, options: Mapping[str, Any]) -> None:
    """Refuse an unknown architecture, and values that its spec does not have."""
    options_from(models.get(name).spec, {"n_vocab": 1, **options}, where=f"model '{name}'")


def check_formats(formats: Sequence[str], schemes: Sequence[str]) -> None:
    """Refuse unknown formats and schemes, formats whose packages are missing, and schemes that a format cannot express."""
    parsed = [Scheme.parse(scheme) for scheme in schemes]
    for format in formats:
        converters.get(format)
        for scheme in parsed:
            quantize.check(format, scheme)


def opened(root: Path) -> tuple[Mapping[str, Any], dict[str, Done]]:
    """The request that a run folder answers, and its finished stages.

    Raises:
        RequestError: It is not a run folder, or a file in it was changed.
    """
    try:
        written = json.loads((root / "request.json").read_text())
        request = {"title": written["title"], "request": written["request"]}
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"'{root / 'request.json'}' does not describe a run: {error!r}") from error
    except OSError as error:
        raise RequestError(
            f"'{root}' is not a run folder: it has no request.json; `edgeseq run` and `convert` make one"
        ) from error
    return request, {name: recorded(name, root) for name in stage_names(root)}


def stage_names(root: Path) -> list[str]:
    """Every finished stage of a run folder."""
    records = root.glob("*/**/stage.json")
    return sorted(path.parent.relative_to(root).as_posix() for path in records if PARTIAL not in path.parts)


def formats_by_model(found: Mapping[str, Done]) -> dict[str, list[str]]:
    """Which formats each model has artifacts in.

    Raises:
        RequestError: There are no artifacts yet.
    """
    formats: dict[str, list[str]] = {}
    for name in found:
        if name.startswith("artifacts/"):
            _, model, format = name.split("/")
            formats.setdefault(model, []).append(format)
    if not formats:
        raise RequestError("the run folder holds no artifacts yet; finish it by the command that began it")
    return formats


def require_own_folder(root: Path) -> None:
    """Refuse a folder that holds something else."""
    is_ours = (root / "request.json").exists() or (root / PARTIAL).exists()
    if root.is_file() or (root.is_dir() and any(root.iterdir()) and not is_ours):
        raise RequestError(f"output folder '{root}' holds something else than a run; choose another by --output")
