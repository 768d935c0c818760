"""What a training leaves beside the weights: how good the model is in PyTorch float32."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from torch import nn

from edgeseq.data.encoded import Encoded
from edgeseq.models.saved import parameter_count
from edgeseq.tasks.classification import accuracy, predict


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """Accuracies on whole splits, and the model's size."""

    accuracy: float  # on the test set
    validation_accuracy: float
    shift_accuracy: Mapping[str, float]
    parameters: int

    @classmethod
    def of(cls, model: nn.Module, corpus: Encoded) -> Self:
        """Score a trained model on every split but the training set."""
        splits = {"test": corpus.test, "validation": corpus.validation, **corpus.shifted}
        scores = {name: accuracy(predict(model, split.sentences), split.labels) for name, split in splits.items()}
        return cls(
            accuracy=scores.pop("test"),
            validation_accuracy=scores.pop("validation"),
            shift_accuracy=scores,
            parameters=parameter_count(model),
        )

    def save(self, folder: Path) -> None:
        """Write `result.json`."""
        (folder / "result.json").write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read `result.json`."""
        return cls(**json.loads((folder / "result.json").read_text()))
