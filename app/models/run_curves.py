"""A run's journal as curves, read in a thread piece by piece.

A million events as objects would take a gigabyte; as arrays they take some tens of megabytes.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from app.widgets.charts.series import Floats
from training_backend.lifecycle import journal
from training_backend.protocol import Event, MemorySampled, MetricsLogged, RunStarted
from training_backend.runs import Run

EVENTS_A_PART = 10_000


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


@dataclass(frozen=True)
class JournalPart:
    """A piece of a journal: steps and samples as arrays, all other events as they are.

    All of it belongs to one attempt, whose `RunStarted` can only stand at its beginning.
    """

    events: list[Event]
    metrics: MetricsBlock | None
    memory: MemoryBlock | None
    last_seq: int
    elapsed: float
    share_read: float  # of the whole journal, with this part


def read_parts(run: Run) -> Iterator[JournalPart]:
    """The whole journal, oldest first. Reads the disk: for a thread."""
    building = _Building()
    for events, share in journal.pieces(run.folder):
        # Few event objects are alive at a time: many would set off Python's garbage collector,
        # which holds up all threads.
        for event in events:
            if building.begins_anew(event):
                yield building.part(share)
                building = _Building()
            building.add(event)
        if building.count >= EVENTS_A_PART:
            yield building.part(share)
            building = _Building()
    if building.count:
        yield building.part(1.0)


class _Building:
    """A part of the journal while it is read."""

    def __init__(self) -> None:
        self.count = 0
        self._events: list[Event] = []
        self._metrics = [array("d") for _ in range(7)]
        self._memory = [array("d") for _ in range(3)]
        self._step: MetricsLogged | None = None
        self._sample: MemorySampled | None = None
        self._last: Event | None = None

    def begins_anew(self, event: Event) -> bool:
        """Whether an attempt begins, or steps that supersede earlier ones."""
        if isinstance(event, MetricsLogged):
            return self._step is not None and event.step <= self._step.step
        return isinstance(event, RunStarted) and self.count > 0

    def add(self, event: Event) -> None:
        self.count += 1
        self._last = event
        match event:
            case MetricsLogged():
                self._step = event
                row = (
                    event.step, event.elapsed, event.loss, event.learning_rate, event.grad_norm,
                    event.tokens_per_second, event.reward_margin,
                )  # fmt: skip
                _append(self._metrics, row)
            case MemorySampled():
                self._sample = event
                _append(self._memory, (event.elapsed, event.process_bytes, event.device_used_bytes))
            case _:
                self._events.append(event)

    def part(self, share_read: float) -> JournalPart:
        metrics = memory = None
        if self._step is not None:
            step, elapsed, loss, rate, norm, speed, margin = map(np.array, self._metrics)
            metrics = MetricsBlock(step, elapsed, loss, rate, norm, speed, margin, self._step)
        if self._sample is not None:
            elapsed, process, used = map(np.array, self._memory)
            sample = self._sample
            memory = MemoryBlock(elapsed, process, used, sample.device_total_bytes, sample.device)
        assert self._last is not None
        return JournalPart(
            self._events, metrics, memory, self._last.seq, self._last.elapsed, share_read
        )


def _append(columns: list[array[float]], row: Sequence[float | None]) -> None:
    for column, value in zip(columns, row, strict=True):
        column.append(math.nan if value is None else value)
