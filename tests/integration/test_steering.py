"""What is asked of a training under way is done, and changes nothing of what comes after."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from training_backend import runs
from training_backend.job import parse_job
from training_backend.lifecycle import checkpoints, run_requests
from training_backend.runs import Run


@pytest.fixture
def demanding_job(job_document: Any) -> dict[str, Any]:
    """Everything that draws random numbers."""
    job: dict[str, Any] = job_document(
        lora={"lora_dropout": 0.2},
        training={"max_steps": 4, "neftune_noise_alpha": 5.0},
        evaluation={"held_out_fraction": 0.25, "eval_steps": 2, "prompts": ["Hi"],
                    "max_new_tokens": 3},
    )  # fmt: skip
    return job


def made(job: dict[str, Any]) -> Run:
    return runs.create(parse_job(job))


def numbers(events: list[Any]) -> list[tuple[Any, ...]]:
    """What the training computed, in the order in which it did."""
    return [
        (event.type, event.step, event.loss, getattr(event, "grad_norm", None))
        for event in events
        if event.type in ("MetricsLogged", "EvaluationLogged")
    ]


def weights(run: Run) -> bytes:
    return (run.adapter / "adapter_model.safetensors").read_bytes()


def warnings(events: list[Any]) -> list[str]:
    return [event.code for event in events if event.type == "WarningRaised"]


@contextmanager
def once_paused(run: Run, then: Callable[[], None]) -> Any:
    """Does something in another thread when the run has paused."""
    failures: list[BaseException] = []

    def watch() -> None:
        try:
            wait_for(lambda: any(getattr(e, "phase", "") == "paused" for e in run.events()))
            then()
        except BaseException as error:
            failures.append(error)
            run.request("stop")

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    thread.join()
    assert not failures, failures


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_pause_questions_and_a_checkpoint_leave_the_training_as_it_would_have_been(
    do: Any, demanding_job: dict[str, Any]
) -> None:
    plain = do(demanding_job)
    assert plain.exit_code == 0

    run = made(demanding_job)
    run.requests.ask_question("Who are <b>you</b>?")
    run.requests.ask_question()
    run.request("pause")

    def while_paused() -> None:
        (saved,) = checkpoints.finished(run.checkpoints)
        assert saved.step == 1 and checkpoints.is_whole(saved.folder)
        assert run.state() == "running"
        assert run.requests.pending() == ["pause"]
        run.requests.ask_question("And now?")
        run.request("checkpoint")
        wait_for(lambda: run.requests.pending() == ["pause"])
        assert run.events()[-1].type != "RunCompleted"
        run.request("checkpoint")  # for the step after
        run.requests.done("pause")

    with once_paused(run, while_paused):
        steered = do(run)
    assert steered.exit_code == 0
    assert numbers(steered.events) == numbers(plain.events)
    assert weights(run) == weights(plain.run)
    asked = [(e.step, e.prompt) for e in steered.of("SampleGenerated") if e.step in (1, 2, 3)]
    of_the_checkpoint = (1, "Hi")
    assert asked[:4] == [
        (1, "Who are <b>you</b>?"), (1, "Hi"), of_the_checkpoint, (1, "And now?"),
    ]  # fmt: skip
    assert run.requests.pending() == []
    assert {"checkpoint-1", "checkpoint-4"} <= {path.name for path in run.checkpoints.iterdir()}
    assert not warnings(steered.events)
    phases = [e.phase for e in steered.of("PhaseChanged")]
    first = phases.index("training") + 1
    assert phases[first : first + 8] == [
        "sampling", "training", "sampling", "training", "paused", "sampling", "paused", "training",
    ]  # fmt: skip


def test_a_checkpoint_is_saved_after_the_step_in_which_it_was_asked(
    do: Any, job_document: Any
) -> None:
    run = made(job_document())
    run.request("checkpoint")
    done = do(run)
    assert done.exit_code == 0
    assert [event.step for event in done.of("CheckpointSaved")] == [1, 3]
    assert not run.requested("checkpoint")


def test_a_paused_run_can_be_stopped_and_goes_on_from_its_pause(
    do: Any, demanding_job: dict[str, Any]
) -> None:
    plain = do(demanding_job)
    run = made(demanding_job)
    run.request("pause")
    with once_paused(run, lambda: run.request("stop")):
        stopped = do(run)
    assert stopped.exit_code == 3
    assert stopped.terminal.step == 1
    assert checkpoints.is_whole(Path(stopped.terminal.checkpoint))
    assert not warnings(stopped.events)
    assert run.requests.pending() == []  # or the next attempt would pause again
    assert do(run).exit_code == 0
    assert numbers(run.events()) == numbers(plain.events)
    assert weights(run) == weights(plain.run)


def test_a_run_that_was_saved_for_the_computer_s_sleep_says_so_and_goes_on_as_if_it_had_not(
    do: Any, demanding_job: dict[str, Any]
) -> None:
    plain = do(demanding_job)
    run = made(demanding_job)
    run.requests.ask_to_stop("sleep")
    before = do(run)
    assert before.terminal.reason == "sleep"  # before its first step
    run.request("pause")
    with once_paused(run, lambda: run.requests.ask_to_stop("sleep")):
        stopped = do(run)
    assert (stopped.terminal.step, stopped.terminal.reason) == (1, "sleep")
    done = do(run)
    assert done.exit_code == 0
    assert sum("went to sleep" in event.message for event in done.of("LogLine")) == 2
    assert numbers(run.events()) == numbers(plain.events)
    assert weights(run) == weights(plain.run)


def test_what_is_asked_too_late_is_told(do: Any, job_document: Any) -> None:
    run = made(job_document(training={"max_steps": 1}))
    run.request("pause")  # after the last step there is nothing left to wait with
    done = do(run)
    assert done.exit_code == 0
    assert warnings(done.events) == ["request_too_late"]
    assert "before it could pause" in done.of("WarningRaised")[0].message


def test_requests_that_are_no_requests_are_passed_over_with_a_note(
    do: Any, job_document: Any
) -> None:
    run = made(job_document())
    folder = run.requests.folder
    (folder / "question-1").write_bytes(b"\xff\x00 no JSON")
    (folder / "question-2").mkdir()
    (folder / "question-2" / "inside").touch()
    (folder / "question-3").write_bytes(b'{"prompt": "' + b"x" * 10_000_000 + b'"}')
    (folder / "question-4").write_text('{"prompt": ["a", "list"]}')
    (folder / "question-5").write_text('{"prompt": "\\ud800"}')
    (folder / "question-6").write_text("[" * 60_000)
    (folder / "question-7").write_text(f'{{"prompt": "{"x" * 4_001}"}}')
    (folder / "question-8").symlink_to(folder / "nothing")
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "question-9")  # to read it would wait for ever
    (folder / "checkpoint").mkdir()
    (folder / "something else").mkdir()
    waiting = len(run.requests.questions())
    done = do(run)
    assert done.exit_code == 0
    codes = warnings(done.events)
    assert len(codes) == waiting
    assert set(codes) == {"question_unreadable", "question_too_long", "question_no_text"}
    assert [event.step for event in done.of("CheckpointSaved")] == [1, 3]
    assert not list(folder.iterdir())


def saves_by_the_clock(folder: str) -> int:
    """Each step counts as ten minutes, and saving as nothing."""
    import queue
    from pathlib import Path

    from training_backend import worker
    from training_backend.runs import Run
    from training_backend.training import steering

    kept = steering.SAVE_SECONDS, steering.SAVE_SHARE
    steering.SAVE_SECONDS, steering.SAVE_SHARE = 0.0, float("inf")
    try:
        return worker._work(Run(Path(folder)), queue.Queue())
    finally:
        steering.SAVE_SECONDS, steering.SAVE_SHARE = kept


def test_a_checkpoint_comes_after_ten_minutes_however_rare_they_are_by_steps(
    do: Any, backend: Any, demanding_job: dict[str, Any]
) -> None:
    demanding_job["training"]["save_steps"] = 1_000
    rare, often = made(demanding_job), made(demanding_job)
    assert do(rare).exit_code == 0
    assert backend(saves_by_the_clock, often.folder) == 0
    steps = [[e.step for e in run.events() if e.type == "CheckpointSaved"] for run in (rare, often)]
    assert steps == [[2, 4], [1, 2, 3, 4]]  # those after 2 and 4 come with the tests
    assert numbers(often.events()) == numbers(rare.events())
    assert weights(often) == weights(rare)


def answer_fails(folder: str) -> int:
    import queue
    from pathlib import Path

    from training_backend import worker
    from training_backend.runs import Run
    from training_backend.training import sampling

    def answer(*_):
        raise RuntimeError("CUDA out of memory")

    kept, sampling.answer = sampling.answer, answer
    try:
        return worker._work(Run(Path(folder)), queue.Queue())
    finally:
        sampling.answer = kept


def test_an_answer_that_fails_does_not_end_the_training(
    backend: Any, job_document: Any, lorasmith_home: Path
) -> None:
    run = made(job_document())
    run.requests.ask_question("Who are you?")
    assert backend(answer_fails, run.folder) == 0
    assert warnings(run.events()) == ["question_not_answered"]
    assert run.state() == "completed"


def speeds_around_a_pause() -> list[tuple[float, float]]:
    """A step takes 2 seconds; one of the three holds a pause of an hour as well."""
    from pathlib import Path
    from types import SimpleNamespace

    from training_backend.training import trainer_reports

    clock = 0.0
    told = []
    kept = trainer_reports.time
    trainer_reports.time = SimpleNamespace(monotonic=lambda: clock)
    try:
        reports = trainer_reports.TrainerReports(
            None, SimpleNamespace(emit=told.append), Path(), ValueError
        )
        state = SimpleNamespace(global_step=0, max_steps=10, epoch=0.0)
        reports.on_train_begin(None, state, None)
        for step in (1, 2, 3):
            clock += 2
            if step == 2:
                clock += 3_600
                reports.leave_out(3_600)
            state.global_step = step
            reports.on_log(None, state, None, {"loss": 1.0, "num_tokens": 100 * step})
    finally:
        trainer_reports.time = kept
    return [(one.tokens_per_second, one.seconds_left) for one in told]


def test_time_left_and_speed_do_not_count_a_pause(backend: Any) -> None:
    assert backend(speeds_around_a_pause) == [[50.0, 18.0], [50.0, 16.0], [50.0, 14.0]]


@pytest.mark.parametrize("prompt", ["", " \n", "x" * (run_requests.MOST_CHARACTERS + 1), "\ud800"])
def test_a_question_that_cannot_be_asked_is_refused_at_once(run: Run, prompt: str) -> None:
    with pytest.raises(run_requests.UserError):
        run.requests.ask_question(prompt)
    assert run.requests.pending() == []


@pytest.fixture
def run(job_document: Any, lorasmith_home: Path) -> Run:
    return made(job_document())
