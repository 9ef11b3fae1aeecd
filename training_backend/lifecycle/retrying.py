"""Follows a run to its last end, over the attempts that it makes by itself (see `halving`)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from training_backend import runs
from training_backend.errors import UserError
from training_backend.lifecycle import halving, journal, launch
from training_backend.protocol import Event, RunFailed, RunStarted
from training_backend.runs import Run

LOOK_SECONDS = 0.25
# Another follower, such as a second window, may be the one that begins the next attempt.
ELSEWHERE_SECONDS = 60.0

logger = logging.getLogger(__name__)

Events = Iterator[Event | None]


def follow(run: Run, events: Events, begin: Callable[[Run], Events]) -> Events:
    """All events of a run, each once, and None now and then (as `Worker.follow`).

    A `RunFailed` that goes on is not the end: the batch is halved and the run begun again. Where
    that cannot be, or the person asked to stop meanwhile, the failure is its end after all.

    Args:
        events: of the attempt under way.
        begin: hands the run to a worker, for the next attempt.
    """
    seen = -1
    revision = 0
    while True:
        last: Event | None = None
        for event in events:
            if event is None:
                yield None
                continue
            if event.seq > seen:
                yield event
            last, seen = event, max(seen, event.seq)
            if isinstance(event, RunStarted):
                revision = event.revision
        if not (isinstance(last, RunFailed) and last.goes_on):
            return
        yield from _until(lambda: not launch.is_ending(run), launch.KILL_SECONDS)
        try:
            job = halving.halved(run.training_job())
            if job is None or run.requested("stop"):
                return
            if runs.revise(run, job, known=revision):
                events = begin(run)
            else:
                events = _begun_elsewhere(run, seen)
        except (UserError, OSError) as error:
            logger.warning("%s does not go on by itself: %s", run.id, error)
            return


def _begun_elsewhere(run: Run, seen: int) -> Events:
    """Another follower was faster: its attempt, as soon as it shows."""

    def has_begun() -> bool:
        last = journal.last_event(run.folder)
        return last is not None and last.seq > seen

    yield from _until(has_begun, ELSEWHERE_SECONDS)
    if has_begun():
        yield from launch.tail(run)


def _until(is_so: Callable[[], bool], seconds: float) -> Iterator[None]:
    """Wait, but let the caller leave meanwhile."""
    deadline = time.monotonic() + seconds
    while not is_so() and time.monotonic() < deadline:
        yield None
        time.sleep(LOOK_SECONDS)
