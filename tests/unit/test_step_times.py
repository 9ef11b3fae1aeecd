"""Slow steps are told from long ones: traces as real runs have them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator

import pytest

from training_backend.watching.step_times import AsBefore, Slower, StepTimes, Work

Step = tuple[float, Work]
PACKED = [(1, 2048)] * 4


def took(chance: random.Random, shapes: list[tuple[int, int]], jitter: float = 0.1) -> float:
    """Seconds as a card takes them: so much a launch, a token and a pair of tokens, and noise.

    One step in a hundred takes several times as long, as where a system is busy for a moment.
    """
    work = Work.of(shapes)
    seconds = 0.08 * len(shapes) + 2.5e-4 * work.tokens + 3e-8 * work.squares
    seconds *= math.exp(chance.gauss(0, jitter))
    return seconds * (chance.uniform(2, 6) if chance.random() < 0.01 else 1.0)


def packed(chance: random.Random, steps: int) -> Iterator[Step]:
    for _ in range(steps):
        yield took(chance, PACKED), Work.of(PACKED)


def padded(chance: random.Random, steps: int, spread: float = 1.0) -> Iterator[Step]:
    """Four micro-batches of two rows each; lengths differ as those of real conversations do."""
    for step in range(steps):
        parts = 1 if step % 250 == 249 else 4  # the last step of an epoch
        shapes = [(2, max(min(2048, _length(chance, spread)) for _ in "ab")) for _ in range(parts)]
        yield took(chance, shapes), Work.of(shapes)


def _length(chance: random.Random, spread: float) -> int:
    return max(8, int(math.exp(chance.gauss(5.5, spread))))


def by_length(chance: random.Random, steps: int) -> Iterator[Step]:
    """As `group_by_length` has it: from long to short within each fifty batches."""
    for _ in range(steps // 50):
        lengths = sorted((min(2048, _length(chance, 1.0)) for _ in range(50)), reverse=True)
        for length in lengths:
            shapes = [(2, length)] * 4
            yield took(chance, shapes), Work.of(shapes)


def growing(chance: random.Random, steps: int) -> Iterator[Step]:
    """Rows that come sorted from short to long."""
    for step in range(steps):
        shapes = [(2, 16 + step // 4)] * 4
        yield took(chance, shapes), Work.of(shapes)


def told(steps: Iterable[Step]) -> list[Slower | AsBefore]:
    return [answer for _, answer in answers(steps)]


def answers(steps: Iterable[Step]) -> list[tuple[int, Slower | AsBefore]]:
    """With the steps after which they came."""
    watch = StepTimes()
    all_answers = ((number, watch.add(number, *step)) for number, step in enumerate(steps, start=1))
    return [(number, answer) for number, answer in all_answers if answer is not None]


@pytest.mark.parametrize("trace", [packed, padded, by_length, growing])
def test_a_long_healthy_run_raises_no_alarm(trace: object) -> None:
    for seed in range(2):
        assert told(trace(random.Random(seed), 4_000)) == []  # type: ignore[operator]


def test_nor_does_one_whose_rows_could_not_differ_more() -> None:
    assert told(padded(random.Random(1), 4_000, spread=2.0)) == []


def test_nor_does_a_busy_computer_with_short_steps() -> None:
    chance = random.Random(2)
    work = Work.of([(2, 64)])
    steps = ((0.02 * math.exp(chance.gauss(0, 0.5)), work) for _ in range(8_000))
    assert told(steps) == []


def test_a_step_during_which_the_computer_slept_is_no_alarm() -> None:
    steps = list(packed(random.Random(3), 300))
    steps[200] = (30_000.0, steps[200][1])
    assert told(steps) == []


@pytest.mark.parametrize("trace", [packed, padded, by_length])
@pytest.mark.parametrize("factor", [3.0, 8.0])
def test_a_lasting_jump_is_told_once_and_in_time(trace: object, factor: float) -> None:
    steps = list(trace(random.Random(4), 700))  # type: ignore[operator]
    slow = [(s * factor if n >= 400 else s, work) for n, (s, work) in enumerate(steps)]
    ((at, alarm), *later) = answers(slow)
    assert isinstance(alarm, Slower) and not later
    assert 390 <= alarm.since <= 430
    seconds = sum(seconds for seconds, _ in slow[400:at])
    assert seconds < 100 * factor
    assert factor / 1.6 < alarm.factor < factor * 1.6
    assert alarm.now == pytest.approx(alarm.before * alarm.factor)


def test_what_passes_is_told_with_its_end() -> None:
    steps = list(packed(random.Random(5), 600))
    slow = [(s * 4 if 200 <= n < 300 else s, work) for n, (s, work) in enumerate(steps)]
    begins, ends = told(slow)
    assert isinstance(begins, Slower) and isinstance(ends, AsBefore)
    assert 195 <= begins.since <= 203
    assert ends.since == begins.since
    assert 290 <= ends.until <= 310


def test_what_becomes_much_worse_is_told_again() -> None:
    steps = list(packed(random.Random(6), 600))
    slow = [(s * (2 if n < 400 else 12), work) if n >= 200 else (s, work)
            for n, (s, work) in enumerate(steps)]  # fmt: skip
    first, second = told(slow)
    assert isinstance(first, Slower) and isinstance(second, Slower)
    assert second.since == first.since
    assert second.factor > 3 * first.factor


def test_a_run_that_is_slow_from_its_first_step_on_is_not_told_from_a_slow_computer() -> None:
    assert told((s * 8, work) for s, work in packed(random.Random(7), 300)) == []
