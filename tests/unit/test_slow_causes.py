"""The cause of slow steps, from what else went on: each is named only where the readings say so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from training_backend.watching import slow_causes
from training_backend.watching.slow_causes import Lasting, Reading
from training_backend.watching.step_times import Slower

GIB = 2**30
SLOWER = Slower(since=120, factor=3.14, before=0.7, now=2.2)
CALM = Reading(
    0.0, 12 * GIB, 24 * GIB, 10 * GIB, None, 70.0, 0.95, processor=0.3, own_processor=0.2,
    ram_free=0.5, swapped=0, on_battery=False,
)  # fmt: skip


def readings(begin: int, **changes: object) -> list[Reading]:
    """Thirty seconds."""
    return [replace(CALM, seconds=float(begin + n), **changes) for n in range(30)]  # type: ignore[arg-type]


def cause(now: list[Reading], **known: object) -> slow_causes.Cause:
    return slow_causes.explain(SLOWER, readings(0), now, **known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, "slow_unknown"),
        ({"held_back_by": "heat", "temperature": 91.0, "clock_share": 0.6}, "slow_heat"),
        ({"held_back_by": "power", "clock_share": 0.4}, "slow_power"),
        ({"card_used": 15 * GIB}, "slow_other_program"),
        ({"card_used": 15 * GIB, "own": 13 * GIB}, "slow_unknown"),  # it is the run itself
        ({"card_used": 15 * GIB, "own": None}, "slow_unknown"),
        ({"on_battery": True}, "slow_battery"),
        ({"processor": 1.0, "own_processor": 0.2}, "slow_processor"),
        ({"processor": 1.0, "own_processor": 0.95}, "slow_unknown"),  # its own work
        ({"processor": 0.7, "own_processor": 0.2}, "slow_unknown"),  # there is room for it
        ({"card_used": None, "card_total": None, "own": None}, "slow_unknown"),
    ],
)
def test_the_cause_is_what_changed(changes: dict[str, object], code: str) -> None:
    found = cause(readings(30, **changes))
    assert found.code == code
    told = found.template.format(since=120, **found.params)
    assert told.startswith(
        "Since step 120 a step takes 3.1 times as long (2.2 s instead of 0.7 s). "
    )


def test_a_full_card_is_a_cause_only_where_the_driver_moves_memory() -> None:
    full = readings(30, card_used=int(23.6 * GIB), own=None)
    assert cause(full, moves_memory=True).code == "slow_memory_full"
    assert cause(full, moves_memory=False).code == "slow_unknown"
    assert cause(readings(30), moves_memory=True).code == "slow_unknown"


def test_programs_on_the_card_are_named() -> None:
    found = cause(readings(30), programs=("game.exe", "blender"))
    assert "Another program uses the card (game.exe, blender)." in found.template.format(
        since=1, **found.params
    )


def test_heat_counts_when_it_lasts_not_for_a_moment() -> None:
    now = readings(30)
    now[3:9] = [replace(each, held_back_by="heat") for each in now[3:9]]
    assert cause(now).code == "slow_unknown"


def test_what_was_so_before_is_no_cause() -> None:
    busy = {"processor": 1.0, "own_processor": 0.4, "on_battery": True}
    found = slow_causes.explain(SLOWER, readings(0, **busy), readings(30, **busy))
    assert found.code == "slow_unknown"


def test_other_programs_that_take_more_of_a_busy_processor_are_a_cause() -> None:
    before = readings(0, processor=1.0, own_processor=0.40)
    now = readings(30, processor=1.0, own_processor=0.22)
    assert slow_causes.explain(SLOWER, before, now).code == "slow_processor"


def test_reading_back_from_the_swap_file_is_a_cause_where_memory_is_short() -> None:
    reads = [replace(each, swapped=n * 20_000_000) for n, each in enumerate(readings(30))]
    assert cause(reads).code == "slow_unknown"
    short = [replace(each, ram_free=0.02) for each in reads]
    assert cause(short).code == "slow_swapping"
    assert cause(readings(30, ram_free=0.02)).code == "slow_unknown"


def test_nothing_known_is_no_cause() -> None:
    assert slow_causes.explain(SLOWER, [], []).code == "slow_unknown"
    nothing = [Reading(float(n)) for n in range(9)]
    assert slow_causes.explain(SLOWER, nothing, nothing, moves_memory=True).code == "slow_unknown"


@pytest.mark.parametrize(
    ("reserved", "used", "told"),
    [(22, 23.5, False), (23.9, 23.5, False), (29, 23.5, True), (29, 12, False), (0, 23.9, False)],
)
def test_more_than_the_card_has_in_use_must_be_elsewhere(
    reserved: float, used: float, told: bool
) -> None:
    found = slow_causes.overfull(int(reserved * GIB), int(used * GIB), 24 * GIB)
    assert (found is not None) == told
    if found is not None:
        assert found.params == {"over": "5.5"}


@pytest.mark.parametrize(
    ("seconds", "size", "told"),
    [
        (0.4, 60e6, False),
        (4.9, 1e6, False),
        (9.0, 60e6, True),  # it slept
        (60.0, 3e9, False),  # 50 MB a second, large
        (300.0, 3e9, True),
    ],
)
def test_a_save_is_slow_where_its_size_does_not_explain_it(
    seconds: float, size: float, told: bool
) -> None:
    found = slow_causes.slow_save(seconds, int(size), "/mnt/slow")
    assert (found is not None) == told
    if found is not None:
        assert "drive /mnt/slow was asleep" in found.template.format(since=7, **found.params)


def test_something_lasts_when_it_is_so_most_of_the_time() -> None:
    lasting = Lasting(10)
    assert [lasting.add(False) for _ in range(10)] == [None] * 10
    assert [lasting.add(True) for _ in range(5)] == [None] * 4 + [True]
    assert lasting.add(True) is None  # told already
    assert False in [lasting.add(False) for _ in range(10)]
    assert not lasting.on


def test_a_moment_does_not_last() -> None:
    lasting = Lasting(10)
    assert not any(lasting.add(n % 5 == 0) for n in range(100))
