"""Run every artifact of one model in one format, and compare it with the reference."""

from dataclasses import replace
from functools import partial

from edgeseq import fixed_lengths
from edgeseq.artifact import Artifact
from edgeseq.devices import runtimes
from edgeseq.reference import Reference
from edgeseq.verify import verify
from edgeseq.worker import Job


def work(job: Job) -> None:
    """Settings: `model`, `format`. Reads `models/MODEL` and `artifacts/MODEL/FORMAT`; leaves a report a scheme."""
    name, format = job.settings["model"], job.settings["format"]
    reference = Reference.load(job.needs[f"models/{name}"] / "reference.npz")
    runtime = runtimes.for_format(format)
    folders = sorted(job.needs[f"artifacts/{name}/{format}"].glob("*/artifact.json"))
    for done, path in enumerate(folders):
        job.progress(done, len(folders), path.parent.name)
        artifact = Artifact.load(path.parent)
        session = runtime.load(artifact.path, artifact.signatures, threads=1)
        padded = fixed_lengths.cases(reference.of_kind("parity"), artifact.signatures)
        report = verify(
            artifact,
            replace(reference, cases=(*reference.cases, *padded)),
            fixed_lengths.padding(session.run, artifact.signatures),
            verified_by=runtime.verified_by,
            batch=runtime.batch,
            streams=partial(runtime.stream, session, artifact.signatures),
        )
        report.save(job.out / f"{artifact.scheme}.json")
    job.progress(len(folders), len(folders), "")
