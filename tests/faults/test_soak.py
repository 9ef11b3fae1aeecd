"""What a soak calls a leak; `test_faults` does a short one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.faults.soak import Held, leaks, slope

QUIET = Held(20, 200.0, 100_000, 1_000, 2_000, 5, 6, 20, 3, 0, {"kinds": {"list": 5}})


@pytest.mark.parametrize("what", ["processes", "threads", "files", "semaphores", "widgets"])
def test_what_may_not_grow_is_named_when_it_does(what: str) -> None:
    more = replace(QUIET, **{what: getattr(QUIET, what) + 1})  # type: ignore[arg-type]
    assert leaks([QUIET, QUIET]) == []
    (found,) = leaks([QUIET, more])
    assert f"{what} grew" in found


def test_memory_may_grow_by_a_little_for_each_run() -> None:
    rows = [replace(QUIET, runs=n * 20, megabytes=200 + n * 0.5) for n in range(1, 11)]
    assert slope(rows, "megabytes") == pytest.approx(0.025)
    assert leaks(rows) == []
    rows = [replace(QUIET, runs=n * 20, megabytes=200 + n * 3.0) for n in range(1, 11)]
    (found,) = leaks(rows)
    assert "153.6 kB a run" in found
