"""A run's losses: as one number, and whether they went the wrong way. Light."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

RECENT = 10  # reports; one batch alone says little
FEWEST = 10  # reports from which on a course can be told
RISEN = 1.5  # times the beginning is no longer chance
RISEN_BY = 0.5  # and below, a loss may well be small and restless
EXPLODED = 20.0  # times its usual size a gradient norm is out of hand
WORSE_TESTS = 3  # after the best one, before held-out losses can be said to rise
PARTED = 1.03  # times the best held-out losses is no longer chance
PARTED_BY = 0.01  # nor is it rounding
FALLEN = 0.95  # times the loss of the training before
_KEPT = 1_000
_LARGEST = 700.0  # a loss beyond which its exponential is no number

Course = Sequence[tuple[int, float]]  # steps with their loss
Log = Sequence[dict[str, Any]]  # the `log_history` of the trainer and of its checkpoints


class RecentLoss:
    """The mean of the newest reports, as tiles, tables and the end of a run tell it.

    A report that is not beyond the last one belongs to a later attempt of the run: it supersedes
    all at the same or a later step.
    """

    def __init__(self) -> None:
        self._points: deque[tuple[int, float]] = deque(maxlen=_KEPT)

    def add(self, step: int, loss: float) -> None:
        while self._points and self._points[-1][0] >= step:
            self._points.pop()
        self._points.append((step, loss))

    @property
    def value(self) -> float | None:
        """None before the first report."""
        return recent([loss for _, loss in list(self._points)[-RECENT:]])


def recent(losses: Sequence[float]) -> float | None:
    """The mean of the last `RECENT` of the losses; None without any."""
    newest = losses[-RECENT:]
    return sum(newest) / len(newest) if newest else None


def perplexity(loss: float) -> float:
    """exp(loss): among how many tokens the model is as unsure as if it guessed between them.

    Args:
        loss: a mean over tokens, in nats.
    """
    return math.exp(min(loss, _LARGEST))


def rise(losses: Sequence[float]) -> tuple[float, float] | None:
    """Where the losses began and ended (means of a tenth each), if they clearly rose."""
    if len(losses) < FEWEST:
        return None
    tenth = len(losses) // 10
    first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    return (first, last) if last > RISEN * first else None


@dataclass(frozen=True)
class Divergence:
    """The loss, or the gradient norm, got out of hand: from `before` it rose to `last`.

    `since` is the last step at which it was still about as before.
    """

    since: int
    before: float
    last: float


def divergence(course: Course, norms: bool = False) -> Divergence | None:
    """Whether a course that came to its end early got out of hand before.

    Means of up to five reports are compared, so that no single batch decides in a long course.

    Args:
        norms: it is one of gradient norms, which differ more from step to step.
    """
    found = [(step, value) for step, value in course if math.isfinite(value)]
    if len(found) < 2:
        return None
    size = min(5, max(1, len(found) // 3))
    values = [value for _, value in found]
    means = [sum(values[at : at + size]) / size for at in range(len(values) - size + 1)]
    last = means[-1]
    if norms:
        before = sorted(values)[len(values) // 2]
        risen = last >= EXPLODED * before
    else:
        before = min(means)
        risen = last >= max((RISEN if size > 1 else 2 * RISEN) * before, before + RISEN_BY)
    if not risen:
        return None
    calm = [at for at, mean in enumerate(means) if mean <= before + (last - before) / 10]
    return Divergence(found[max(calm, default=0)][0], before, last)


def of_gradients(log: Log) -> list[tuple[int, float]]:
    """The gradient norms of the training, of all attempts."""
    return [(int(e["step"]), float(e["grad_norm"])) for e in log if "grad_norm" in e]


def of_training(log: Log) -> list[tuple[int, float]]:
    """The reports of the training, of all attempts."""
    return [(int(entry["step"]), float(entry["loss"])) for entry in log if "loss" in entry]


def of_tests(log: Log) -> list[tuple[int, float]]:
    """The held-out losses, of all attempts; infinite where one was no number."""
    found = [(int(e["step"]), float(e["eval_loss"])) for e in log if "eval_loss" in e]
    return [(step, loss if math.isfinite(loss) else math.inf) for step, loss in found]


def tests_since_best(losses: Sequence[float]) -> int:
    """How many tests came after the one with the lowest held-out loss."""
    return len(losses) - 1 - losses.index(min(losses)) if losses else 0


def is_exhausted(losses: Sequence[float], patience: int) -> bool:
    """Whether so many tests in a row brought no lower held-out loss that a run is to end.

    One that went on all the same is given as many tests again. No patience (0) is never exhausted.
    """
    since = tests_since_best(losses)
    return patience > 0 and since > 0 and since % patience == 0


@dataclass(frozen=True)
class Parting:
    """The curves part: the held-out loss rose from `best` at `step` to `last`."""

    step: int
    best: float
    last: float


def parting(held_out: Course, train: Course) -> Parting | None:
    """Whether the model learns its rows by heart: the held-out loss rises, that of training falls.

    Each side is a mean, so that no single test decides: the last three tests, all of them after
    the best one, against the best one and the lower of its neighbours; the reports since the best
    test against those of as many steps before it.

    Args:
        held_out: the tests so far, in the order of their steps.
        train: the reports of the training so far, likewise.
    """
    losses = [loss for _, loss in held_out]
    if tests_since_best(losses) < WORSE_TESTS:
        return None
    place = losses.index(min(losses))
    neighbours = losses[max(0, place - 1) : place] + losses[place + 1 : place + 2]
    low = (losses[place] + min(neighbours)) / 2
    last = sum(losses[-WORSE_TESTS:]) / WORSE_TESTS
    if last < PARTED * low or last < low + PARTED_BY:
        return None
    best, now = held_out[place][0], held_out[-1][0]
    before = [loss for step, loss in train if 2 * best - now < step <= best]
    after = [loss for step, loss in train if best < step <= now]
    if min(len(before), len(after)) < WORSE_TESTS:
        return None
    if sum(after) / len(after) > FALLEN * sum(before) / len(before):
        return None
    return Parting(best, losses[place], losses[-1])
