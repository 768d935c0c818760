"""Measurements: samples, percentiles, and a real process on a real file."""

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.artifact import Artifact
from edgeseq.devices import host
from edgeseq.devices.host import Subject
from edgeseq.errors import UnavailableError
from edgeseq.measure import Measurement, Protocol

TOKENS = {"tokens": np.arange(1, 13, dtype=np.int32).reshape(2, 6)}
QUICK = Protocol(warmup_runs=2, runs=30, min_runs=5)
MEASURED = Measurement(
    artifact_sha256="ab",
    device="a processor",
    engine="an engine 1.0",
    threads=1,
    input="12 tokens",
    warmup_runs=2,
    load_ms=1.5,
    first_inference_ms=0.5,
    samples_ms=(3.0, 1.0, 2.0),
    baseline_rss_bytes=100,
    peak_rss_bytes=None,
    environment={"python": "3"},
)


def subject(artifact: Artifact) -> Subject:
    return Subject(path=artifact.path, format="onnx", sha256=artifact.sha256, signatures=artifact.signatures)


@given(samples=st.lists(st.floats(0.001, 1000), min_size=1, max_size=30))
def test_percentiles_interpolate_between_the_sorted_samples(samples: list[float]) -> None:
    measured = replace(MEASURED, samples_ms=tuple(samples))

    def slow(q: float) -> float:
        ordered = sorted(samples)
        place = (len(ordered) - 1) * q / 100
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (place - low)

    assert measured.latency_ms_p50 == pytest.approx(slow(50))
    assert measured.latency_ms_p90 == pytest.approx(slow(90))
    assert measured.latency_ms_p99 == pytest.approx(slow(99))


@pytest.mark.parametrize("peak", [None, 4096])
def test_measurement_survives_a_round_trip(peak: int | None, tmp_path: Path) -> None:
    measured = replace(MEASURED, peak_rss_bytes=peak)

    measured.save(tmp_path / "m.json")

    assert Measurement.load(tmp_path / "m.json") == measured


@pytest.fixture(scope="module")
def measured(tiny_onnx: Artifact) -> Measurement:
    return host.measure(subject(tiny_onnx), TOKENS, input="12 tokens", threads=1, protocol=QUICK)


def test_every_counted_inference_is_kept(measured: Measurement) -> None:
    assert len(measured.samples_ms) == QUICK.runs
    assert min(measured.samples_ms) > 0
    assert measured.warmup_runs == QUICK.warmup_runs


def test_measurement_says_what_was_run_where_and_how(measured: Measurement, tiny_onnx: Artifact) -> None:
    assert measured.artifact_sha256 == tiny_onnx.sha256
    assert re.fullmatch(r"onnxruntime \d+\.\d+\.\d+", measured.engine)
    assert measured.device == host.device_name() != ""
    assert (measured.threads, measured.input) == (1, "12 tokens")
    assert set(measured.environment) == {"processor", "cores", "memory", "system", "python"}


def test_load_and_first_inference_are_timed_apart(measured: Measurement) -> None:
    assert measured.load_ms > measured.latency_ms_p50
    assert measured.first_inference_ms >= min(measured.samples_ms)


def test_memory_counts_what_came_on_top_of_the_engine(measured: Measurement) -> None:
    assert measured.baseline_rss_bytes > 2**20
    assert measured.peak_rss_bytes is not None
    assert 0 < measured.peak_rss_bytes < 100 * 2**20  # the file is a few kilobytes; the engine itself takes its part


def test_slow_model_stops_early_but_not_under_the_least_number(tiny_onnx: Artifact) -> None:
    impatient = replace(QUICK, max_seconds=0.0, min_runs=7)

    measured = host.measure(subject(tiny_onnx), TOKENS, input="12 tokens", threads=1, protocol=impatient)

    assert len(measured.samples_ms) == 7


def test_process_that_fails_is_reported_with_its_last_words(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"this is no model")
    broken = Subject(path=path, format="onnx", sha256="ab")

    with pytest.raises(UnavailableError, match=r"broken\.onnx' failed with exit code 1: .*(?i:protobuf|model)"):
        host.measure(broken, TOKENS, input="12 tokens", threads=1, protocol=QUICK)


def test_inputs_reach_the_process_as_they_are(tiny_onnx: Artifact) -> None:
    wrong_type: Mapping[str, np.ndarray] = {"tokens": TOKENS["tokens"].astype(np.float32)}

    with pytest.raises(UnavailableError, match=r"Unexpected input data type.*float"):
        host.measure(subject(tiny_onnx), wrong_type, input="12 tokens", threads=1, protocol=QUICK)


def test_baseline_is_taken_before_torch_or_another_engine_is_loaded() -> None:
    code = "import sys; from edgeseq.devices import runtimes; runtimes.for_format('onnx'); print(*sys.modules)"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not {"torch", "ai_edge_litert", "coremltools", "tensorflow"} & set(result.stdout.split())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems cannot start the high-water mark anew")
def test_peak_memory_falls_after_a_reset() -> None:
    ballast = np.ones(40 * 2**20, np.uint8)
    high = host.peak_bytes()
    del ballast

    host.reset_peak_memory()

    low = host.peak_bytes()
    assert high is not None
    assert low is not None
    assert high - low > 20 * 2**20
