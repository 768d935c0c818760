"""A measurement: every sample of one artifact on one device, with all that is needed to believe it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How to measure: warm-up and counted runs of a single stream, one at a time."""

    warmup_runs: int = 20
    runs: int = 200
    max_seconds: float = 10.0  # stops counting early on slow models, never under `min_runs`
    min_runs: int = 20


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Latency and memory of one artifact in a process of its own."""

    artifact_sha256: str
    device: str  # the machine and its processor or accelerator
    engine: str  # with its version
    threads: int
    input: str  # what was fed, in words
    warmup_runs: int
    load_ms: float
    first_inference_ms: float
    samples_ms: tuple[float, ...]  # wall time of every counted inference, in order
    baseline_rss_bytes: int  # of the process with the engine imported and nothing loaded
    peak_rss_bytes: int | None  # highest resident size above the baseline; None: this system cannot tell
    environment: Mapping[str, str]

    @property
    def latency_ms_p50(self) -> float:
        """Median warm latency."""
        return self.percentile(50)

    @property
    def latency_ms_p90(self) -> float:
        """90th percentile of warm latency."""
        return self.percentile(90)

    @property
    def latency_ms_p99(self) -> float:
        """99th percentile of warm latency."""
        return self.percentile(99)

    def percentile(self, q: float) -> float:
        """The q-th percentile of the samples, linearly interpolated, in milliseconds."""
        return float(np.percentile(self.samples_ms, q))

    def save(self, path: Path) -> None:
        """Write every sample as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read back what `save` wrote."""
        return cls.from_json(json.loads(path.read_text()))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The measurement in plain data."""
        return cls(**{**data, "samples_ms": tuple(data["samples_ms"])})
