"""What a run came to, as the few numbers that tables and summaries tell. Light.

Reads the whole journal, piece by piece: for a thread.
"""

from __future__ import annotations

import statistics
from array import array
from dataclasses import dataclass

from training_backend.lifecycle import journal
from training_backend.lifecycle.pauses import Pauses
from training_backend.protocol import (
    TERMINAL_TYPES,
    EvaluationLogged,
    MemorySampled,
    MetricsLogged,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    RunStarted,
    Terminal,
)
from training_backend.runs import Run, State
from training_backend.summaries.losses import RecentLoss


@dataclass(frozen=True)
class RunFacts:
    """A run's result.

    Attributes:
        train_loss: the mean of its last reports, as everywhere.
        held_out_loss: of the model that was kept: the best one's, else the last one's.
        peak_bytes: the most memory that its process held; None where the driver does not say.
        tokens_per_second: the median of its steps.
        seconds: of all attempts, loading included; without the time in which it waited for a card
            or for room on the disk, or was paused.
        terminal: how the last attempt ended; None before that.
    """

    run: Run
    name: str
    state: State
    step: int | None = None
    total_steps: int | None = None
    train_loss: float | None = None
    held_out_loss: float | None = None
    peak_bytes: int | None = None
    device: str = ""
    tokens_per_second: float | None = None
    seconds: float = 0.0
    terminal: Terminal | None = None

    @property
    def ended(self) -> float | None:
        """When, in Unix seconds."""
        return self.terminal.time if self.terminal is not None else None

    @property
    def cause(self) -> str:
        """Why it did not come to its end, and what to do; "" for a run that did."""
        match self.terminal:
            case RunFailed() | RunInterrupted():
                return self.terminal.words
        return ""


def read(run: Run, name: str = "") -> RunFacts:
    """The facts of a run, begun or not.

    Args:
        name: as its job says, where that was read already.

    Raises `UserError` when its job file is damaged and no name is given.
    """
    loss = RecentLoss()
    speeds = array("d")
    step: MetricsLogged | None = None
    held_out: float | None = None
    peak: int | None = None
    device = ""
    earlier = elapsed = 0.0  # seconds of attempts that ended, and of the last one
    pauses = Pauses()
    terminal: Terminal | None = None
    for events, _ in journal.pieces(run.folder):
        for event in events:
            if isinstance(event, RunStarted):
                earlier, elapsed, terminal = earlier + elapsed, 0.0, None
            elapsed = max(elapsed, event.elapsed)
            pauses.take(event)
            match event:
                case MetricsLogged():
                    step = event
                    loss.add(event.step, event.loss)
                    if event.tokens_per_second is not None:
                        speeds.append(event.tokens_per_second)
                case EvaluationLogged():
                    held_out = event.loss
                case MemorySampled():
                    device = event.device
                    if event.process_bytes is not None:
                        peak = max(peak or 0, event.process_bytes)
            if isinstance(event, TERMINAL_TYPES):
                terminal = event
    if isinstance(terminal, RunCompleted) and terminal.best_loss is not None:
        held_out = terminal.best_loss
    return RunFacts(
        run=run,
        name=name or run.training_job().name,
        state=run.state(),
        step=step.step if step else None,
        total_steps=step.total_steps if step else None,
        train_loss=loss.value,
        held_out_loss=held_out,
        peak_bytes=peak,
        device=device,
        tokens_per_second=statistics.median(speeds) if speeds else None,
        seconds=earlier + elapsed - pauses.seconds,
        terminal=terminal,
    )
