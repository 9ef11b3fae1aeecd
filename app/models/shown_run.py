"""What is known of the run that the Train page shows."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.models.run_marks import RunMarks
from training_backend.job import TrainingJob
from training_backend.lifecycle.pauses import Pauses
from training_backend.lifecycle.run_requests import Kind
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
    SampleGenerated,
    Terminal,
)
from training_backend.runs import Run
from training_backend.summaries.losses import RecentLoss


@dataclass
class ShownRun:
    """The newest event of each kind, and how far its history has been read.

    `early` holds live events that came before the history; `counts` is the phase that told
    the numbers of steps, parameters and rows; `asked` is what the person has asked of the run and
    what is not done yet, a pause for as long as it lasts; `questions` are the prompts among it.
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
    marks: RunMarks = field(default_factory=RunMarks)
    parting: str = ""  # that the model learns its rows by heart
    halved: str = ""  # that it went on by itself with half the rows at once
    held_out: EvaluationLogged | None = None
    checkpoint: CheckpointSaved | None = None
    terminal: Terminal | None = None
    seconds: float = 0.0  # of all attempts before this one
    elapsed: float = 0.0
    _paused: bool = False
    asked: set[Kind] = field(default_factory=set)
    stands_still: bool = False
    questions: set[str] = field(default_factory=set)
    pauses: Pauses = field(default_factory=Pauses)
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

    def total_steps(self) -> int:
        """How many steps the run has in all; an attempt that extends it knows better."""
        if self.counts is not None and self.counts.total_steps is not None:
            return self.counts.total_steps
        return self.metrics.total_steps if self.metrics is not None else 0

    def is_paused(self) -> bool:
        """Whether the person had it pause; it may be answering a question meanwhile."""
        return self.is_running() and self._paused

    def take_phase(self, event: PhaseChanged) -> None:
        """Note a phase, and what of that which was asked is done with it."""
        was_sampling = self.phase is not None and self.phase.phase == "sampling"
        if was_sampling and event.phase != "sampling" and not self.questions:
            self.asked.discard("question")
        self.phase = event
        if event.total_steps is not None:
            self.counts = event
        if event.phase == "paused":
            self._paused = True
            self.asked.add("pause")
        elif event.phase == "training" and self._paused:
            self.forget_pause()

    def ask(self, *prompts: str) -> None:
        self.questions.update(prompts)
        self.asked.add("question")

    def take_answer(self, event: SampleGenerated) -> bool:
        """Note an answer; tells whether it was asked for just now, in this window."""
        if event.prompt not in self.questions:
            return False
        self.questions.remove(event.prompt)
        if not self.questions:
            self.asked.discard("question")
        return True

    def forget_questions(self) -> None:
        self.questions.clear()
        self.asked.discard("question")

    def forget_requests(self) -> None:
        """Nothing of what was asked comes any more."""
        self.asked.clear()
        self.questions.clear()
        self._paused = False

    def forget_pause(self) -> None:
        """The run goes on, or has ended."""
        self._paused = False
        self.asked.discard("pause")

    def can_resume(self) -> bool:
        """Whether it has ended, before its last step, with something saved."""
        match self.terminal:
            case RunStopped(checkpoint=checkpoint):
                return checkpoint is not None
            case RunFailed() | RunInterrupted():
                return self.checkpoint is not None
        return False
