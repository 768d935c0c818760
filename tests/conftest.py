"""What several test files share: one tiny model, captured and converted once."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from edgeseq.artifact import Artifact

# Each random search is the same on every machine, and slow machines get the time they need.
settings.register_profile("edgeseq", derandomize=True, deadline=None, max_examples=40)
settings.load_profile("edgeseq")
# Read when an engine is imported. Models this small are slower on several threads, and tests run side by side.
os.environ |= {"OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Artifact]:
    """Embeddings, an LSTM, a table-sized linear layer: tokens (B, T) -> logits (B, T, 3), as a float32 ONNX file."""
    pytest.importorskip("onnxruntime")
    from tests.tiny import to_onnx  # loads torch

    yield to_onnx(tmp_path_factory.mktemp("tiny") / "fp32")


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """The tiny model in every format, float32."""
    from tests.tiny import in_every_format  # loads torch

    return in_every_format(tmp_path_factory.mktemp("formats"))


@pytest.fixture
def alone(artifacts: dict[str, Artifact], tmp_path: Path) -> Callable[[str], Path]:
    """The model file of a format somewhere without its record."""
    from tests.tiny import without_record  # loads torch

    return lambda format: without_record(artifacts[format], tmp_path)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, so that nothing is written into the checkout."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
