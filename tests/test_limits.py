"""A stage that uses more than it may is stopped, and what it said last is told."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeseq import cli, limits, scheduler
from edgeseq.errors import ConversionError, RequestError
from edgeseq.limits import Limits
from edgeseq.stages import exclusive
from tests.sample_runs import Diary, stage

ROOT = Path(__file__).parents[1]
ENOUGH = 100_000_000  # for a process that does nothing but import the worker


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def stopped_for_memory(root: Path, **settings: str) -> str:
    """The message of a stage that eats more than it may."""
    with exclusive(root), pytest.raises(ConversionError) as refused:
        scheduler.run([stage("big", "eat", **settings)], root, Diary(), given={}, limits=Limits(memory_bytes=ENOUGH))
    return str(refused.value)


def test_stage_that_eats_memory_is_stopped_with_its_last_words(root: Path) -> None:
    message = stopped_for_memory(root)

    assert "stage 'big' was stopped: it held " in message
    assert "the limit is 100MB; allow more by --memory-limit" in message
    assert "last words: about to eat" in message


def test_what_a_stage_starts_counts_and_is_stopped_with_it(root: Path, tmp_path: Path) -> None:
    message = stopped_for_memory(root, child=str(tmp_path / "pid"))

    child = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 20
    while limits.resident_bytes(child):  # None once it is gone, 0 until init has noticed
        assert time.monotonic() < deadline, "the child outlived its stage"
        time.sleep(0.05)
    assert "was stopped: it held" in message


def test_stage_that_takes_too_long_is_stopped(root: Path) -> None:
    with (
        exclusive(root),
        pytest.raises(ConversionError, match=r"'slow' was stopped after \d+ s, and the limit is 2 s; .*--time-limit"),
    ):
        scheduler.run([stage("slow", "sleep")], root, Diary(), given={}, limits=Limits(time_s=2))


def test_stages_within_their_limits_finish(root: Path) -> None:
    with exclusive(root):
        done = scheduler.run([stage("one")], root, Diary(), given={}, limits=Limits(memory_bytes=ENOUGH, time_s=600))

    assert list(done) == ["one"]


def test_a_killed_stage_says_that_memory_may_be_the_reason(root: Path) -> None:
    with (
        exclusive(root),
        pytest.raises(ConversionError, match=r"killed by signal 9, as systems do when memory runs out"),
    ):
        scheduler.run([stage("dies", "die")], root, Diary(), given={})


@pytest.mark.parametrize(
    ("memory", "time_", "expected"),
    [
        ("4GB", "90s", Limits(memory_bytes=4_000_000_000, time_s=90)),
        ("1.5 gb", "30m", Limits(memory_bytes=1_500_000_000, time_s=1800)),
        ("800MB", "2h", Limits(memory_bytes=800_000_000, time_s=7200)),
        ("none", "none", Limits()),
    ],
)
def test_limits_are_read_as_written(memory: str, time_: str, expected: Limits) -> None:
    assert Limits.parse(memory, time_) == expected


def test_limits_can_be_a_share_of_the_machine() -> None:
    total = limits.machine_bytes()

    assert total is not None
    assert Limits.parse("50%", None).memory_bytes == int(0.5 * total)
    assert Limits.of_machine() == Limits(memory_bytes=int(0.8 * total))


@pytest.mark.parametrize(("memory", "time_"), [("4", None), ("-1GB", None), ("0GB", None), (None, "10"), (None, "0s")])
def test_what_is_no_amount_is_refused(memory: str | None, time_: str | None) -> None:
    with pytest.raises(RequestError, match=r"is no (amount of memory|time); write"):
        Limits.parse(memory, time_)


def test_memory_of_a_process_is_what_it_takes() -> None:
    code = "x = bytearray(b'x' * 60_000_000); print('ready', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        held = limits.resident_bytes(process.pid)
        process.kill()

    assert held is not None
    assert 60_000_000 <= held <= 90_000_000


def test_memory_is_told_where_there_is_no_proc() -> None:
    told = limits._told_by_ps(os.getpid())

    if told is None:
        pytest.skip("there is no ps here")
    assert told > 10_000_000


def test_memory_of_a_process_that_ended_is_not_known() -> None:
    assert limits.resident_bytes(2**22 + 1) is None


SCRIPT = """
from torch import nn, ones


def get_model():
    return nn.Linear(4, 3)


def get_args():
    return (ones(2, 4),)
"""


def test_the_command_stops_a_converter_at_its_limit(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(SCRIPT)

    wrong = cli.main(["convert", "mine.py", "--format", "onnx", "--output", "out", "--memory-limit", "4"])
    stopped = cli.main(["convert", "mine.py", "--format", "onnx", "--output", "out", "--memory-limit", "60MB"])

    complaints = [line for line in capsys.readouterr().err.splitlines() if line.startswith("edgeseq: ")]
    assert (wrong, stopped) == (2, 1)
    assert "--memory-limit '4' is no amount of memory" in complaints[0]
    assert "stage 'models/mine' was stopped: it held" in complaints[1]
    assert len(complaints) == 2
    assert not Path("out/models").exists()
