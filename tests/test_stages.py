"""Stages run once, in processes of their own, whole or not at all, and go on after any kind of end."""

import fcntl
import io
import json
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edgeseq import limits, run_folder, scheduler, stage_process
from edgeseq.artifact import file_sha256, tree_files
from edgeseq.errors import ConversionError, EdgeseqError, GateError, RequestError, UnavailableError
from edgeseq.stages import PARTIAL, RECORD, Done, Stage, cores, exclusive, find_done, in_order, key_of, recorded
from tests.sample_runs import Diary, interrupted, stage

ROOT = Path(__file__).parents[1]
PATIENCE_S = 30.0


@pytest.fixture(autouse=True)
def importable_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def run(root: Path, *stages: Stage) -> tuple[dict[str, Done], Diary]:
    diary = Diary()
    with exclusive(root):
        return scheduler.run(stages, root, diary, given={}), diary


DIAMOND = (
    stage("top"),
    stage("sides/left", "join", "top"),
    stage("sides/right", "join", "top"),
    stage("bottom", "join", "sides/left", "sides/right"),
)


def contents(root: Path) -> dict[str, bytes]:
    """Everything that finished, by name."""
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in tree_files(root)}
    return {name: data for name, data in files.items() if not name.startswith(("logs/", "."))}


def test_every_stage_gets_what_the_stages_it_needs_left(root: Path) -> None:
    run(root, *DIAMOND)

    assert (root / "bottom" / "text").read_text() == "bottom+sides/left+top+sides/right+top"


def test_watcher_is_told_of_start_progress_and_end_in_order(root: Path) -> None:
    _, diary = run(root, stage("top"))

    assert diary.lines == [("started", "top"), ("1/2 half", "top"), ("finished", "top")]


def test_record_names_every_file_with_its_hash(root: Path) -> None:
    done, _ = run(root, stage("top"))

    record = json.loads((root / "top" / RECORD).read_text())
    written = {"text": file_sha256(root / "top" / "text"), "inner/copy": file_sha256(root / "top" / "inner" / "copy")}
    assert record == {"key": done["top"].key, "is_repeatable": True, "files": written}


def test_what_a_stage_prints_goes_to_its_log(root: Path) -> None:
    run(root, stage("sides/left"))

    assert (root / "logs" / "sides-left.log").read_text() == "something that a third party says\n"


def test_nothing_partial_is_left_after_a_run(root: Path) -> None:
    run(root, *DIAMOND)

    assert not (root / PARTIAL).exists()


def test_second_run_takes_everything_over(root: Path) -> None:
    first, _ = run(root, *DIAMOND)
    before = contents(root)

    second, diary = run(root, *DIAMOND)

    assert diary.of("reused") == sorted(s.name for s in DIAMOND)
    assert diary.of("started") == []
    assert (second, contents(root)) == (first, before)


def test_two_runs_leave_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        run(tmp_path / name, *DIAMOND)

    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize("damage", ["changed", "missing", "record cut", "record of another key"])
def test_damaged_stage_runs_again_and_its_dependents_do_not(root: Path, damage: str) -> None:
    run(root, *DIAMOND)
    before = contents(root)
    victim = root / "top"
    match damage:
        case "changed":
            (victim / "text").write_text("tOp")
        case "missing":
            (victim / "inner" / "copy").unlink()
        case "record cut":
            (victim / RECORD).write_text((victim / RECORD).read_text()[:-9])
        case "record of another key":
            (victim / RECORD).write_text((victim / RECORD).read_text().replace('"key": "', '"key": "0'))

    _, diary = run(root, *DIAMOND)

    assert diary.of("started") == ["top"]  # its files came out the same, so that what was made of them still counts
    assert contents(root) == before


def test_changed_setting_redoes_the_stage_and_what_depends_on_it(root: Path) -> None:
    run(root, *DIAMOND)
    left = replace(DIAMOND[1], settings={"text": "LEFT"})

    _, diary = run(root, DIAMOND[0], left, *DIAMOND[2:])

    assert diary.of("started") == ["bottom", "sides/left"]
    assert diary.of("reused") == ["sides/right", "top"]
    assert (root / "bottom" / "text").read_text() == "bottom+LEFT+top+sides/right+top"


def test_key_depends_on_settings_code_version_threads_and_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    done, other = {"top": Done("k", {"text": "0" * 64})}, {"top": Done("k", {"text": "1" * 64})}
    base = stage("left", "join", "top")
    keys = {
        key_of(base, done),
        key_of(base, other),
        key_of(replace(base, settings={"text": "x"}), done),
        key_of(replace(base, threads=2), done),
        key_of(replace(base, work="tests.sample_stages:crash"), done),
    }
    monkeypatch.setattr("edgeseq.stages.__version__", "999")

    assert len(keys | {key_of(base, done)}) == 6


def test_key_does_not_depend_on_the_order_of_settings() -> None:
    one = Stage(name="a", work="m:f", settings={"x": 1, "y": 2})
    two = Stage(name="a", work="m:f", settings={"y": 2, "x": 1})

    assert key_of(one, {}) == key_of(two, {})


