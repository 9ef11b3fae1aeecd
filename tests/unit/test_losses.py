"""The loss as one number, and the course that it took."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training_backend.summaries.losses import (
    Divergence,
    Parting,
    RecentLoss,
    divergence,
    is_exhausted,
    of_tests,
    of_training,
    parting,
    rise,
)


def test_the_loss_is_the_mean_of_the_newest_reports() -> None:
    loss = RecentLoss()
    assert loss.value is None
    loss.add(1, 4.0)
    assert loss.value == 4.0
    for step in range(2, 31):
        loss.add(step, float(step))
    assert loss.value == pytest.approx(sum(range(21, 31)) / 10)


def test_a_later_attempt_supersedes_what_came_after_its_checkpoint() -> None:
    loss = RecentLoss()
    for step in range(1, 9):
        loss.add(step, 100.0 if step > 4 else 1.0)
    loss.add(5, 1.0)
    assert loss.value == 1.0
    loss.add(1, 3.0)  # from the beginning
    assert loss.value == 3.0


@pytest.mark.parametrize(
    ("losses", "found"),
    [
        ([5.0] * 10 + [53.0] * 10, (5.0, 53.0)),
        ([5.0] * 90 + [8.0] * 10, (5.0, 8.0)),
        ([5.0] * 10 + [7.0] * 10, None),  # not clearly
        ([5.0] + [53.0] * 8, None),  # too few to tell
        ([5.0] * 50 + [53.0] + [4.0] * 49, None),  # one bad batch
        ([10.0 - step / 10 for step in range(99)], None),
        ([], None),
    ],
)
def test_only_a_clear_rise_is_one(losses: list[float], found: tuple[float, float] | None) -> None:
    assert rise(losses) == found


# --------------------------------------------------------------------- tests on held-out rows


def test_the_trainers_log_tells_reports_and_tests_apart() -> None:
    log: list[dict[str, Any]] = [
        {"step": 1, "loss": 2.0, "grad_norm": 1.0},
        {"step": 1, "eval_loss": 2.5},
        {"step": 2, "loss": 1.5},
        {"step": 2, "eval_loss": math.nan},
        {"step": 2, "train_runtime": 3.0},
    ]
    assert of_training(log) == [(1, 2.0), (2, 1.5)]
    assert of_tests(log) == [(1, 2.5), (2, math.inf)]


@pytest.mark.parametrize(
    ("losses", "patience", "exhausted"),
    [
        ([], 1, False),
        ([3.0], 1, False),
        ([3.0, 2.0, 1.0], 1, False),
        ([3.0, 2.0, 2.0], 1, True),  # as low is not lower
        ([3.0, 2.0, 2.5, 2.4], 3, False),
        ([3.0, 2.0, 2.5, 2.4, 2.3], 3, True),
        ([3.0, 2.0, 2.5, 2.4, 2.3, 2.2], 3, False),  # it went on: as many again
        ([3.0, 2.0, 2.5, 2.4, 2.3, 2.2, 2.1, 2.1], 3, True),
        ([3.0, 2.0, 2.5, 2.4, 1.9], 3, False),
        ([3.0, math.inf, math.inf], 2, True),
        ([3.0] * 9, 0, False),
    ],
)
def test_patience_ends_with_so_many_tests_that_brought_no_lower_loss(
    losses: list[float], patience: int, exhausted: bool
) -> None:
    assert is_exhausted(losses, patience) is exhausted


STEPS = range(1, 201)
EVERY = 10  # steps between tests


def falling(start: float, end: float, noise: float = 0.0) -> list[tuple[int, float]]:
    """The loss of 200 steps, a straight line with noise of a share of it."""
    chance = random.Random(0)
    return [
        (step, (start + (end - start) * step / 200) * (1 + noise * chance.uniform(-1, 1)))
        for step in STEPS
    ]


def in_tests(losses: list[float]) -> list[tuple[int, float]]:
    return [(EVERY * (place + 1), loss) for place, loss in enumerate(losses)]


def first_told(held_out: list[tuple[int, float]], train: list[tuple[int, float]]) -> int | None:
    """The step at which a run would first be told that its curves part."""
    for count in range(1, len(held_out) + 1):
        now = held_out[count - 1][0]
        if parting(held_out[:count], [point for point in train if point[0] <= now]):
            return now
    return None


def test_curves_that_part_are_told_with_the_best_step_as_soon_as_it_is_clear() -> None:
    held_out = in_tests([2.0, 1.6, 1.4, 1.3, 1.32, 1.38, 1.45, 1.52])
    train = falling(2.0, 0.2, noise=0.1)
    assert first_told(held_out, train) == 70
    assert parting(held_out, train) == Parting(step=40, best=1.3, last=1.52)


@pytest.mark.parametrize(
    ("held_out", "train"),
    [
        pytest.param([2.0, 1.3, 1.9, 1.9], falling(2.0, 0.2), id="two worse tests"),
        pytest.param([2.0, 1.3, 1.9, 1.31, 1.31, 1.32], falling(2.0, 0.2), id="one bad test"),
        pytest.param([2.0, 1.3, 1.4, 1.5, 1.7, 2.0], falling(2.0, 2.1), id="both rise"),
        pytest.param([2.0, 1.3, 1.4, 1.5, 1.7, 2.0], falling(1.0, 1.0, 0.1), id="train is level"),
        pytest.param([2.0, 1.3, 1.4, 1.5, 1.7, 2.0], falling(2.0, 0.2)[::25], id="few reports"),
        pytest.param([2.0, 1e-3, 2e-3, 3e-3, 4e-3], falling(2.0, 0.1), id="next to nothing"),
        pytest.param([], falling(2.0, 0.2), id="no tests"),
    ],
)
def test_curves_that_do_not_clearly_part_are_not_told(
    held_out: list[float], train: list[tuple[int, float]]
) -> None:
    assert first_told(in_tests(held_out), train) is None


@given(st.lists(st.floats(0.99, 1.01), max_size=20), st.floats(0.5, 5.0))
def test_a_held_out_loss_that_only_trembles_is_never_told_to_rise(
    trembling: list[float], level: float
) -> None:
    held_out = in_tests([level * share for share in trembling])
    assert first_told(held_out, falling(2.0, 0.2, noise=0.2)) is None


@given(st.lists(st.floats(0.0, 1.0), max_size=20))
def test_a_held_out_loss_that_never_rises_is_never_told_to(falls: list[float]) -> None:
    losses = [10.0]
    for fall in falls:
        losses.append(losses[-1] * (1 - fall / 2))
    assert first_told(in_tests(losses), falling(2.0, 0.2, noise=0.2)) is None


@given(st.integers(1, 10), st.floats(0.05, 0.5))
def test_a_held_out_loss_that_keeps_rising_by_a_twentieth_or_more_is_told_within_four_tests(
    best: int, rising: float
) -> None:
    down = [3.0 * 0.9**place for place in range(best)]
    up = [down[-1] * (1 + rising * place) for place in range(1, 5)]
    told = first_told(in_tests(down + up), falling(4.0, 0.1))
    assert told is not None and told > EVERY * best


class TestDivergence:
    """Whether a course that ended in numbers that are none got out of hand before."""

    @staticmethod
    def course(*values: float) -> list[tuple[int, float]]:
        return list(enumerate(values, start=1))

    def test_a_steady_course_does_not(self) -> None:
        chance = random.Random(0)
        falling = [2.5 * 0.99**n + chance.gauss(0, 0.15) for n in range(200)]
        assert divergence(self.course(*falling)) is None
        assert divergence(self.course(2.3)) is None
        assert divergence([]) is None

    def test_one_restless_batch_at_the_end_does_not(self) -> None:
        assert divergence(self.course(*[1.0] * 30, 2.5)) is None

    def test_small_losses_may_be_restless(self) -> None:
        assert divergence(self.course(*[0.01] * 20, *[0.05] * 10)) is None

    def test_a_rise_is_told_with_where_it_began(self) -> None:
        found = divergence(self.course(*[2.0] * 20, *[1.0] * 10, 2, 3, 5, 8, 11))
        assert found is not None
        assert (found.since, found.before) == (27, 1.0)
        assert found.last == pytest.approx(29 / 5)

    def test_a_short_course_needs_a_steeper_rise(self) -> None:
        assert divergence(self.course(2.3, 3.6)) is None
        assert divergence(self.course(2.3, 9.1)) == Divergence(1, 2.3, 9.1)

    def test_what_is_no_number_does_not_count(self) -> None:
        assert divergence(self.course(*[1.0] * 10, math.nan, math.inf)) is None

    def test_gradient_norms_may_differ_more(self) -> None:
        chance = random.Random(1)
        norms = [math.exp(chance.gauss(0, 0.7)) for _ in range(100)]
        assert divergence(self.course(*norms), norms=True) is None
        found = divergence(self.course(*norms, 40, 90, 200, 500, 900), norms=True)
        assert found is not None and found.last == pytest.approx(346)
