"""What is known of the run that the Train page shows."""

from __future__ import annotations

from dataclasses import dataclass, field

from training_backend.job import TrainingJob
from training_backend.losses import RecentLoss
from training_backend.protocol import (
    CheckpointSaved,
    EvaluationLogged,
    Event,
    MetricsLogged,
    PhaseChanged,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    RunStopped,
    Terminal,
)
from training_backend.run_requests import Kind
from training_backend.runs import Run


@dataclass
class ShownRun:
    """The newest event of each kind, and how far its history has been read.

    `early` holds live events that came before the history; `counts` is the phase that told
    the numbers of steps, parameters and rows; `asked` is what the person has asked of the run and
    what is not done yet, a pause for as long as it lasts.
    """

    run: Run | None = None
    job: TrainingJob | None = None
    live: bool = False
    last_seq: int = -1
    phase: PhaseChanged | None = None
    counts: PhaseChanged | None = None
    metrics: MetricsLogged | None = None
    loss: RecentLoss = field(default_factory=RecentLoss)
    warning: str = ""  # what the outcome has to say besides
    parting: str = ""  # that the model learns its rows by heart
    held_out: EvaluationLogged | None = None
    checkpoint: CheckpointSaved | None = None
    terminal: Terminal | None = None
    seconds: float = 0.0  # of all attempts before this one
    elapsed: float = 0.0
    asked: set[Kind] = field(default_factory=set)
    paused_seconds: float = 0.0  # of all attempts
    paused_at: float | None = None  # seconds into this attempt
    early: list[Event] = field(default_factory=list)
    caught_up: bool = False
    share_read: float = 0.0  # of the history

    def warning_of(self, end: Terminal) -> str:
        """What is to be said of the result: not of learning by heart where the best is kept."""
        kept = isinstance(end, RunCompleted) and end.best_step is not None
        ended = isinstance(end, RunCompleted | RunStopped)
        return " ".join(
            part for part in (self.warning, self.parting if ended and not kept else "") if part
        )

    def is_running(self) -> bool:
        return self.run is not None and self.live and self.terminal is None

    def is_paused(self) -> bool:
        return self.is_running() and self.paused_at is not None

    def take_phase(self, event: PhaseChanged) -> None:
        """Note a phase, and how long the run stood still in a pause."""
        if self.phase is not None and self.phase.phase == "sampling" != event.phase:
            self.asked.discard("question")
        self.phase = event
        if event.total_steps is not None:
            self.counts = event
        if event.phase == "paused" and self.paused_at is None:
            self.paused_at = event.elapsed
            self.asked.add("pause")
        elif event.phase == "training":
            self.end_pause(event.elapsed)

    def end_pause(self, elapsed: float) -> None:
        """The run goes on, or has ended, so many seconds into its attempt."""
        if self.paused_at is not None:
            self.paused_seconds += max(0.0, elapsed - self.paused_at)
            self.asked.discard("pause")
        self.paused_at = None

    def can_resume(self) -> bool:
        """Whether it has ended, before its last step, with something saved."""
        match self.terminal:
            case RunStopped(checkpoint=checkpoint):
                return checkpoint is not None
            case RunFailed() | RunInterrupted():
                return self.checkpoint is not None
        return False