def test_stage_that_is_not_kept_runs_every_time(root: Path) -> None:
    fleeting = replace(stage("top"), is_kept=False)
    run(root, fleeting)

    _, diary = run(root, fleeting)

    assert diary.of("started") == ["top"]


def test_given_stages_are_read_and_never_run(root: Path) -> None:
    done, _ = run(root, stage("top"))
    diary = Diary()

    with exclusive(root):
        scheduler.run([stage("bottom", "join", "top")], root, diary, given=done)

    assert diary.of("started") == ["bottom"]
    assert (root / "bottom" / "text").read_text() == "bottom+top"


def test_stage_planned_before_what_it_needs_is_our_own_bug() -> None:
    with pytest.raises(AssertionError, match=r"stage 'bottom' is planned before \['top'\]"):
        in_order([stage("bottom", "join", "top"), stage("top")], after=())


def test_worker_is_quiet_reproducible_and_keeps_to_its_threads(root: Path) -> None:
    run(root, replace(stage("top", "environment"), threads=1))

    assert (root / "top" / "text").read_text() == "1 0 1"


@pytest.mark.skipif(cores() < 2, reason="needs two cores")
def test_stages_that_need_nothing_of_each_other_run_side_by_side(root: Path, tmp_path: Path) -> None:
    one, two = str(tmp_path / "one"), str(tmp_path / "two")

    _, diary = run(
        root, stage("a", "touch_and_wait", mine=one, other=two), stage("b", "touch_and_wait", mine=two, other=one)
    )

    assert diary.of("finished") == ["a", "b"]


def test_stage_that_measures_runs_alone(root: Path) -> None:
    _, diary = run(root, stage("a"), replace(stage("b"), threads=None), stage("c"))

    began = diary.lines.index(("started", "b"))
    assert diary.lines[began : began + 3] == [("started", "b"), ("1/2 half", "b"), ("finished", "b")]


@pytest.mark.parametrize(
    ("function", "kind", "exit_code", "message"),
    [
        ("refuse", GateError, 1, "the answer is bad"),
        ("lack", UnavailableError, 4, "there is no such device; pip install 'edgeseq[device]'"),
    ],
)
def test_error_of_a_stage_reaches_the_parent_as_it_is(
    root: Path, function: str, kind: type[EdgeseqError], exit_code: int, message: str
) -> None:
    with pytest.raises(EdgeseqError) as caught:
        run(root, stage("bad", function))

    assert type(caught.value) is kind
    assert (str(caught.value), caught.value.exit_code) == (message, exit_code)


def test_crash_of_a_stage_names_the_stage_the_error_and_the_log(root: Path) -> None:
    with pytest.raises(
        ConversionError, match="stage 'bad' failed: ZeroDivisionError: by zero, of all numbers"
    ) as caught:
        run(root, stage("bad", "crash"))

    log = root / "logs" / "bad.log"
    assert str(log) in str(caught.value)
    assert "Traceback" in log.read_text()


def test_silent_death_of_a_stage_is_reported_with_signal_and_last_words(root: Path) -> None:
    with pytest.raises(
        ConversionError, match=r"stage .bad. was killed by signal 9, .*; last words: the memory is full"
    ):
        run(root, stage("bad", "die"))

    assert not (root / "bad").exists()


def test_silent_end_of_a_stage_is_reported_with_its_exit_code(root: Path) -> None:
    with pytest.raises(ConversionError, match="stage 'bad' ended with exit code 3 "):
        run(root, stage("bad", "leave"))


def test_what_a_dead_stage_left_behind_is_stopped(root: Path, tmp_path: Path) -> None:
    began = time.monotonic()

    with pytest.raises(ConversionError, match="stage 'bad' ended with exit code 3 "):
        run(root, stage("bad", "abandon", child=str(tmp_path / "child")))

    assert time.monotonic() - began < PATIENCE_S
    child = int((tmp_path / "child").read_text())
    while limits.resident_bytes(child):  # None once it is gone, 0 until init has noticed
        assert time.monotonic() - began < PATIENCE_S, "the child outlived its stage"
        time.sleep(0.05)


def test_message_that_is_cut_short_ends_the_listening(root: Path) -> None:
    events: queue.Queue[stage_process.Event] = queue.Queue()

    stage_process.listen("top", io.StringIO('{"progress": [1, 2, "half"]}\n{"fini'), events)

    assert [events.get(timeout=1) for _ in range(2)] == [("top", {"progress": [1, 2, "half"]}), ("top", None)]


