"""The Train page: one run, live or from history, drawn by the same code.

`apply` takes events and only notes what they say; `_render` writes it into the labels at most
ten times a second, so that neither a quick run nor a long history holds up the window.
"""

from __future__ import annotations

from collections.abc import Iterator

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import (
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from app.background import run_in_background
from app.models.run_curves import JournalPart, read_parts
from app.models.shown_run import ShownRun
from app.widgets import figures, wording
from app.widgets.actions import set_primary
from app.widgets.answers import AnswersCard
from app.widgets.card import (
    CARD_GAP,
    PAGE_MARGIN,
    ErrorLabel,
    PageHeader,
    SecondaryButton,
)
from app.widgets.log_view import LogCard
from app.widgets.outcome import OutcomeCard
from app.widgets.progress_card import ProgressCard
from app.widgets.run_charts import RunCharts
from training_backend import runs
from training_backend.errors import Problem, UserError
from training_backend.protocol import (
    CheckpointSaved,
    EvaluationLogged,
    Event,
    Heartbeat,
    LogLine,
    MemoryMeasured,
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
from training_backend.worth_measuring import Reason

RENDER_MILLISECONDS = 100
CLOCK_MILLISECONDS = 5_000
STOP_IS_SLOW_MILLISECONDS = 30_000
NEWEST_LOSSES = 100


class TrainPage(QWidget):
    """One run from Start to its end, and every run of the past."""

    start_requested = Signal()
    stop_requested = Signal()
    end_requested = Signal()
    resume_requested = Signal(object)
    export_requested = Signal(object)
    measure_requested = Signal()
    back_to_current_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._shown = ShownRun()
        self._draft = ("", "", True, "")
        self._hint = ""
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
        self._errors.show_error("")  # said of the draft as it was
        self.render_now()

    def set_hint(self, reason: Reason) -> None:
        """Why one real step should be tried before Start; it keeps nobody from pressing it."""
        texts: dict[Reason, str] = {
            "": "",
            "tight": self.tr(
                "It is not certain that this fits. Measuring takes about a minute and tells."
            ),
            "long": self.tr(
                "This may take long. Measuring takes about a minute and tells how long."
            ),
        }
        self._hint = texts[reason]
        self._render_soon()

    def open_run(self, run: Run, live: bool) -> None:
        """Show this run from its beginning; what it said so far is read in the background."""
        self._shown = shown = ShownRun(run=run, live=live)
        try:
            shown.job = run.training_job()
        except UserError:
            shown.job = None  # damaged: the events still tell what happened
        if live:
            self._current = run
        self._checking = self._stopping = False
        self._patience.stop()
        self._errors.show_error("")
        self.charts.clear()
        self.log.clear()
        self.answers.set_questions(shown.job.evaluation.prompts if shown.job else ())
        self._place_answers(first=False)
        self._scroll.verticalScrollBar().setValue(0)

        self._read_on(shown, _history(run, live))
        self.render_now()

    def _read_on(self, shown: ShownRun, history: Iterator[JournalPart]) -> None:
        """Read the next part of the history, until there is none or another run is shown."""

        def take(part: JournalPart | None) -> None:
            if self._shown is not shown:
                return
            if part is None:
                self._catch_up()
                return
            self._take_part(part)
            self._read_on(shown, history)

        # What cannot be read ends the history: the run's live events still come.
        run_in_background(lambda: next(history, None), take, lambda _: take(None), self)

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
        for event in events:
            self._take(event, past=self._shown.live)
        self._catch_up()

    def _take_part(self, part: JournalPart) -> None:
        """As `replay`, for a part whose steps and samples come as arrays."""
        shown = self._shown
        for event in part.events:
            self._take(event, past=shown.live)
        self.charts.add_part(part)
        if part.metrics is not None:
            shown.metrics = part.metrics.last
            newest = slice(-NEWEST_LOSSES, None)  # a mean of the last ones is all that is told
            for step, loss in zip(
                part.metrics.step[newest], part.metrics.loss[newest], strict=True
            ):
                shown.loss.add(int(step), float(loss))
        shown.last_seq = max(shown.last_seq, part.last_seq)
        shown.elapsed = max(shown.elapsed, part.elapsed)
        shown.share_read = part.share_read
        self._render_soon()

    def _catch_up(self) -> None:
        """The history is read: what came in the meantime follows."""
        shown = self._shown
        shown.caught_up = True
        self.charts.schedule()
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

    def show_stopping(self) -> None:
        """The live run has been asked to save and stop."""
        self._stopping = True
        self.stop_button.setText(self.tr("Saving"))
        self.stop_button.setEnabled(False)
        self._patience.start()
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
                shown.warning = ""
                self.charts.begin_attempt()
                self._log_start(event)
            case PhaseChanged():
                if shown.phase is None or event.phase != shown.phase.phase:
                    self._log(event, wording.phase_title(event.phase))
                shown.phase = event
                if event.total_steps is not None:
                    shown.counts = event
            case MetricsLogged():
                shown.metrics = event
                shown.loss.add(event.step, event.loss)
                self.charts.add_metrics(event)
            case MemorySampled():
                self.charts.add_sample(event)
            case EvaluationLogged():
                shown.held_out = event
                self.charts.add_evaluation(event)
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
                if event.code == "loss_rose":
                    shown.warning = event.message
                self._log(event, self.tr("Note: {message}").format(message=event.message))
            case LogLine():
                self._log(event, event.message)
            case Heartbeat() | MemoryMeasured():  # the latter is a probe's alone
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
            saved = shown.checkpoint.step if shown.checkpoint else None
            self.outcome.show_outcome(shown.run, event, shown.seconds, saved, shown.warning)
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
        ready = self._draft[2]
        self.progress.show_run(self._shown, ready, self._checking, self._stopping, self._hint)
        self.log.flush()
        self.outcome.setVisible(self._shown.terminal is not None)
        ticking = self._shown.is_running()
        if ticking != self._clock.isActive():
            self._clock.start() if ticking else self._clock.stop()

    def _render_head(self) -> None:
        shown = self._shown
        title, subtitle, ready, why_not = self._draft
        if shown.run is not None:
            title = shown.job.name if shown.job else shown.run.id
            subtitle = wording.describe(shown.job) if shown.job else ""
            if shown.job and shown.metrics:
                subtitle += ", " + wording.epoch_of(shown.job, shown.metrics.epoch)
            if not shown.caught_up and shown.share_read > 0:
                subtitle = self.tr("reading what was logged, {share}").format(
                    share=figures.share(shown.share_read)
                )
        elif not ready:
            subtitle = why_not
        self.header.title.setText(title or self.tr("Train"))
        self.header.subtitle.setText(subtitle)

    def _render_buttons(self) -> None:
        shown = self._shown
        running = self._shown.is_running()
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
        idle = shown.run is None and self._draft[2] and not self._checking
        self.measure_button.setVisible(idle and bool(self._hint))

    def _can_resume(self) -> bool:
        match self._shown.terminal:
            case RunStopped(checkpoint=checkpoint):
                return checkpoint is not None
            case RunFailed() | RunInterrupted():
                return self._shown.checkpoint is not None
        return False

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Progress and both charts fill the page; the rest is below them."""
        super().resizeEvent(event)
        above = self.header.height() + self.progress.sizeHint().height() + 16
        self.charts.set_room(self.height() - above - 2 * CARD_GAP - PAGE_MARGIN)

    # ------------------------------------------------------------------------------ what is asked

    def _start(self) -> None:
        self._checking = True
        self._errors.show_error("")
        self.render_now()
        self.start_requested.emit()

    def _stop(self) -> None:
        end = self._stopping  # it has been asked to stop, and takes long
        self.show_stopping()
        if end:
            self.end_requested.emit()
        else:
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
        self.charts = RunCharts()
        self.answers = AnswersCard()
        self.answers.setVisible(False)
        self.log = LogCard()
        self._column.addWidget(self._errors)
        self._column.addWidget(self.outcome)
        self.progress = ProgressCard()
        self._column.addWidget(self.progress)
        self._column.addWidget(self.charts)
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
        self.measure_button = SecondaryButton(self.tr("Measure first"))
        self.measure_button.setObjectName("measureFirstButton")
        self.measure_button.clicked.connect(self.measure_requested)
        self.start_button = SecondaryButton(self.tr("Start"))
        self.start_button.setObjectName("startButton")
        self.start_button.clicked.connect(self._start)
        for button in (
            self.back_button, self.measure_button, self.start_button, self.resume_button,
            self.stop_button,
        ):  # fmt: skip
            self.header.add_button(button)

    def _place_answers(self, *, first: bool) -> None:
        """After a training the answers are what counts: they move above the charts."""
        self._column.removeWidget(self.answers)
        after = self.progress if first else self.charts
        self._column.insertWidget(self._column.indexOf(after) + 1, self.answers)


def _history(run: Run, live: bool) -> Iterator[JournalPart]:
    """The whole history; a worker that died unnoticed is given its end first."""
    if not live:
        runs.settle(run)
    yield from read_parts(run)
