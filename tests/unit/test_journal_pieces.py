"""A long journal is read piece by piece, and nothing of it is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.models.run_curves import read_parts
from training_backend.lifecycle import journal
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import (
    Event,
    LogLine,
    MemorySampled,
    MetricsLogged,
    RunCompleted,
    RunStarted,
    SampleGenerated,
)
from training_backend.runs import Run


def _step(step: int) -> MetricsLogged:
    return MetricsLogged(step=step, total_steps=99, epoch=0.1, loss=10.0 / step)


def _written(folder: Path, *events: Event) -> Run:
    writer = JournalWriter(folder)
    for event in events:
        writer.append(event)
    writer.close()
    return Run(folder)


def test_pieces_hold_all_events_in_order_whatever_their_length(tmp_path: Path) -> None:
    long = SampleGenerated(step=1, prompt="?", answer="x" * 5_000)
    run = _written(tmp_path, *map(_step, range(1, 50)), long, LogLine(message="last"))
    pieces = list(journal.pieces(tmp_path, 1_000))
    assert [event for events, _ in pieces for event in events] == run.events()
    shares = [share for _, share in pieces]
    assert len(shares) > 5
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_line_that_is_still_being_written_ends_the_pieces(tmp_path: Path) -> None:
    _written(tmp_path, _step(1))
    with (tmp_path / journal.FILE_NAME).open("a", encoding="utf-8") as file:
        file.write('{"type": "LogLine", "mess')
    assert [event.seq for events, _ in journal.pieces(tmp_path) for event in events] == [0]
    assert list(journal.pieces(tmp_path / "nowhere")) == []


def test_parts_hold_every_step_and_begin_anew_with_each_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.models.run_curves.EVENTS_A_PART", 10)
    monkeypatch.setattr(journal.pieces, "__defaults__", (500,))
    start = RunStarted(run_id="x", folder="x", pid=1)
    again = RunStarted(run_id="x", folder="x", pid=1, attempt=2, resumed_from_step=10)
    sample = MemorySampled(
        device="cpu", process_bytes=None, device_used_bytes=7, device_total_bytes=9
    )
    run = _written(
        tmp_path, start, *map(_step, range(1, 21)), sample, again, *map(_step, range(11, 31)),
        RunCompleted(folder="x"),
    )  # fmt: skip
    parts = list(read_parts(run))
    assert len(parts) >= 4
    steps = [step for part in parts if part.metrics for step in part.metrics.step]
    assert steps == [*range(1, 21), *range(11, 31)]
    losses = [loss for part in parts if part.metrics for loss in part.metrics.loss]
    assert losses == [10.0 / step for step in steps]
    assert all(np.isnan(part.metrics.grad_norm).all() for part in parts if part.metrics)
    memory = [part.memory for part in parts if part.memory is not None]
    assert [list(block.device_used_bytes) for block in memory] == [[7.0]]
    assert np.isnan(memory[0].process_bytes[0])
    starts = [part for part in parts if any(isinstance(e, RunStarted) for e in part.events)]
    assert len(starts) == 2
    assert all(isinstance(part.events[0], RunStarted) for part in starts)
    assert parts[-1].last_seq == run.events()[-1].seq
    assert parts[-1].share_read == 1.0
