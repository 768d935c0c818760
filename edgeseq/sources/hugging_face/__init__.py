"""A Hugging Face folder: `config.json` and `*.safetensors`, as `save_pretrained` writes them.

Nothing else in the folder is read: no pickled weights, no Python code, no adapters. Nothing is fetched.
"""

from pathlib import Path

from edgeseq.lookup import missing_package
from edgeseq.sources import Loaded, Source, file_name
from edgeseq.sources.hugging_face import folder


class HuggingFaceSource(Source):
    has_forward = True
    takes = "a Hugging Face folder with config.json and *.safetensors"

    def is_mine(self, path: Path) -> bool:
        return folder.is_like_one(path)

    def models(self, path: Path) -> tuple[str, ...]:
        """The folder's name, after its configuration and the headers of its weights were read."""
        folder.configuration(path)
        folder.weights(path)
        return (file_name(path.resolve().name),)

    def load(self, path: Path, model: str, *, forward_only: bool = False) -> Loaded:
        del model
        try:
            from edgeseq.sources.hugging_face import model as pretrained  # loads torch and transformers
        except ModuleNotFoundError as error:
            raise missing_package(error, wanted_by="source 'hugging_face'", extra="hf") from error
        return pretrained.load(path, forward_only=forward_only)


SOURCE = HuggingFaceSource()
