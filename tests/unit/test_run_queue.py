"""The queue: its order survives the program, and nothing that waits is ever lost."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training_backend import paths, runs
from training_backend.errors import UserError
from training_backend.job import TrainingJob, parse_job
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import (
    Event,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    RunStarted,
    RunStopped,
)
from training_backend.queueing import queue_file, run_queue
from training_backend.runs import Run

REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("lorasmith_home")


def job(name: str = "first", data: str = "demo") -> TrainingJob:
    made = parse_job({"name": name, "model": {"id": "demo"}, "dataset": {"path": data}})
    assert isinstance(made, TrainingJob)
    return made


def add(*names: str) -> list[Run]:
    return run_queue.add([job(name) for name in names])


def waiting() -> list[str]:
    return [entry.name for entry in run_queue.entries()]


def end(run: Run, *events: Event) -> None:
    """What a worker writes."""
    writer = JournalWriter(run.folder)
    for event in (RunStarted(run_id=run.id, folder=str(run.folder), pid=1), *events):
        writer.append(event)
    writer.close()


def in_another_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, encoding="utf-8"
    )


def order_file() -> Path:
    return paths.home() / "queue.json"


# --------------------------------------------------------------------------------- the order


def test_what_is_added_waits_in_its_order_each_as_a_run_of_its_own() -> None:
    first, second = add("first", "second")
    assert waiting() == ["first", "second"]
    assert first.state() == second.state() == "queued"
    assert [summary.state for summary in runs.list_runs()] == ["queued", "queued"]


def test_a_run_that_somebody_else_is_about_to_start_does_not_wait_here() -> None:
    runs.create(job("started by train"))
    assert waiting() == []


def test_on_a_full_disk_none_of_several_jobs_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    add("earlier")
    room = iter([True, False])
    create = runs.create

    def create_while_there_is_room(job: TrainingJob) -> Run:
        if not next(room):
            raise OSError(errno.ENOSPC, "No space left on device")
        return create(job)

    monkeypatch.setattr(runs, "create", create_while_there_is_room)
    with pytest.raises(OSError, match="No space left"):
        add("first", "second")
    assert waiting() == ["earlier"] and len(runs.list_runs()) == 1


def test_a_run_is_moved_and_moving_beyond_the_end_is_the_end() -> None:
    first, _, third = add("first", "second", "third")
    run_queue.move(third.id, 0)
    assert waiting() == ["third", "first", "second"]
    run_queue.move(first.id, 99)
    assert waiting() == ["third", "second", "first"]


def test_a_removed_run_can_be_put_back_where_it_was() -> None:
    _, second, _ = add("first", "second", "third")
    assert run_queue.remove(second.id) == 1
    assert waiting() == ["first", "third"]
    assert not second.folder.exists()
    run_queue.put_back(second.id, 1)
    assert waiting() == ["first", "second", "third"]


def test_only_the_last_removed_run_can_be_put_back() -> None:
    first, second = add("first", "second")
    run_queue.remove(first.id)
    run_queue.remove(second.id)
    with pytest.raises(UserError, match="no longer there"):
        run_queue.put_back(first.id, 0)
    run_queue.put_back(second.id, 0)
    assert waiting() == ["second"]


@pytest.mark.parametrize("act", [run_queue.remove, lambda id: run_queue.move(id, 0)])
def test_a_run_that_has_begun_can_be_neither_moved_nor_removed(
    act: Callable[[str], object],
) -> None:
    (run,) = add("first")
    end(run, RunCompleted(folder="x"))
    with pytest.raises(UserError, match="does not wait"):
        act(run.id)
    assert run.folder.is_dir()


@given(data=st.data())
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_sequence_of_changes_gives_what_a_list_would(
    data: st.DataObject, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("LORASMITH_HOME", str(tmp_path_factory.mktemp("home")))
    expected: list[str] = []
    for _ in range(data.draw(st.integers(1, 6))):
        what = data.draw(st.sampled_from(["add", "move", "remove", "begin", "lose"]))
        if what == "add" or not expected:
            expected += [run.id for run in add("a", "b")]
            continue
        chosen = data.draw(st.sampled_from(expected))
        if what == "move":
            to = data.draw(st.integers(0, len(expected)))
            run_queue.move(chosen, to)
            expected.remove(chosen)
            expected.insert(to, chosen)
        elif what == "remove":
            assert run_queue.remove(chosen) == expected.index(chosen)
            expected.remove(chosen)
        elif what == "begin":
            end(runs.find(chosen))
            expected.remove(chosen)
        else:  # the order is lost, never a run
            order_file().unlink(missing_ok=True)
            assert sorted(entry.run.id for entry in run_queue.entries()) == sorted(expected)
            expected = [entry.run.id for entry in run_queue.entries()]
        assert [entry.run.id for entry in run_queue.entries()] == expected


# ------------------------------------------------------------------------------ working through


def test_runs_are_taken_in_their_order_until_none_is_left() -> None:
    add("first", "second")
    taken = []
    with run_queue.working():
        while (run := run_queue.take_next()) is not None:
            taken.append(run.training_job().name)
            end(run, RunCompleted(folder="x"))
            run_queue.record_end(run)
    assert taken == ["first", "second"]
    assert waiting() == []


def test_the_run_under_way_does_not_wait_while_its_program_lives() -> None:
    add("first", "second")
    with run_queue.working():
        run_queue.take_next()
        assert waiting() == ["second"]
    assert waiting() == ["first", "second"]  # that program is gone, and the run had not begun


def test_a_run_taken_by_a_program_that_died_before_it_began_is_taken_again() -> None:
    add("first", "second")
    code = (
        "from training_backend.queueing import run_queue as q\n"
        "with q.working(): print(q.take_next().id)"
    )
    taken = in_another_process(code).stdout.strip()
    with run_queue.working():
        again = run_queue.take_next()
    assert again is not None and again.id == taken


@pytest.mark.parametrize(
    "ending", [RunFailed(code="x", message="x"), RunInterrupted(cause="signal")]
)
def test_after_a_failure_the_next_run_comes(ending: Event) -> None:
    first, second = add("first", "second")
    with run_queue.working():
        assert run_queue.take_next() == first
        end(first, ending)
        run_queue.record_end(first)
        assert run_queue.take_next() == second
    assert first.events()[-1].type == ending.type


def test_stopping_a_run_by_hand_pauses_the_queue_until_it_is_to_go_on() -> None:
    first, second = add("first", "second")
    with run_queue.working():
        run_queue.take_next()
        end(first, RunStopped())
        run_queue.record_end(first)
        assert run_queue.is_paused()
        assert run_queue.take_next() is None
        assert waiting() == ["second"]
        run_queue.go_on()
        assert run_queue.take_next() == second


def test_a_pause_lets_no_further_run_start() -> None:
    add("first")
    run_queue.pause()
    with run_queue.working():
        assert run_queue.take_next() is None
    assert waiting() == ["first"]


def test_a_run_that_cannot_start_is_ended_with_the_reason(home_with_demo_model: Path) -> None:
    good, bad = run_queue.add([job("good"), job("bad", "no/such/file.jsonl")])
    assert run_queue.admit(good)
    assert good.state() == "queued"
    assert not run_queue.admit(bad)
    assert bad.state() == "failed"
    started, failed = bad.events()
    assert isinstance(started, RunStarted) and isinstance(failed, RunFailed)
    assert failed.message.startswith("There is no data file")
    assert "no/such/file.jsonl" in failed.message
    assert failed.field == "dataset.path"


def test_a_run_whose_job_is_damaged_waits_and_ends_with_the_reason() -> None:
    (run,) = add("first")
    (run.folder / "job.json").write_text("{")
    assert waiting() == [run.id]
    with run_queue.working():
        assert run_queue.take_next() == run
    assert not run_queue.admit(run)
    assert run.state() == "failed"


def test_a_run_that_was_resumed_by_hand_no_longer_waits() -> None:
    first, _ = add("first", "second")
    with first.worker_lock().acquire():
        first.claim()
        assert waiting() == ["second"]


def test_a_run_that_never_began_is_not_taken_for_ever() -> None:
    add("first")
    with run_queue.working():
        run = run_queue.take_next()
        assert run is not None
        run_queue.record_end(run)  # its worker could not even be spawned
        assert run_queue.take_next() is None
    assert run.state() == "failed"


# -------------------------------------------------------------------------- two programs, crashes


def test_only_one_program_works_through_the_queue() -> None:
    code = "from training_backend.queueing import run_queue as q\nwith q.working(): print('mine')"
    with run_queue.working():
        assert queue_file.is_worked_on()
        answer = in_another_process(code)
    assert answer.stdout == "" and "works through the queue already" in answer.stderr
    assert not queue_file.is_worked_on()
    assert in_another_process(code).stdout.strip() == "mine"


def test_two_programs_that_add_at_once_lose_nothing() -> None:
    code = (
        "import sys\nfrom training_backend.queueing import run_queue\n"
        "from training_backend.job import parse_job\n"
        "for n in range(8):\n"
        "    document = {'name': f'{sys.argv[1]} {n}', 'model': {'id': 'demo'}}\n"
        "    run_queue.add([parse_job({**document, 'dataset': {'path': 'demo'}})])\n"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, name], cwd=REPOSITORY) for name in ("a", "b")
    ]
    assert [process.wait() for process in both] == [0, 0]
    assert sorted(waiting()) == sorted(f"{name} {n}" for name in "ab" for n in range(8))
    assert len(json.loads(order_file().read_text())["order"]) == 16
    assert [name for name in waiting() if name[0] == "a"] == [f"a {n}" for n in range(8)]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"order": 3}', b"\xff\xfe\x00", b"null"])
def test_a_damaged_file_is_set_aside_and_said_and_no_run_is_lost(content: bytes) -> None:
    add("first")
    add("second")
    order_file().write_bytes(content)
    assert waiting() == ["first", "second"]
    assert "could not be read" in run_queue.notice()
    assert (paths.home() / "queue.damaged.json").read_bytes() == content
    run_queue.dismiss_notice()
    assert run_queue.notice() == ""
    assert waiting() == ["first", "second"]


def test_a_run_added_just_before_a_crash_waits_though_the_order_does_not_know_it() -> None:
    add("first")
    before = order_file().read_bytes()
    add("second")
    order_file().write_bytes(before)
    assert waiting() == ["first", "second"]


def test_an_id_in_the_order_whose_folder_is_gone_is_passed_over() -> None:
    first, _ = add("first", "second")
    first.folder.rename(paths.home() / "gone")
    with run_queue.working():
        taken = run_queue.take_next()
    assert taken is not None and taken.training_job().name == "second"


def test_what_is_no_run_in_the_store_does_no_harm() -> None:
    add("first")
    (paths.runs_dir() / ".DS_Store").write_bytes(b"x")
    (paths.runs_dir() / "empty").mkdir()
    (paths.runs_dir() / "odd" / queue_file.MARK).mkdir(parents=True)
    assert waiting() == ["first"]


def test_a_run_whose_first_word_was_cut_off_waits_and_one_that_began_does_not() -> None:
    first, second, third = add("first", "second", "third")
    (first.folder / "events.jsonl").write_bytes(b'{"type": "RunSta')
    end(second, RunCompleted(folder="x"))
    (third.folder / "events.jsonl").write_bytes(b"x" * 5_000)  # damaged, but not unused
    assert waiting() == ["first"]


def test_a_damaged_mark_still_says_that_the_run_waits() -> None:
    (run,) = add("first")
    (run.folder / queue_file.MARK).write_text("{")
    assert waiting() == ["first"]
