"""Looks on while a training goes on, and says when it becomes slow, and why."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

from training_backend.computer import nvidia, ram
from training_backend.protocol import Event, MemorySampled
from training_backend.watching import slow_causes
from training_backend.watching.slow_causes import Cause, Lasting, Reading
from training_backend.watching.step_times import AsBefore, Slower, StepTimes, Work
from training_backend.worker import Reporter

KEPT_READINGS = 600  # one a second
KEPT_STEPS = 4_000
BEFORE_SECONDS = 300.0
MOST_TOLD = 6  # times that it became slow: a computer that keeps doing so is known by then


class RunWatch(TrainerCallback):  # type: ignore[misc]
    """Comes first of the callbacks, so that none of their work counts as part of a step.

    Args:
        trainer: with `TrainerHabits`.
    """

    def __init__(self, trainer: Any, reporter: Reporter) -> None:
        self._trainer = trainer
        self._reporter = reporter
        self._times = StepTimes()
        self._hot, self._overfull = Lasting(60), Lasting(15)
        self._hot_since = 0
        self._moves_memory = nvidia.moves_memory()
        self._readings: deque[Reading] = deque(maxlen=KEPT_READINGS)
        self._fresh: list[Reading] = []
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._steps: deque[tuple[int, float]] = deque(maxlen=KEPT_STEPS)  # and when they began
        self._told = 0
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first calls only start the measurement
        psutil.cpu_percent()
        reporter.listen(self._hear)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step
        shapes = [tuple(batch["input_ids"].shape) for batch in self._trainer.batches]
        self._steps.append((step, self._began))
        match self._times.add(step, time.monotonic() - self._began, Work.of(shapes)):
            case Slower() as slower:
                self._tell_slower(slower)
            case AsBefore(since=since, until=until) if self._told <= MOST_TOLD:
                self._reporter.warn(
                    "as_fast_again",
                    "From step {until} on a step takes as long as it did before step {since}.",
                    since=since,
                    until=until,
                )
        with self._lock:
            fresh, self._fresh = self._fresh, []
        for reading in fresh:
            self._look_at_card(reading, step)

    def _tell_slower(self, slower: Slower) -> None:
        self._told += 1
        if self._told > MOST_TOLD:
            return
        began = next((at for step, at in self._steps if step >= slower.since), self._began)
        with self._lock:
            readings = tuple(self._readings)
        before = [each for each in readings if began - BEFORE_SECONDS <= each.seconds < began]
        cause = slow_causes.explain(
            slower,
            before,
            [each for each in readings if each.seconds >= began],
            moves_memory=self._moves_memory,
            programs=nvidia.others_computing(),
        )
        self._say(cause, slower.since)

    def _look_at_card(self, reading: Reading, step: int) -> None:
        """What a card itself tells, whether or not the steps have become slower."""
        match self._hot.add(reading.held_back_by == "heat"):
            case True:
                self._hot_since = step
                with self._lock:
                    newest = tuple(self._readings)[-60:]
                self._say(slow_causes.hot(newest), step)
            case False:
                self._reporter.warn(
                    "card_cool",
                    "From step {until} on the card is cool enough for its full speed.",
                    since=self._hot_since,
                    until=step,
                )
        used, total = reading.card_used, reading.card_total
        if not self._moves_memory or used is None or total is None:
            return
        overfull = slow_causes.overfull(torch.cuda.memory_reserved(), used, total)
        if self._overfull.add(overfull is not None) and overfull is not None:
            self._say(overfull, step)

    def _say(self, cause: Cause, since: int) -> None:
        self._reporter.warn(cause.code, cause.template, since=since, **cause.params)

    def _hear(self, event: Event) -> None:
        """Once a second, from the thread that samples the memory."""
        if isinstance(event, MemorySampled):
            # That thread is also the run's heartbeat: what only looks on must not end it.
            with contextlib.suppress(Exception):
                reading = self._read(event)
                with self._lock:
                    self._readings.append(reading)
                    self._fresh.append(reading)

    def _read(self, sample: MemorySampled) -> Reading:
        on_card = sample.device != "cpu"
        memory = ram.read()
        return Reading(
            seconds=time.monotonic(),
            card_used=sample.device_used_bytes if on_card else None,
            card_total=sample.device_total_bytes if on_card else None,
            own=sample.process_bytes if on_card else None,
            held_back_by=sample.held_back_by,
            temperature=sample.temperature_celsius,
            clock_share=sample.clock_share,
            processor=psutil.cpu_percent() / 100,
            own_processor=self._process.cpu_percent() / 100 / (os.cpu_count() or 1),
            ram_free=memory.available_bytes / max(1, memory.total_bytes),
            swapped=memory.swapped_in_bytes,
            on_battery=_on_battery(),
        )


def _on_battery() -> bool | None:
    """None where there is no battery, or the system does not say."""
    ask = getattr(psutil, "sensors_battery", None)
    battery = ask() if ask else None
    return None if battery is None or battery.power_plugged is None else not battery.power_plugged
