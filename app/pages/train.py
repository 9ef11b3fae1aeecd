"""The Train page: one run, live or from history, drawn by the same code.

`apply` takes events and only notes what they say; `_render` writes it into the labels at most
ten times a second, so that neither a quick run nor a long history holds up the window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import (
    QVBoxLayout,
    QWidget,
)

from app.background import run_in_background
from app.models.run_curves import JournalPart, read_parts
from app.models.shown_run import ShownRun
from app.widgets import figures, wording
from app.widgets.card import CARD_GAP, PAGE_MARGIN, ErrorLabel, PageHeader, scroll_area
from app.widgets.charts.run_charts import RunCharts
from app.widgets.training.answers import AnswersCard
from app.widgets.training.event_words import log_line
from app.widgets.training.log_view import LogCard
from app.widgets.training.outcome import OutcomeCard
from app.widgets.training.progress_card import ProgressCard
from app.widgets.training.run_buttons import Draft, RunButtons
from app.widgets.training.scores_card import ScoresCard
from app.widgets.training.standstill_card import StandstillCard
from training_backend import runs
from training_backend.errors import Problem, UserError
from training_backend.lifecycle import halving
from training_backend.memory.worth_measuring import Reason
from training_backend.protocol import (
    AnswersScored,
    CheckpointSaved,
    EvaluationLogged,
    Event,
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
from training_backend.watching.standstill import Standstill

RENDER_MILLISECONDS = 100
CLOCK_MILLISECONDS = 5_000
NEWEST_LOSSES = 100


class TrainPage(QWidget):
    """One run from Start to its end, and every run of the past."""

    start_requested = Signal()
    queue_requested = Signal()
    stop_requested = Signal()
    end_requested = Signal(object)  # for how many seconds it has stood still, None if it has not
    resume_requested = Signal(object)
    export_requested = Signal(object)
    measure_requested = Signal()
    back_to_current_requested = Signal()
    extend_requested = Signal(object)
    report_requested = Signal(object)
    move_requested = Signal(object)
    make_fit_requested = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._shown = ShownRun()
        self._draft = Draft()
        self._checking = False
        self._current: Run | None = None  # the live run, whichever run is shown
        self._moving: dict[Run, Path] = {}  # to another drive, whichever run is shown
        self._build()
        self._render_timer = QTimer(self, singleShot=True, interval=RENDER_MILLISECONDS)
        self._render_timer.timeout.connect(self.render_now)
        self._clock = QTimer(self, interval=CLOCK_MILLISECONDS)
        self._clock.timeout.connect(self.render_now)
        self.render_now()

    # ------------------------------------------------------------------ what the window tells it

    def set_draft_summary(self, title: str, subtitle: str, ready: bool, why_not: str) -> None:
        """What Start would run, and if it cannot, why not."""
        self._draft = Draft(title, subtitle, ready, why_not, self._draft.hint)
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
        self._draft = replace(self._draft, hint=texts[reason])
        self._render_soon()

    def set_waiting(self, count: int, *, paused: bool) -> None:
        """How many runs are in the queue, and whether it is paused."""
        self.buttons.waiting, self.buttons.paused = count, paused
        self._render_soon()

    def set_current(self, run: Run) -> None:
        """This run is live; the page stays with the one that it shows."""
        self._current = run
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
        self._checking = False
        self.standstill.hide()
        self.buttons.forget_stopping()
        self._errors.show_error("")
        self.charts.clear()
        self.charts.loss.set_objective(shown.job.training.objective if shown.job else "sft")
        self.log.clear()
        self.answers.set_questions(shown.job.evaluation.prompts if shown.job else ())
        self.scores.clear()
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
        shown.pauses.reach(part.elapsed)
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
        if shown.live and shown.run is not None and shown.terminal is None:
            self._take_over_requests(shown.run)
        self.render_now()

    def finish(self, run: Run | None, terminal: Terminal | None) -> None:
        """The run that was followed has ended; mostly its last event said so already."""
        shown = self._shown
        if shown.live and shown.run == run and shown.terminal is None and terminal is not None:
            if isinstance(terminal, RunFailed) and terminal.goes_on:  # it was told, and does not
                self._conclude(terminal)
            else:
                self._end(terminal)
        self._current = None
        self.render_now()

    def show_problems(self, problems: list[Problem]) -> None:
        """Say why the job cannot start; an empty list takes that back."""
        self._checking = False
        self._errors.show_error("\n".join(problem.message for problem in problems))
        shown = self._shown
        if problems and shown.is_running() and shown.run is not None:  # it may not have been asked
            shown.asked = set(shown.run.requests.pending()) - {"stop"}
        if problems:
            self._scroll.verticalScrollBar().setValue(0)
        self.render_now()

    def show_checking(self, checking: bool) -> None:
        """Whether a start is being prepared; not while a question about it stands."""
        self._checking = checking
        self.render_now()

    def show_stopping(self) -> None:
        """The live run has been asked to save and stop."""
        self.buttons.show_stopping()
        self.render_now()

    def show_standstill(self, run: Run, found: Standstill | None) -> None:
        """The live run does not move; None: it does again, or has ended."""
        here = self._shown.is_running() and self._shown.run == run
        self._shown.stands_still = here and found is not None
        self._render_soon()
        if found is None or not here:
            self.standstill.hide()
            return
        saved = self._shown.checkpoint.step if self._shown.checkpoint else None
        self.standstill.show_standstill(run, found, saved)
        self._scroll.verticalScrollBar().setValue(0)

    def show_moving(self, run: Run, target: Path | None) -> None:
        """The run is being put below this folder; None: it could not be."""
        self._moving.pop(run, None)
        if target is not None:
            self._moving[run] = target
        if self._shown.run == run:
            self.outcome.show_moving(target)

    def show_moved(self, run: Run, place: Path) -> None:
        self._moving.pop(run, None)
        if self._shown.run == run:
            self.outcome.show_moved(place)

    def run(self) -> Run | None:
        """The run on the page."""
        return self._shown.run

    # --------------------------------------------------------------------------- the event union

    def _take(self, event: Event, *, past: bool = False) -> None:
        shown = self._shown
        if 0 <= event.seq <= shown.last_seq:
            return  # came by both ways
        shown.last_seq = max(shown.last_seq, event.seq)
        shown.pauses.take(event)
        match event:
            case RunStarted():
                shown.terminal = None
                shown.elapsed = 0.0
                shown.phase = None
                shown.forget_requests()
                shown.metrics = shown.metrics if event.resumed_from_step else None
                shown.warning = ""
                shown.parting = shown.parting if event.resumed_from_step else ""
                self.charts.begin_attempt()
                shown.marks.begin_attempt(event.resumed_from_step or 0)
                self.charts.show_marks(shown.marks.marks)
                self.scores.clear()  # they were of a model that trains on
                self.answers.show_kept(None)
            case PhaseChanged():
                if shown.phase is None or event.phase != shown.phase.phase:
                    self._log(event, wording.phase_title(event.phase))
                shown.take_phase(event)
            case MetricsLogged():
                shown.metrics = event
                shown.loss.add(event.step, event.loss)
                self.charts.add_metrics(event)
            case MemorySampled():
                self.charts.add_sample(event)
            case EvaluationLogged():
                shown.held_out = event
                self.charts.add_evaluation(event)
            case SampleGenerated():
                self.answers.add(event)
                if shown.take_answer(event):
                    self.buttons.steer.show_answer(event)
            case AnswersScored():
                self.scores.show_scores(event)
            case CheckpointSaved():
                shown.checkpoint = event
                shown.asked.discard("checkpoint")
            case WarningRaised(code=code) if code.startswith("question_"):
                shown.forget_questions()
            case WarningRaised(code="loss_rose"):
                shown.warning = event.message
            case WarningRaised(code="overfitting"):
                shown.parting = event.message
            case WarningRaised(code=halving.CODE):
                shown.halved = event.message
            case WarningRaised(since=int()):
                shown.marks.take(event)
                self.charts.show_marks(shown.marks.marks)
            case RunFailed(goes_on=True) if shown.live:
                self._end(event, past=True)
            case RunCompleted() | RunStopped() | RunFailed() | RunInterrupted():
                self._end(event, past=past)
        if line := log_line(event):
            self._log(event, line)
        # A worker that died did not write its own end: what came before tells how long it ran.
        shown.elapsed = max(shown.elapsed, event.elapsed)
        self._render_soon()

    def _log(self, event: Event, text: str) -> None:
        self.log.add(event.time, text)

    def _end(self, event: Terminal, *, past: bool = False) -> None:
        shown = self._shown
        shown.elapsed = max(shown.elapsed, event.elapsed)
        shown.seconds += shown.elapsed
        if isinstance(event, RunCompleted):
            self.answers.show_kept(event.best_step)
        if shown.run is not None:
            self.outcome.show_outcome(
                shown.run,
                event,
                shown.seconds,
                shown.warning_of(event),
                shown.pauses.seconds,
                saved=shown.checkpoint is not None,
                lacked_room=shown.phase is not None and shown.phase.phase == "no_room",
            )
            self.outcome.show_moving(self._moving.get(shown.run))
        self._log(event, f"{self.outcome.title.text()}. {self.outcome.text()}")
        shown.forget_requests()
        if past:
            shown.phase = None  # the next attempt begins anew
        else:
            self._conclude(event)

    def _conclude(self, event: Terminal) -> None:
        """No further attempt follows."""
        shown = self._shown
        shown.terminal = event
        self.standstill.hide()
        self.outcome.look_for_evidence()
        if shown.live:
            self._current = None
        self.buttons.steer.end()
        self.buttons.forget_stopping()
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
        self.buttons.show_run(
            self._shown, self._draft, checking=self._checking, elsewhere=self._current is not None
        )
        self.progress.show_run(
            self._shown, self._draft.ready, self._checking, self.buttons.stopping, self._draft.hint
        )
        self.log.flush()
        self.outcome.setVisible(self._shown.terminal is not None)
        ticking = self._shown.is_running()
        if ticking != self._clock.isActive():
            self._clock.start() if ticking else self._clock.stop()

    def _render_head(self) -> None:
        shown = self._shown
        title, subtitle = self._draft.title, self._draft.subtitle
        if shown.run is not None:
            title = shown.job.name if shown.job else shown.run.id
            subtitle = wording.describe(shown.job) if shown.job else ""
            if shown.job and shown.metrics:
                subtitle += ", " + wording.epoch_of(shown.job, shown.metrics.epoch)
            if not shown.caught_up and shown.share_read > 0:
                subtitle = self.tr("reading what was logged, {share}").format(
                    share=figures.share(shown.share_read)
                )
        elif not self._draft.ready:
            subtitle = self._draft.why_not
        self.header.title.setText(title or self.tr("Train"))
        self.header.subtitle.setText(subtitle)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Progress and both charts fill the page; the rest is below them."""
        super().resizeEvent(event)
        above = self.header.height() + self.progress.sizeHint().height() + 16
        self.charts.set_room(self.height() - above - 2 * CARD_GAP - PAGE_MARGIN)

    # ------------------------------------------------------------------------------ what is asked

    def _start(self) -> None:
        self._errors.show_error("")
        self.show_checking(True)
        self.start_requested.emit()

    def _stop(self) -> None:
        self.render_now()
        self.stop_requested.emit()

    def _end_now(self) -> None:
        self.render_now()
        self.end_requested.emit(None)

    def _take_over_requests(self, run: Run) -> None:
        """What was asked of the run before the page showed it, by another window perhaps."""
        waiting = set(run.requests.pending())
        self._shown.asked |= waiting - {"stop"}
        if "stop" in waiting and not self.buttons.stopping:
            self.buttons.show_stopping()

    def _resume(self) -> None:
        self.show_checking(True)
        self.resume_requested.emit(self._shown.run)

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
        self._scroll = scroll_area(content)
        self._scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._scroll.verticalScrollBar().rangeChanged.connect(self._align_with_header)
        self._align_with_header(0, 0)
        outer.addWidget(self._scroll, 1)
        self._errors = ErrorLabel("trainProblems")
        self.outcome = OutcomeCard()
        self.outcome.export_requested.connect(lambda: self.export_requested.emit(self._shown.run))
        self.outcome.move_requested.connect(lambda: self.move_requested.emit(self._shown.run))
        self.outcome.report_requested.connect(lambda: self.report_requested.emit(self._shown.run))
        self.outcome.extend_requested.connect(lambda: self.extend_requested.emit(self._shown.run))
        self.outcome.make_fit_requested.connect(
            lambda: self.make_fit_requested.emit(self._shown.run)
        )
        self.charts = RunCharts()
        self.answers = AnswersCard()
        self.answers.setVisible(False)
        self.scores = ScoresCard()
        self.log = LogCard()
        self._column.addWidget(self._errors)
        self._column.addWidget(self.outcome)
        self.standstill = StandstillCard()
        self.standstill.end_requested.connect(self.end_requested)
        self._column.addWidget(self.standstill)
        self.progress = ProgressCard()
        self._column.addWidget(self.progress)
        self._column.addWidget(self.scores)
        self._column.addWidget(self.charts)
        self._column.addWidget(self.answers)
        self._column.addWidget(self.log)
        self._column.addStretch(1)

    def _align_with_header(self, _: int, most: int) -> None:
        """The scroll bar stands in the margin, so that the cards end where the header does."""
        bar = self._scroll.verticalScrollBar().sizeHint().width() if most else 0
        self._column.setContentsMargins(PAGE_MARGIN, 0, PAGE_MARGIN - bar, PAGE_MARGIN)

    def _build_buttons(self) -> None:
        self.buttons = RunButtons()
        self.buttons.start_requested.connect(self._start)
        self.buttons.queue_requested.connect(self.queue_requested)
        self.buttons.measure_requested.connect(self.measure_requested)
        self.buttons.stop_requested.connect(self._stop)
        self.buttons.end_requested.connect(self._end_now)
        self.buttons.resume_requested.connect(self._resume)
        self.buttons.back_requested.connect(self.back_to_current_requested)
        self.header.add_button(self.buttons)
        self.buttons.steer.changed.connect(self.render_now)

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
