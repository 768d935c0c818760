"""The graph of stages that each command carries out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeseq.recipe import Measuring, Recipe
from edgeseq.stages import Stage


def of_recipe(recipe: Recipe) -> list[Stage]:
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
        stages += artifact_stages(name, recipe.formats, recipe.schemes, values["format_options"])
    formats = dict.fromkeys(recipe.students, recipe.formats)
    return [*stages, *parity_stages(formats), measurement_stage(formats, recipe.measuring, has_teacher=True)]


def of_models(
    source: str,
    path: Path,
    models: Sequence[str],
    formats: Sequence[str],
    schemes: Sequence[str],
    options: Mapping[str, Mapping[str, Any]],
    *,
    forward_only: bool = False,
) -> list[Stage]:
    """The stages that convert models of one source: a kind of thing that `convert` takes."""
    stages = [sourced_stage(source, path, model, forward_only=forward_only) for model in models]
    for model in models:
        stages += artifact_stages(model, formats, schemes, options)
    return [*stages, *parity_stages(dict.fromkeys(models, formats))]


def sourced_stage(source: str, path: Path, model: str, *, forward_only: bool) -> Stage:
    """Capture a model that the user gave, with all its signatures or its `forward` alone."""
    return Stage(
        name=f"models/{model}",
        work="edgeseq.steps.source:work",
        settings={"source": source, "path": str(path.resolve()), "model": model, "forward_only": forward_only},
        is_kept=False,  # a script may read anything, and packages that read a file may have changed
    )


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


def artifact_stages(
    model: str, formats: Sequence[str], schemes: Sequence[str], options: Mapping[str, Mapping[str, Any]]
) -> list[Stage]:
    """Convert one captured model to every format, with that format's options, under every scheme."""
    return [
        Stage(
            name=f"artifacts/{model}/{format}",
            work="edgeseq.steps.convert:work",
            settings={
                "model": model,
                "format": format,
                "schemes": list(schemes),
                "options": dict(options.get(format, {})),
            },
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
