"""When memory runs out: half the rows at once, the same rows in every step, at most twice."""

from __future__ import annotations

from typing import Any

import pytest

from training_backend import runs
from training_backend.job import TrainingJob, parse_job
from training_backend.lifecycle import halving
from training_backend.protocol import Event, RunFailed, RunStarted, WarningRaised


def job(rows: int, accumulation: int, allowed: bool = True) -> TrainingJob:
    training = {
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": accumulation,
        "halve_batch_when_out_of_memory": allowed,
    }
    parsed = parse_job({"model": {"id": "demo"}, "dataset": {"path": "demo"}, "training": training})
    assert isinstance(parsed, TrainingJob)
    return parsed


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((2, 4), (1, 8)),
        ((8, 1), (4, 2)),
        ((6, 5), (3, 10)),
        ((3, 4), (1, 12)),  # 12 rows a step
        ((5, 2), (2, 5)),
        ((7, 1), (1, 7)),
        ((1, 8), None),
    ],
)
def test_a_step_keeps_its_rows(before: tuple[int, int], after: tuple[int, int] | None) -> None:
    changed = halving.halved(job(*before))
    if after is None:
        assert changed is None
        return
    assert changed == job(*after)
    assert after[0] * after[1] == before[0] * before[1]


def failed(goes_on: bool = True) -> RunFailed:
    return RunFailed(code="out_of_vram", message="The card ran out of memory.", goes_on=goes_on)


def test_it_is_done_where_the_job_allows_it_and_memory_is_the_cause() -> None:
    assert halving.is_due(job(4, 1), "out_of_vram", [])
    assert halving.is_due(job(4, 1), "out_of_ram", [])
    assert halving.is_due(job(4, 1), "out_of_vram", [], on_card=True)
    assert not halving.is_due(job(4, 1), "out_of_ram", [], on_card=True)
    assert not halving.is_due(job(4, 1, allowed=False), "out_of_vram", [])
    assert not halving.is_due(job(1, 4), "out_of_vram", [])
    assert not halving.is_due(job(4, 1), "loss_not_finite", [])


def test_it_is_done_twice_at_most_and_said_each_time() -> None:
    told: list[Event] = []
    now = job(16, 1)
    for time in (1, 2):
        told.append(failed())
        before, now = now, halving.halved(now) or now
        note = halving.note(before, now, told, 7)
        assert isinstance(note, WarningRaised) and note.params["time"] == time
        assert f"with {now.training.per_device_train_batch_size} instead of" in note.message
        assert "after step 7" in note.message
        told += [note, RunStarted(run_id="x", folder="x", pid=1)]
        assert halving.is_due(now, "out_of_vram", told) == (time < 2)


def test_what_the_person_changed_is_not_said_to_have_been_done_by_itself() -> None:
    by_hand: Any = halving.halved(job(4, 1))
    assert halving.note(job(4, 1), by_hand, [failed(goes_on=False)], 3) is None
    assert halving.note(job(4, 1), job(4, 2), [failed()], 3) is None
    assert halving.note(job(4, 1), by_hand, [], None) is None


def test_of_two_who_follow_a_run_only_one_revises_it(lorasmith_home: Any) -> None:
    run = runs.create(job(8, 1))
    assert runs.revise(run, job(4, 2), known=0)
    assert not runs.revise(run, job(2, 4), known=0)
    assert run.training_job() == job(4, 2) and run.revisions() == 1
    assert runs.revise(run, job(2, 4), known=1)
