"""Capture a model that the user gave, and write down what it computes on inputs that the capture never saw."""

import json
from pathlib import Path

from edgeseq import sources
from edgeseq.reference import Reference
from edgeseq.worker import Job


def work(job: Job) -> None:
    """Settings: `source`, `path`, `model`, `forward_only`. Leaves the captured model, `reference.npz` and `about.json`."""
    path, model = Path(job.settings["path"]), job.settings["model"]
    loaded = sources.get(job.settings["source"]).load(path, model, forward_only=job.settings["forward_only"])
    loaded.captured.save(job.out)
    Reference(model=model, cases=loaded.cases).save(job.out / "reference.npz")
    (job.out / "about.json").write_text(json.dumps(dict(loaded.about)))
