"""What the charts mark of a run: the steps of its warnings, from their beginning to their end."""

from __future__ import annotations

from app.models.run_marks import RunMarks
from training_backend.protocol import WarningRaised


def warning(
    code: str, since: int | None = None, until: int | None = None, **params: object
) -> WarningRaised:
    return WarningRaised(code=code, message=f"{code}.", params=params, since=since, until=until)


def test_a_warning_about_no_step_marks_nothing() -> None:
    marks = RunMarks()
    marks.take(warning("overfitting"))
    assert marks.marks == [] and marks.now() == ""


def test_what_begins_goes_on_until_its_end_is_told() -> None:
    marks = RunMarks()
    marks.take(warning("slow_heat", 120, factor="3.1"))
    (mark,) = marks.marks
    assert (mark.since, mark.until, mark.text) == (120, None, "card too hot, 3.1 × the time")
    assert marks.now() == "slow_heat."
    marks.take(warning("as_fast_again", 120, 180))
    (mark,) = marks.marks
    assert (mark.since, mark.until, mark.message) == (120, 180, "slow_heat.")
    assert marks.now() == ""


def test_what_becomes_worse_is_one_mark_with_the_newer_words() -> None:
    marks = RunMarks()
    marks.take(warning("slow_unknown", 120, factor="2.0"))
    marks.take(warning("slow_memory_full", 120, factor="8.1"))
    (mark,) = marks.marks
    assert mark.text == "card full, 8.1 × the time"


def test_heat_and_slow_steps_end_apart() -> None:
    marks = RunMarks()
    marks.take(warning("card_hot", 100))
    marks.take(warning("slow_processor", 100, factor="2.0"))
    marks.take(warning("card_cool", 100, 150))
    assert [(mark.code, mark.until) for mark in marks.marks] == [
        ("card_hot", 150), ("slow_processor", None),
    ]  # fmt: skip


def test_a_slow_save_is_one_step_and_over() -> None:
    marks = RunMarks()
    marks.take(warning("slow_disk", 300, 300, seconds=14))
    assert [(mark.since, mark.until, mark.text) for mark in marks.marks] == [
        (300, 300, "slow save, 14 s")
    ]
    assert marks.now() == ""


def test_a_resumed_run_keeps_the_marks_of_the_steps_it_keeps() -> None:
    marks = RunMarks()
    marks.take(warning("slow_disk", 100, 100))
    marks.take(warning("slow_heat", 150, factor="2.0"))
    marks.take(warning("slow_disk", 300, 300))
    marks.begin_attempt(200)
    assert [(mark.since, mark.until) for mark in marks.marks] == [(100, 100), (150, 200)]
    marks.begin_attempt(0)
    assert marks.marks == []
