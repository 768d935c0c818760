"""Measure every artifact, and the teacher beside them, on this machine."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgeseq.artifact import Artifact, tree_sha256
from edgeseq.devices import host, runtimes
from edgeseq.devices.host import Subject
from edgeseq.recipe import Measuring, options_from
from edgeseq.reference import Case, Reference
from edgeseq.signature import Tensors
from edgeseq.stages import cores
from edgeseq.worker import Job

TEACHER = "teacher"
Entry = tuple[
    str, Subject, Tensors, str
]  # (the stem of its files' names, what is measured, what is fed to which signature)


def work(job: Job) -> None:
    """Settings: `measuring`. Reads artifacts, models and the teacher; leaves `STEM.Nthreads.ROUND.json` files.

    In each round every artifact gets a fresh process, in shuffled order, so that a slow minute does not fall on one of them.
    """
    settings = options_from(Measuring, job.settings["measuring"], where="measuring")
    entries = [*of_artifacts(job), *of_teacher(job)]
    words = json.loads(next(iter(models(job))).joinpath("about.json").read_text())["input"]
    order = random.Random(0)
    plan: list[tuple[Entry, int, int]] = []
    for number in range(settings.rounds):
        plan += [(entry, 1, number) for entry in order.sample(entries, len(entries))]
    if cores() > 1:
        plan += [(entry, cores(), 0) for entry in order.sample(entries, len(entries)) if entry[0] != TEACHER]
    for done, ((stem, subject, inputs, signature), threads, number) in enumerate(plan):
        job.progress(done, len(plan), f"{stem}, {threads} thread{'s' * (threads > 1)}")
        measurement = host.measure(
            subject, inputs, input=words, threads=threads, protocol=settings.protocol, signature=signature
        )
        measurement.save(job.out / f"{stem}.{threads}threads.{number}.json")
    job.progress(len(plan), len(plan), "")


def models(job: Job) -> list[Path]:
    """Folders of captured models."""
    return [path for name, path in job.needs.items() if name.startswith("models/")]


def of_artifacts(job: Job) -> Iterator[Entry]:
    """Every artifact whose engine's times mean something here."""
    for name, folder in job.needs.items():
        if not name.startswith("artifacts/"):
            continue
        _, model, format = name.split("/")
        if not runtimes.for_format(format).is_timed:
            continue
        case = bench_case(job.needs[f"models/{model}"])
        for path in sorted(folder.glob("*/artifact.json")):
            artifact = Artifact.load(path.parent)
            subject = Subject(path=artifact.path, format=format, sha256=artifact.sha256, signatures=artifact.signatures)
            yield f"{model}.{format}.{artifact.scheme}", subject, case.inputs, case.signature


def of_teacher(job: Job) -> Iterator[Entry]:
    """The full-size training model in PyTorch, fed the same sentence: its own ids for the same tokens."""
    if TEACHER not in job.needs:
        return
    folder = job.needs[TEACHER]
    small, large = (
        (job.needs["data"] / f"{name}.vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
        for name in ("student", "teacher")
    )
    ids = {token: i for i, token in enumerate(large)}
    to_large = np.array([ids[token] for token in small], dtype=np.int32)
    inputs = {"tokens": to_large[bench_case(models(job)[0]).inputs["tokens"]]}
    yield TEACHER, Subject(path=folder, format="pytorch", sha256=tree_sha256(folder)), inputs, "forward"


def bench_case(folder: Path) -> Case:
    """What a model's reference says to feed."""
    return Reference.load(folder / "reference.npz").of_kind("bench")[0]
