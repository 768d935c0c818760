"""Fetch a labelled data set, and put it into the teacher's tokens and into the students' smaller vocabulary."""

import json

from edgeseq import data
from edgeseq.data.encoded import Encoded, encode
from edgeseq.tokens.wordpiece import WordPiece
from edgeseq.worker import Job


def work(job: Job) -> None:
    """Settings: `data`, `weights`, `max_length`, `limit`. Leaves `teacher.json`, `student.json` and their vocabularies."""
    source, pretrained = data.data(job.settings["data"]), data.weights(job.settings["weights"])
    job.progress(0, 3, "fetching data")
    splits = source.load().limited(job.settings["limit"])
    job.progress(1, 3, "fetching weights")
    vocabulary = pretrained.fetch().vocabulary
    job.progress(2, 3, "splitting into tokens")
    full = WordPiece.load(vocabulary)
    pruned = full.pruned_to(full.encode([e.text for e in splits.train], max_length=job.settings["max_length"]))
    for name, tokenizer in (("teacher", full), ("student", pruned)):
        tokenizer.save(job.out / f"{name}.vocab.txt")
        encoded = Encoded(
            n_classes=len(splits.classes),
            n_vocab=len(tokenizer.vocabulary),
            train=encode(splits.train, tokenizer, job.settings["max_length"]),
            validation=encode(splits.validation, tokenizer, job.settings["max_length"]),
            test=encode(splits.test, tokenizer, job.settings["max_length"]),
            shifted={k: encode(v, tokenizer, job.settings["max_length"]) for k, v in splits.shifted.items()},
        )
        encoded.save(job.out / f"{name}.json")
    about = {"classes": splits.classes, "sources": [source.source, pretrained.source]}
    (job.out / "about.json").write_text(json.dumps(about, indent=1))
