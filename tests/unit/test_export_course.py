"""Which stage an export is at, and how long it will still take."""

from __future__ import annotations

import pytest

from app.models.export_course import ExportCourse


def test_work_only_goes_forward_and_what_belongs_to_no_stage_moves_nothing() -> None:
    course = ExportCourse({"merge": 10.0, "save": 2.0, "prove": 60.0})
    seen = []
    for phase in ("loading", "merging", "verifying", "saving", "verifying", "saving", "tokenising"):
        course.apply(phase, None, 0.0)  # type: ignore[arg-type]
        seen.append(course.current)
    assert seen == [0, 0, 0, 1, 2, 2, 2]
    assert course.is_at("prove")


def test_time_left_is_by_what_is_done_and_the_guesses_of_what_is_to_come() -> None:
    course = ExportCourse({"merge": 10.0, "save": 2.0, "prove": 60.0})
    assert course.seconds_left(0.0) == 72.0
    course.apply("merging", 0.01, 0.0)
    assert course.seconds_left(4.0) == 6.0 + 62.0  # too little is done to tell by it
    course.apply("merging", 0.25, 5.0)
    assert course.seconds_left(5.0) == pytest.approx(15.0 + 62.0)
    course.apply("verifying", None, 30.0)
    course.apply("saving", None, 31.0)
    assert course.seconds_left(99.0) == 60.0  # longer than thought: no less than what is to come


def test_without_known_stages_the_phase_alone_is_told() -> None:
    course = ExportCourse({})
    course.apply("merging", None, 0.0)
    assert course.seconds_left(5.0) is None
    course.apply("merging", 0.5, 5.0)
    assert course.seconds_left(5.0) == 5.0
