"""The loss as one number, and the course that it took."""

from __future__ import annotations

import pytest

from training_backend.losses import RecentLoss, rise


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
