"""The Train page: one run, live or from history, drawn by the same code.

`apply` takes events and only notes what they say; `_render` writes it into the labels at most
ten times a second, so that neither a quick run nor a long history holds up the window.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import (
    QGridLayout,
    QProgressBar,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from app.background import run_in_background
from app.widgets import figures, wording
from app.widgets.actions import set_primary
from app.widgets.answers import AnswersCard
from app.widgets.card import (
    CARD_GAP,
    PAGE_MARGIN,
    Card,
    ErrorLabel,
    PageHeader,
    SecondaryButton,
    secondary_label,
)
from app.widgets.log_view import LogCard
from app.widgets.metric_chart import LossChart, MemoryChart
from app.widgets.outcome import OutcomeCard
from app.widgets.stat_tile import StatTile
from training_backend import runs
from training_backend.errors import Problem, UserError
from training_backend.job import TrainingJob
from training_backend.protocol import (
    CheckpointSaved,
    EvaluationLogged,
    Event,
    Heartbeat,
    LogLine,
    MemorySampled,
    MetricsLogged,
    PhaseChanged,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    RunStarted,
    RunStopped,
    SampleGenerated,
    Terminal,
    WarningRaised,
)
from training_backend.runs import Run

RENDER_MILLISECONDS = 100
CLOCK_MILLISECONDS = 5_000
STOP_IS_SLOW_MILLISECONDS = 30_000
PROGRESS_PARTS = 1_000
LEAST_CHARTS_HEIGHT = 520


@dataclass
class _Shown:
    """What is known of the run on the page."""

    run: Run | None = None
    job: TrainingJob | None = None
    live: bool = False
    last_seq: int = -1
    phase: PhaseChanged | None = None
    counts: PhaseChanged | None = None
    metrics: MetricsLogged | None = None
    held_out: EvaluationLogged | None = None
    checkpoint: CheckpointSaved | None = None
    terminal: Terminal | None = None
    seconds: float = 0.0  # of all attempts before this one
    elapsed: float = 0.0
    early: list[Event] = field(default_factory=list)
    caught_up: bool = False


class TrainPage(QWidget):
    """One run from Start to its end, and every run of the past."""

    start_requested = Signal()
    stop_requested = Signal()
    resume_requested = Signal(object)
    export_requested = Signal(object)
    back_to_current_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._shown = _Shown()
        self._draft = ("", "", True, "")
        self._checking = False
        self._stopping = False
        self._current: Run | None = None  # the live run, whichever run is shown
        self._build()
        self._render_timer = QTimer(self, singleShot=True, interval=RENDER_MILLISECONDS)
        self._render_timer.timeout.connect(self.render_now)
        self._clock = QTimer(self, interval=CLOCK_MILLISECONDS)
        self._clock.timeout.connect(self.render_now)
        self._patience = QTimer(self, singleShot=True, interval=STOP_IS_SLOW_MILLISECONDS)
        self._patience.timeout.connect(self._offer_to_end)
        self.render_now()

    # ------------------------------------------------------------------ what the window tells it

    def set_draft_summary(self, title: str, subtitle: str, ready: bool, why_not: str) -> None:
        """What Start would run, and if it cannot, why not."""
        self._draft = (title, subtitle, ready, why_not)
        self.render_now()

    def open_run(self, run: Run, live: bool) -> None:
        """Show this run from its beginning; what it said so far is read in the background."""
        self._shown = shown = _Shown(run=run, live=live)
        try:
            shown.job = run.training_job()
        except UserError:
            shown.job = None  # damaged: the events still tell what happened
        if live:
            self._current = run
        self._checking = self._stopping = False
        self._patience.stop()
        self._errors.show_error("")
        for part in (self.loss_chart, self.memory_chart, self.log):
            part.clear()
        self.answers.set_questions(shown.job.evaluation.prompts if shown.job else ())
        self._place_answers(first=False)
        self._scroll.verticalScrollBar().setValue(0)

        def read(events: list[Event]) -> None:
            if self._shown is shown:
                self.replay(events)

        history = run.events if live else lambda: _settled_events(run)
        run_in_background(history, read, lambda _: read([]), self)
        self.render_now()

    def apply(self, event: Event) -> None:
        """One event of the live run."""
        shown = self._shown
        if not shown.live:
            if isinstance(event, RunCompleted | RunStopped | RunFailed | RunInterrupted):
                self._current = None
                self._render_soon()
        elif shown.caught_up or event.seq < 0:
            self._take(event)
        else:
            shown.early.append(event)

    def replay(self, events: list[Event]) -> None:
        """Many events at once, from the run's file.

        A live run's file may end with the end of an earlier attempt: that is not the run's.
        """
        shown = self._shown
        for event in events:
            self._take(event, past=shown.live)
        shown.caught_up = True
        early, shown.early = shown.early, []
        for event in early:
            self._take(event)
        self.render_now()

    def finish(self, run: Run | None, terminal: Terminal | None) -> None:
        """The run that was followed has ended; mostly its last event said so already."""
        shown = self._shown
        if shown.live and shown.run == run and shown.terminal is None and terminal is not None:
            self._end(terminal)
        self._current = None
        self.render_now()

    def show_problems(self, problems: list[Problem]) -> None:
        """Say why the job cannot start; an empty list takes that back."""
        self._checking = False
        self._errors.show_error("\n".join(problem.message for problem in problems))
        if problems:
            self._scroll.verticalScrollBar().setValue(0)
        self.render_now()

    def run(self) -> Run | None:
        """The run on the page."""
        return self._shown.run

    # --------------------------------------------------------------------------- the event union

    def _take(self, event: Event, *, past: bool = False) -> None:
        shown = self._shown
        if 0 <= event.seq <= shown.last_seq:
            return  # came by both ways
        shown.last_seq = max(shown.last_seq, event.seq)
        match event:
            case RunStarted():
                shown.terminal = None
                shown.elapsed = 0.0
                shown.metrics = shown.metrics if event.resumed_from_step else None
                self.memory_chart.begin_attempt()
                self._log_start(event)
            case PhaseChanged():
                if shown.phase is None or event.phase != shown.phase.phase:
                    self._log(event, wording.phase_title(event.phase))
                shown.phase = event
                if event.total_steps is not None:
                    shown.counts = event
            case MetricsLogged():
                shown.metrics = event
                self.loss_chart.add_metrics(event)
            case MemorySampled():
                self.memory_chart.add_sample(event)
            case EvaluationLogged():
                shown.held_out = event
                self.loss_chart.add_evaluation(event)
                self._log(
                    event,
                    self.tr("Held-out loss after step {step}: {loss}").format(
                        step=figures.count(event.step), loss=figures.loss(event.loss)
                    ),
                )
            case SampleGenerated():
                self.answers.add(event)
            case CheckpointSaved():
                shown.checkpoint = event
                self._log(
                    event,
                    self.tr("Checkpoint at step {step} saved ({size})").format(
                        step=figures.count(event.step), size=figures.size(event.bytes)
                    ),
                )
            case WarningRaised():
                self._log(event, self.tr("Note: {message}").format(message=event.message))
            case LogLine():
                self._log(event, event.message)
            case Heartbeat():
                pass
            case RunCompleted() | RunStopped() | RunFailed() | RunInterrupted():
                self._end(event, past=past)
        # A worker that died did not write its own end: what came before tells how long it ran.
        shown.elapsed = max(shown.elapsed, event.elapsed)
        self._render_soon()

    def _log(self, event: Event, text: str) -> None:
        self.log.add(event.time, text)

    def _log_start(self, event: RunStarted) -> None:
        if event.resumed_from_step is not None:
            text = self.tr("Resumed from step {step}").format(
                step=figures.count(event.resumed_from_step)
            )
        else:
            text = self.tr("Started")
        self._log(event, text)

    def _end(self, event: Terminal, *, past: bool = False) -> None:
        shown = self._shown
        shown.seconds += max(shown.elapsed, event.elapsed)
        if shown.run is not None:
            self.outcome.show_outcome(shown.run, event, shown.seconds)
        self._log(event, f"{self.outcome.title.text()}. {self.outcome.text()}")
        if past:
            return
        shown.terminal = event
        if shown.live:
            self._current = None
        self._stopping = False
        self._patience.stop()
        if isinstance(event, RunCompleted):
            self._place_answers(first=True)

    # ----------------------------------------------------------------------------- what is shown

    def _render_soon(self) -> None:
        if not self._render_timer.isActive():
            self._render_timer.start()

    def render_now(self) -> None:
        """Write all that is known into the widgets."""
        self._render_timer.stop()
        self._render_head()
        self._render_buttons()
        self._render_progress()
        self._render_tiles()
        self.log.flush()
        self.outcome.setVisible(self._shown.terminal is not None)
        ticking = self._is_running()
        if ticking != self._clock.isActive():
            self._clock.start() if ticking else self._clock.stop()

    def _is_running(self) -> bool:
        return self._shown.run is not None and self._shown.live and self._shown.terminal is None

    def _render_head(self) -> None:
        shown = self._shown
        title, subtitle, ready, why_not = self._draft
        if shown.run is not None:
            title = shown.job.name if shown.job else shown.run.id
            subtitle = wording.describe(shown.job) if shown.job else ""
            if shown.job and shown.metrics:
                subtitle += ", " + wording.epoch_of(shown.job, shown.metrics.epoch)
        elif not ready:
            subtitle = why_not
        self.header.title.setText(title or self.tr("Train"))
        self.header.subtitle.setText(subtitle)

    def _render_buttons(self) -> None:
        shown = self._shown
        running = self._is_running()
        ended = shown.terminal is not None
        elsewhere = self._current is not None and not running
        resumable = ended and not elsewhere and self._can_resume()
        completed = isinstance(shown.terminal, RunCompleted)
        self.start_button.setVisible(not running and not elsewhere)
        self.start_button.setText(
            self.tr("Start a new run") if shown.run is not None else self.tr("Start")
        )
        self.start_button.setEnabled(self._draft[2] and not self._checking)
        self.start_button.setToolTip(self._draft[3])
        set_primary(self.start_button, not resumable and not completed)
        self.stop_button.setVisible(running)
        if not self._stopping:
            self.stop_button.setText(self.tr("Stop and save"))
            self.stop_button.setEnabled(True)
        self.resume_button.setVisible(resumable)
        self.back_button.setVisible(elsewhere)

    def _can_resume(self) -> bool:
        match self._shown.terminal:
            case RunStopped(checkpoint=checkpoint):
                return checkpoint is not None
            case RunFailed() | RunInterrupted():
                return self._shown.checkpoint is not None
        return False

    def _render_progress(self) -> None:
        shown = self._shown
        title, right = self._progress_words()
        self._progress.set_title(title)
        self.eta_label.setText(right)
        fraction: float | None = 0.0
        if self._checking:
            fraction = None
        elif isinstance(shown.terminal, RunCompleted):
            fraction = 1.0
        elif shown.metrics is not None and (shown.phase is None or shown.phase.phase == "training"):
            fraction = shown.metrics.step / max(1, shown.metrics.total_steps)
        elif self._is_running():
            fraction = shown.phase.fraction if shown.phase else None
        if fraction is None:
            self.progress_bar.setRange(0, 0)
        else:
            self.progress_bar.setRange(0, PROGRESS_PARTS)
            self.progress_bar.setValue(round(fraction * PROGRESS_PARTS))

    def _progress_words(self) -> tuple[str, str]:
        """The progress card's title, and what stands at its right."""
        shown = self._shown
        if self._checking:
            return self.tr("Checking"), self.tr("the model, the data and the disk")
        if shown.run is None:
            ready = self._draft[2]
            return (
                self.tr("Ready to start") if ready else self.tr("Not ready yet"),
                self.tr("Press Start to train.") if ready else "",
            )
        if shown.terminal is not None:
            took = self.tr("took {time}").format(time=figures.duration(shown.seconds))
            ended = shown.phase is None or shown.phase.phase in ("training", "saving")
            title = self.tr("Training") if ended else wording.phase_title(shown.phase.phase)  # type: ignore[union-attr]
            return title, took
        if not shown.live:
            return self.tr("Running"), self.tr("in another window")
        if self._stopping:
            return self.tr("Stopping"), self.tr("finishing this step, then saving")
        if shown.phase is None:
            return self.tr("Starting"), self.tr("waking up the trainer, a few seconds")
        title = wording.phase_title(shown.phase.phase)
        if shown.phase.phase == "training":
            return title, self._time_left()
        right = shown.phase.detail
        if shown.phase.fraction is not None:
            percent = self.tr("{number} %").format(number=round(shown.phase.fraction * 100))
            right = f"{right}, {percent}" if right else percent
        return title, right

    def _time_left(self) -> str:
        metrics = self._shown.metrics
        if metrics is None or metrics.seconds_left is None:
            return self.tr("working on the first step")
        done_at = metrics.time + metrics.seconds_left
        return self.tr("about {time} left, done at {clock}").format(
            time=figures.duration(done_at - time.time()), clock=figures.clock(done_at)
        )

    def _render_tiles(self) -> None:
        shown = self._shown
        metrics, counts = shown.metrics, shown.counts
        step = loss = speed = rate = ""
        if metrics is not None:
            step = self.tr("{step} of {total}").format(
                step=figures.count(metrics.step), total=figures.count(metrics.total_steps)
            )
            loss = figures.loss(metrics.loss)
            if metrics.tokens_per_second is not None:
                speed = figures.count(round(metrics.tokens_per_second))
            if metrics.learning_rate is not None:
                rate = figures.scientific(metrics.learning_rate)
        elif counts is not None and counts.total_steps is not None:
            step = self.tr("0 of {total}").format(total=figures.count(counts.total_steps))
        self._step.show_value(step)
        self._loss.show_value(loss)
        self._held_out.show_value(figures.loss(shown.held_out.loss) if shown.held_out else "")
        self._speed.show_value(speed)
        self._rate.show_value(rate)
        self._last_checkpoint.show_value(self._checkpoint_words())
        self._share.setText(self._share_words())

    def _checkpoint_words(self) -> str:
        saved = self._shown.checkpoint
        if saved is None:
            return ""
        age = time.time() - saved.time
        if not self._is_running() or saved.time == 0:
            return self.tr("step {step}").format(step=figures.count(saved.step))
        if age < 20:
            return self.tr("just now")
        return self.tr("{time} ago").format(time=figures.duration(age))

    def _share_words(self) -> str:
        counts = self._shown.counts
        if counts is None or not counts.trainable_parameters or not counts.total_parameters:
            return ""
        words = self.tr("{trained} of {total} parameters are trained ({share})").format(
            trained=figures.millions(counts.trainable_parameters),
            total=figures.millions(counts.total_parameters),
            share=figures.share(counts.trainable_parameters / counts.total_parameters),
        )
        if counts.rows is not None and counts.trained_token_share is not None:
            words += ", " + self.tr(
                "on {rows} rows; {share} of their tokens are learned from"
            ).format(
                rows=figures.count(counts.rows), share=figures.share(counts.trained_token_share)
            )
        return words

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Progress and both charts fill the page; the rest is below them."""
        super().resizeEvent(event)
        above = self.header.height() + self._progress.sizeHint().height() + 16
        room = max(self.height() - above - 3 * CARD_GAP - PAGE_MARGIN, LEAST_CHARTS_HEIGHT)
        self.loss_chart.setFixedHeight(round(room * 0.58))
        self.memory_chart.setFixedHeight(room - round(room * 0.58))

    # ------------------------------------------------------------------------------ what is asked

    def _start(self) -> None:
        self._checking = True
        self._errors.show_error("")
        self.render_now()
        self.start_requested.emit()

    def _stop(self) -> None:
        self._stopping = True
        self.stop_button.setText(self.tr("Saving"))
        self.stop_button.setEnabled(False)
        self._patience.start()
        self.render_now()
        self.stop_requested.emit()

    def _offer_to_end(self) -> None:
        """Stopping takes long: asking a second time ends the run as it is."""
        self.stop_button.setText(self.tr("End without saving"))
        self.stop_button.setEnabled(True)

    def _resume(self) -> None:
        self._checking = True
        self.resume_button.setEnabled(False)
        self.render_now()
        self.resume_requested.emit(self._shown.run)
        self.resume_button.setEnabled(True)

    # --------------------------------------------------------------------------------- the widgets

    def _build(self) -> None:
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 16, 0, 0)
        outer.setSpacing(CARD_GAP)
        self.header = PageHeader(self.tr("Train"))
        self.header.setContentsMargins(PAGE_MARGIN, 0, PAGE_MARGIN, 0)
        outer.addWidget(self.header)
        self._build_buttons()
        content = QWidget()
        content.setObjectName("scrolled")
        self._column = QVBoxLayout(content)
        self._column.setSpacing(CARD_GAP)
        self._scroll = QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._scroll.setWidget(content)
        self._scroll.verticalScrollBar().rangeChanged.connect(self._align_with_header)
        self._align_with_header(0, 0)
        outer.addWidget(self._scroll, 1)
        self._errors = ErrorLabel("trainProblems")
        self.outcome = OutcomeCard()
        self.outcome.export_requested.connect(lambda: self.export_requested.emit(self._shown.run))
        self.loss_chart = LossChart()
        self.memory_chart = MemoryChart()
        self.answers = AnswersCard()
        self.answers.setVisible(False)
        self.log = LogCard()
        self._column.addWidget(self._errors)
        self._column.addWidget(self.outcome)
        self._column.addWidget(self._progress_card())
        self._column.addWidget(self.loss_chart)
        self._column.addWidget(self.memory_chart)
        self._column.addWidget(self.answers)
        self._column.addWidget(self.log)
        self._column.addStretch(1)

    def _align_with_header(self, _: int, most: int) -> None:
        """The scroll bar stands in the margin, so that the cards end where the header does."""
        bar = self._scroll.verticalScrollBar().sizeHint().width() if most else 0
        self._column.setContentsMargins(PAGE_MARGIN, 0, PAGE_MARGIN - bar, PAGE_MARGIN)

    def _build_buttons(self) -> None:
        self.back_button = SecondaryButton(self.tr("Back to the current run"))
        self.back_button.setObjectName("backToCurrentButton")
        self.back_button.clicked.connect(self.back_to_current_requested)
        self.resume_button = SecondaryButton(self.tr("Resume"))
        self.resume_button.setObjectName("resumeButton")
        set_primary(self.resume_button, True)
        self.resume_button.clicked.connect(self._resume)
        self.stop_button = SecondaryButton(self.tr("Stop and save"))
        self.stop_button.setObjectName("stopButton")
        self.stop_button.clicked.connect(self._stop)
        self.start_button = SecondaryButton(self.tr("Start"))
        self.start_button.setObjectName("startButton")
        self.start_button.clicked.connect(self._start)
        for button in (self.back_button, self.start_button, self.resume_button, self.stop_button):
            self.header.add_button(button)

    def _progress_card(self) -> Card:
        self._progress = Card(self.tr("Training"))
        self.eta_label = secondary_label()
        self.eta_label.setObjectName("etaLabel")
        self._progress.add_right(self.eta_label)
        self.progress_bar = QProgressBar()
        self.progress_bar.setObjectName("progressBar")
        self.progress_bar.setAccessibleName(self.tr("Progress of the training"))
        self.progress_bar.setTextVisible(False)
        self._progress.body.addWidget(self.progress_bar)
        self._step = StatTile(self.tr("Step"))
        self._loss = StatTile(self.tr("Loss"))
        self._held_out = StatTile(self.tr("Held-out"))
        self._speed = StatTile(self.tr("Tokens a second"))
        self._rate = StatTile(self.tr("Learning rate"))
        self._last_checkpoint = StatTile(self.tr("Last checkpoint"))
        tiles = QGridLayout()
        tiles.setHorizontalSpacing(12)
        row = (
            self._step, self._loss, self._held_out, self._speed, self._rate, self._last_checkpoint,
        )  # fmt: skip
        for column, tile in enumerate(row):
            tiles.addWidget(tile, 0, column)
            tiles.setColumnStretch(column, 1)
            tiles.setColumnMinimumWidth(column, 96)
        self._progress.body.addLayout(tiles)
        self._share = secondary_label(" ")
        self._progress.body.addWidget(self._share)
        return self._progress

    def _place_answers(self, *, first: bool) -> None:
        """After a training the answers are what counts: they move above the charts."""
        self._column.removeWidget(self.answers)
        after = self._progress if first else self.memory_chart
        self._column.insertWidget(self._column.indexOf(after) + 1, self.answers)


def _settled_events(run: Run) -> list[Event]:
    """The whole history; a worker that died unnoticed is given its end first."""
    runs.settle(run)
    return run.events()
