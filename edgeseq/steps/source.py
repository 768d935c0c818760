"""Capture a model that the user gave, and write down what it computes on inputs that the capture never saw."""

import json
from pathlib import Path

from edgeseq import sources
from edgeseq.reference import Reference
from edgeseq.worker import Job


def work(job: Job) -> None:
    """Settings: `source`, `path`, `model`. Leaves the captured model, `reference.npz` and `about.json`."""
    model = job.settings["model"]
    loaded = sources.get(job.settings["source"]).load(Path(job.settings["path"]), model)
    loaded.captured.save(job.out)
    Reference(model=model, cases=loaded.cases).save(job.out / "reference.npz")
    (job.out / "about.json").write_text(json.dumps(dict(loaded.about)))
