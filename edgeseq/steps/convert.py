"""Convert a captured model to one format, and quantize it under each scheme."""

from edgeseq import converters, quantize
from edgeseq.capture import CapturedModel
from edgeseq.quantize import Scheme
from edgeseq.worker import Job


def work(job: Job) -> None:
    """Settings: `model`, `format`, `schemes`, `options`. Reads `models/MODEL`.

    Leaves a folder a scheme, each with one artifact.
    """
    name, schemes = job.settings["model"], [Scheme.parse(s) for s in job.settings["schemes"]]
    total = len(schemes) + 1
    job.progress(0, total, "fp32")
    captured = CapturedModel.load(job.needs[f"models/{name}"])
    floating = converters.convert(
        captured, job.settings["format"], job.out / "fp32", model=name, given=job.settings["options"]
    )
    for done, scheme in enumerate((s for s in schemes if s.name != "fp32"), start=1):
        job.progress(done, total, scheme.name)
        quantize.quantize(floating, scheme, job.out / scheme.name)
    job.progress(total, total, "")