def test_messages_do_not_make_the_scheduler_look_more_often(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    monkeypatch.setattr(stage_process, "check", lambda job, limits: looks.append(job))
    monkeypatch.setattr(scheduler, "LOOK_S", 60.0)

    run(root, *DIAMOND)

    assert len(looks) == 1


@pytest.mark.parametrize("function", ["refuse", "crash", "die", "leave"])
def test_failure_keeps_what_is_finished_and_leaves_nothing_of_the_failed_stage(root: Path, function: str) -> None:
    with pytest.raises(EdgeseqError):
        run(root, stage("top"), stage("bottom", function, "top"))

    assert run_folder.stage_names(root) == ["top"]
    assert not (root / "bottom").exists()
    _, diary = run(root, stage("top"), stage("bottom", "join", "top"))
    assert (diary.of("reused"), diary.of("started")) == (["top"], ["bottom"])


def test_second_run_at_the_same_folder_is_refused(root: Path) -> None:
    with exclusive(root), pytest.raises(RequestError, match="another edgeseq is at work in"), exclusive(root):
        pytest.fail("two runs held one folder")


def test_folder_is_free_again_after_a_run_that_failed(root: Path) -> None:
    with pytest.raises(GateError), exclusive(root):
        raise GateError

    with exclusive(root):
        assert (root / PARTIAL).is_dir()


@pytest.mark.parametrize("in_the_way", ["out", "out/inner"])
def test_folder_that_cannot_be_made_is_refused(tmp_path: Path, in_the_way: str) -> None:
    (tmp_path / "out").write_text("a file")

    with (
        pytest.raises(RequestError, match=r"cannot be written: .*; choose another by --output"),
        exclusive(tmp_path / in_the_way),
    ):
        pytest.fail("a folder was held that cannot be")


def test_recorded_stage_is_refused_once_a_byte_of_it_changed(root: Path) -> None:
    done, _ = run(root, stage("top"))
    assert recorded("top", root) == done["top"]
    (root / "top" / "text").write_text("tOp")

    with pytest.raises(RequestError, match="text' is not the file that the run wrote"):
        recorded("top", root)


# Kill a run in the middle, as the system does when memory runs out or the power fails.


RUNNER = "import sys, pathlib; from tests import sample_runs; sample_runs.main(pathlib.Path(sys.argv[1]))"


@contextmanager
def run_that_waits(root: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process whose run has finished the first stage and stands in the middle of the second."""
    (root.parent / "hold").write_text("")
    process = subprocess.Popen([sys.executable, "-c", RUNNER, str(root)], cwd=ROOT, stderr=subprocess.PIPE)
    try:
        _wait_for(lambda: (root.parent / "ready").exists() or process.poll() is not None)
        assert process.poll() is None, process.stderr and process.stderr.read()
        yield process
    finally:
        process.kill()
        process.communicate()


def _wait_for(condition: "object") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():  # type: ignore[operator]  # a callable
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def _is_unlocked(path: Path) -> bool:
    with path.open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_killed_run_goes_on_where_it_stood(root: Path, tmp_path: Path) -> None:
    with run_that_waits(root) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    found = run_folder.stage_names(root)
    (unfinished,) = (root / PARTIAL).glob("second-*")
    left_behind = (unfinished / "text").read_text()
    (tmp_path / "hold").unlink()
    _, diary = run(root, *interrupted(tmp_path))

    assert (found, left_behind) == (["first"], "hal")
    assert (diary.of("reused"), diary.of("started")) == (["first"], ["second", "third"])
    assert (tmp_path / "calls").read_text().split() == ["first", "second", "third"]
    assert contents(root) == _uninterrupted(tmp_path)


def _uninterrupted(tmp_path: Path) -> dict[str, bytes]:
    whole = tmp_path / "whole"
    whole.mkdir()
    run(whole, *interrupted(tmp_path))
    return contents(whole)


def test_worker_of_a_killed_run_dies_with_it(root: Path, tmp_path: Path) -> None:
    with run_that_waits(root) as process:
        assert not _is_unlocked(tmp_path / "lock")  # held by the worker for as long as it lives
        process.send_signal(signal.SIGKILL)

        _wait_for(lambda: _is_unlocked(tmp_path / "lock"))


def test_folder_of_a_run_in_another_process_is_refused_and_free_once_it_is_killed(root: Path) -> None:
    with run_that_waits(root) as process:
        with pytest.raises(RequestError, match="another edgeseq is at work"), exclusive(root):
            pytest.fail("two runs held one folder")
        process.send_signal(signal.SIGKILL)
        process.wait()

        with exclusive(root):
            assert (root / "first" / RECORD).exists()


def test_interrupt_stops_the_workers(root: Path, tmp_path: Path) -> None:
    with run_that_waits(root) as process:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE_S)

        assert _is_unlocked(tmp_path / "lock")
    assert run_folder.stage_names(root) == ["first"]


def test_folder_that_only_lacks_its_record_is_not_taken_for_finished(root: Path) -> None:
    done, _ = run(root, stage("top"))
    (root / "top" / RECORD).unlink()

    assert find_done(stage("top"), done["top"].key, root) is None


def test_order_of_stages_is_kept(root: Path) -> None:
    def names(stages: Sequence[Stage]) -> list[str]:
        return [s.name for s in stages]

    assert names(in_order(DIAMOND, after=())) == names(DIAMOND)
    assert os.access(root, os.W_OK)
