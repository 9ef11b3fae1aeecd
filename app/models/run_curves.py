"""A run's journal as curves, read in a thread piece by piece.

A million events as objects would take a gigabyte; as arrays they take some tens of megabytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from app.widgets.series import Floats
from training_backend import journal
from training_backend.protocol import Event, MemorySampled, MetricsLogged, RunStarted
from training_backend.runs import Run


@dataclass(frozen=True)
class MetricsBlock:
    """Consecutive steps of one attempt, one array a number; NaN where it is not known."""

    step: Floats
    elapsed: Floats  # seconds since the attempt began
    loss: Floats
    learning_rate: Floats
    grad_norm: Floats
    tokens_per_second: Floats
    reward_margin: Floats
    last: MetricsLogged


@dataclass(frozen=True)
class MemoryBlock:
    """Consecutive samples of one attempt; NaN where the driver does not say."""

    elapsed: Floats
    process_bytes: Floats
    device_used_bytes: Floats
    device_total_bytes: int
    device: str


@dataclass
class JournalPart:
    """A piece of a journal: steps and samples as arrays, all other events as they are.

    All of it belongs to one attempt, whose `RunStarted` can only stand at its beginning.
    """

    events: list[Event] = field(default_factory=list)
    metrics: MetricsBlock | None = None
    memory: MemoryBlock | None = None
    last_seq: int = -1
    elapsed: float = 0.0
    share_read: float = 1.0  # of the whole journal, with this part


def read_parts(run: Run) -> Iterator[JournalPart]:
    """The whole journal, oldest first. Reads the disk: for a thread."""
    for events, share in journal.pieces(run.folder):
        for same in _by_attempt(events):
            yield _part(same, share)


def _by_attempt(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    """Cut where an attempt begins, and where steps do not rise."""
    start, step = 0, -1
    for index, event in enumerate(events):
        if isinstance(event, MetricsLogged):
            falls, step = event.step <= step, event.step
        else:
            falls = isinstance(event, RunStarted)
        if falls:
            if index > start:
                yield events[start:index]
            start = index
            step = event.step if isinstance(event, MetricsLogged) else -1
    if start < len(events):
        yield events[start:]


def _part(events: Sequence[Event], share: float) -> JournalPart:
    metrics = [event for event in events if isinstance(event, MetricsLogged)]
    memory = [event for event in events if isinstance(event, MemorySampled)]
    return JournalPart(
        events=[e for e in events if not isinstance(e, MetricsLogged | MemorySampled)],
        metrics=_metrics_block(metrics) if metrics else None,
        memory=_memory_block(memory) if memory else None,
        last_seq=events[-1].seq,
        elapsed=events[-1].elapsed,
        share_read=share,
    )


def _metrics_block(events: list[MetricsLogged]) -> MetricsBlock:
    return MetricsBlock(
        step=_floats([event.step for event in events]),
        elapsed=_floats([event.elapsed for event in events]),
        loss=_floats([event.loss for event in events]),
        learning_rate=_floats([event.learning_rate for event in events]),
        grad_norm=_floats([event.grad_norm for event in events]),
        tokens_per_second=_floats([event.tokens_per_second for event in events]),
        reward_margin=_floats([event.reward_margin for event in events]),
        last=events[-1],
    )


def _memory_block(events: list[MemorySampled]) -> MemoryBlock:
    return MemoryBlock(
        elapsed=_floats([event.elapsed for event in events]),
        process_bytes=_floats([event.process_bytes for event in events]),
        device_used_bytes=_floats([event.device_used_bytes for event in events]),
        device_total_bytes=events[-1].device_total_bytes,
        device=events[-1].device,
    )


def _floats(values: Sequence[float | None]) -> Floats:
    return np.array(values, dtype=np.float64)  # None becomes NaN
