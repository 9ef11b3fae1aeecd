"""What happens with runs on behalf of the pages: started, shown, followed, ended, exported.

The window has the pages and their wiring; what follows from a run's beginning and end is here.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from PySide6.QtCore import QObject
from PySide6.QtWidgets import QFileDialog

from app.background import Latest, run_in_background
from app.desks.fit_desk import FitDesk
from app.dialogs.question import Role, ask
from app.dialogs.start_dialog import ask_about_memory
from app.i18n import explain, integer
from app.widgets import figures, wording
from app.widgets.settings import memory_words
from training_backend.errors import JobError, Problem, UserError
from training_backend.job import TrainingJob
from training_backend.lifecycle import extend, inputs, journal, relocate
from training_backend.protocol import (
    Event,
    MetricsLogged,
    PhaseChanged,
    RunCompleted,
    RunFailed,
    RunStopped,
    SampleGenerated,
    Terminal,
)
from training_backend.queueing import queue_file
from training_backend.queueing.sweeps import Axis
from training_backend.runs import Run, State
from training_backend.watching.standstill import Standstill

if TYPE_CHECKING:  # the pages are built, and their modules read, after the first paint
    from app.main_window import MainWindow
    from app.pages.chat import ChatPage
    from app.pages.dataset import DatasetPage
    from app.pages.export_wizard import ExportPage
    from app.pages.model import ModelPage
    from app.pages.runs import RunsPage
    from app.pages.settings import SettingsPage
    from app.pages.train import TrainPage


_STATES: dict[str, State] = {
    "RunCompleted": "completed",
    "RunStopped": "stopped",
    "RunFailed": "failed",
    "RunInterrupted": "interrupted",
}


class RunDesk(QObject):
    """Takes what the pages ask of runs to the controllers, and what comes of it to the pages."""

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window)
        self._window = window
        self._training = window.training
        self._queue = window.queue
        self._newest: Run | None = None
        self._then_queue: Run | None = None
        self._progress = ""
        self._resuming, self._asked_of_run = Latest(self), Latest(self)
        self._answers = Latest(self)
        self.fit = FitDesk(self._training, window.helper, window)
        self.fit.new_run.connect(self.begin)
        self.fit.refused.connect(self._on_refused)
        self._training.event_arrived.connect(self._on_event)
        self._training.run_opened.connect(self._on_opened)
        self._training.run_ended.connect(self._on_run_ended)
        self._training.refused.connect(self._on_start_refused)
        window.hang_watch.stands.connect(self._on_standstill)
        window.hang_watch.moves.connect(self._on_moves)
        self._queue.beginning.connect(window.probe.cancel)
        self._queue.changed.connect(self._on_queue_changed)
        self._queue.problem.connect(self._on_queue_problem)

    # --------------------------------------------------------------------------- what is asked for

    def start(self) -> None:
        """Train what the draft asks for; ask first when it does not seem to fit."""
        shown = self._window.estimator.current
        if shown is not None and shown.estimate.fit == "does_not_fit":
            words = memory_words.verdict(shown.estimate)[0]
            self._show_checking(False)
            ask_about_memory(self._window, words, self.make_it_fit, self._start)
        else:
            self._start()

    def make_it_fit(self) -> None:
        """Show what would make the draft fit, beside its memory."""
        self._window.go_to("navSettings")
        cast("SettingsPage", self._window.page("navSettings")).memory.make_it_fit()

    def _start(self) -> None:
        self._window.go_to("navTrain")
        self._window.probe.cancel()
        self._resuming.forget()
        self._show_checking(True)
        try:
            self._training.start(self._window.draft.job())
        except JobError as error:
            self._on_start_refused(error)

    def _show_checking(self, checking: bool) -> None:
        cast("TrainPage", self._window.page("navTrain")).show_checking(checking)

    def add_to_queue(self) -> None:
        """Let what the draft asks for wait for its turn."""
        try:
            self._queue.add([self._window.draft.job()])
        except JobError as error:
            self._on_refused(error)

    def try_values(self) -> None:
        """Let the person choose a few values of some settings, each to be a run of its own."""
        from app.widgets.settings.sweep_dialog import SweepDialog

        try:
            job = self._window.draft.job()
        except JobError as error:
            self._on_refused(error)
            return
        estimator = self._window.estimator
        device = estimator.current.estimate.device if estimator.current is not None else None
        rows = sum(count for _, count in estimator.lengths) if estimator.lengths else None
        waits = self._training.is_busy() or bool(self._queue.state.entries)
        dialog = SweepDialog(job, device, rows, waits=waits, parent=self._window)
        dialog.chosen.connect(partial(self._start_sweep, job))
        dialog.open()

    def _start_sweep(self, job: TrainingJob, axes: list[Axis]) -> None:
        self._queue.add_sweep(job, axes)
        self._window.go_to("navRuns")

    def run_again(self, run: Run) -> None:
        """Do a run's job once more, as a run of its own: at once, or in its turn.

        Others that wait are not overtaken.
        """
        try:
            job = run.training_job()
        except UserError as error:
            self._window.go_to("navTrain")
            self._on_refused(error)
        else:
            self.begin(job)

    def begin(self, job: TrainingJob) -> None:
        """Do a job as a run of its own: at once, or in its turn."""
        if self._training.is_busy() or self._queue.state.entries:
            self._queue.add([job])
        else:
            self._window.go_to("navTrain")
            self._window.probe.cancel()
            self._resuming.forget()
            self._training.start(job)

    def resume(self, run: Run) -> None:
        """Go on with an ended run; ask first where its model or data is no longer the same."""
        self._window.go_to("navTrain")
        self._resuming.ask(
            lambda: inputs.waits_for_consent(run),
            partial(self._resume, run),
            lambda _: self._training.resume(run),
        )

    def _resume(self, run: Run, ask_first: bool) -> None:
        if not ask_first:
            self._training.resume(run)
            return

        def go_on() -> None:
            self._show_checking(True)
            self._training.resume(run)

        def accept() -> None:
            inputs.accept_changes(run)
            go_on()

        self._show_checking(False)
        ask(
            self._window,
            "inputsChanged",
            self.tr("The model or the data changed since this run began"),
            self.tr(
                "What it learned so far is kept. It can look once more, or go on with what is "
                "there now; its curves then show both."
            ),
            [
                (self.tr("Look again"), Role.AcceptRole, go_on),
                (self.tr("Go on with the changes"), Role.DestructiveRole, accept),
            ],
            self.tr("Cancel"),
        )

    def go_on(self, run: Run, *, then_queue: bool) -> None:
        """As `resume`; the queue's runs come after it."""
        self._then_queue = run if then_queue else None
        self.resume(run)

    def stop(self) -> None:
        """Have the run under way save and stop; the Train page says so."""
        cast("TrainPage", self._window.page("navTrain")).show_stopping()
        self._training.stop()

    def ask_to_extend(self, run: Run) -> None:
        """Ask by how much an ended run is to go on, and let it."""
        self._asked_of_run.ask(
            lambda: extend.reached(run), partial(self._show_extension, run), self._on_error
        )

    def _show_extension(self, run: Run, reached: extend.Reached) -> None:
        from app.widgets.runs.extend_dialog import ExtendDialog

        dialog = ExtendDialog(reached, self._window)
        dialog.chosen.connect(lambda longer: self._training.extend(run, longer))
        dialog.open()

    def show_report(self, run: Run) -> None:
        """Show what a report on the run would hold, to be saved."""
        from app.dialogs.report_dialog import ReportDialog

        ReportDialog(run, self._window).open()

    def ask_to_move(self, run: Run) -> None:
        """Let the person choose where there is room for a run to go on, and put it there."""
        chosen = QFileDialog.getExistingDirectory(
            self._window, self.tr("A folder on another drive"), str(Path.home())
        )
        if not chosen:
            return
        page = cast("TrainPage", self._window.page("navTrain"))
        page.show_moving(run, Path(chosen))

        def failed(error: Exception) -> None:
            page.show_moving(run, None)
            self._on_error(error)

        run_in_background(
            lambda: relocate.move(run, Path(chosen)), partial(page.show_moved, run), failed, self
        )

    def open_run(self, run: Run) -> None:
        """Show a run on the Train page, from its file or live."""
        current = self._training.active()
        live = current is not None and current.folder == run.folder
        page = self._show_on_page(run, live)
        if live:
            page.show_standstill(run, self._window.hang_watch.current)
        self._window.go_to("navTrain")
        if current is None and not self._training.is_busy():
            run_in_background(run.state, partial(self._follow, run), lambda _: None, self)

    def _show_on_page(self, run: Run, live: bool) -> TrainPage:
        """What was asked of the run before is no longer of interest."""
        self._asked_of_run.forget()
        self.fit.leave()
        page = cast("TrainPage", self._window.page("navTrain"))
        page.open_run(run, live)
        return page

    def _follow(self, run: Run, state: State) -> None:
        """Follow the run on the page when another window, or the terminal, trains it; otherwise
        say beside the page's name what the page says."""
        shown = cast("TrainPage", self._window.page("navTrain")).run()
        if shown != run or self._training.is_busy():
            return
        if state == "running":
            self._training.attach(run)
        else:
            self._show_progress(wording.state_word(state))

    def back_to_current(self) -> None:
        """Show the run that is under way."""
        current = self._training.active()
        if current is not None:
            self.open_run(current)

    def export(self, run: Run) -> None:
        """Show the Export page with this run chosen."""
        self._window.go_to("navExport")
        cast("ExportPage", self._window.page("navExport")).set_run(run)

    # ---------------------------------------------------------------------------- what comes of it

    def _on_opened(self, run: Run) -> None:
        """Show a run that was asked for.

        One from the queue, or that goes on after the computer slept, takes no page away.
        """
        page = cast("TrainPage", self._window.page("navTrain"))
        before, self._newest = self._newest, run
        if run == self._then_queue:
            self._then_queue = None
            self._queue.start()
        self._show_progress(self.tr("starting"))
        if not (self._queue.is_own(run) or self._window.sleeping.is_own(run)):
            self.open_run(run)
        elif page.run() in (None, before):
            self._show_on_page(run, live=True)
        else:  # the person looks at another one
            page.set_current(run)

    def _on_queue_changed(self) -> None:
        waiting = len(self._queue.state.entries)
        if self._window.is_built("navTrain"):
            page = cast("TrainPage", self._window.page("navTrain"))
            page.set_waiting(waiting, paused=self._queue.state.paused)
        self._show_progress(self._progress)

    def _on_queue_problem(self, text: str) -> None:
        """The queue's own card says it too, but the Train page may be where it was asked."""
        if self._window.is_built("navTrain"):
            page = cast("TrainPage", self._window.page("navTrain"))
            if page.isVisible():
                page.show_problems([Problem("", text)] if text else [])

    def _show_progress(self, text: str, left: str = "") -> None:
        """How training goes, in the sidebar, and how many wait; in the tray how long it takes."""
        self._progress = text
        waiting = len(self._queue.state.entries)
        more = self.tr("{count} waiting").format(count=integer(waiting)) if waiting else ""
        if waiting and self._queue.state.paused and not self._training.is_busy():
            text = self.tr("queue paused")
        shown = ", ".join(part for part in (text, more) if part)
        self._window.sidebar.set_detail("navTrain", shown or self.tr("not started"))
        self._window.tray.set_status(", ".join(part for part in (text, left, more) if part))

    def _on_event(self, event: Event) -> None:
        match event:
            case MetricsLogged(step=step, total_steps=total, seconds_left=seconds):
                text = self.tr("step {step} of {total}")
                text = text.format(step=integer(step), total=integer(total))
                left = self.tr("about {time} left")
                left = left.format(time=figures.duration(seconds)) if seconds is not None else ""
                self._show_progress(text, left)
            case PhaseChanged(phase=phase):
                self._show_progress(wording.phase_title(phase).lower())

    def _on_standstill(self, found: Standstill) -> None:
        """Say so where the run is shown, in the sidebar, and to a person who is elsewhere."""
        run = self._training.active()
        if run is None:
            return
        self._show_progress(
            self.tr("no progress for {time}").format(time=figures.duration(found.seconds))
        )
        if self._window.is_built("navTrain"):
            cast("TrainPage", self._window.page("navTrain")).show_standstill(run, found)
        self._window.notifier.tell(self.tr("Training stands still"), self._name_of(run))

    def _on_moves(self) -> None:
        if self._window.is_built("navTrain") and (run := self._training.active()) is not None:
            cast("TrainPage", self._window.page("navTrain")).show_standstill(run, None)

    def _on_run_ended(self, run: Run | None, terminal: Terminal | None) -> None:
        for_sleep = isinstance(terminal, RunStopped) and terminal.reason == "sleep"
        state = wording.state_word(_STATES[terminal.type]) if terminal else ""
        self._show_progress(self.tr("saved for sleep") if for_sleep else state)
        if self._window.closing.is_quitting():
            return
        if self._window.is_built("navRuns"):
            cast("RunsPage", self._window.page("navRuns")).refresh()
        if run is not None and isinstance(terminal, RunCompleted):
            self.load_answers(run)
        queued = run is not None and queue_file.read_mark(run) is not None
        if isinstance(terminal, RunFailed) and not queued:  # whose job is not the draft's
            message = f"{terminal.message} {terminal.remedy}".rstrip()
            self._show_beside_field(Problem(terminal.field or "", message))
        alone = not self._queue.is_going() and not for_sleep
        if run is not None and terminal is not None and alone:
            self._notify(run, terminal)
        self._window.warm_up_soon()

    def _notify(self, run: Run, terminal: Terminal) -> None:
        """Tell the desktop of a run that ended alone; the queue's end is told by `Away`."""
        titles = {
            "RunCompleted": self.tr("Training has finished"),
            "RunStopped": self.tr("Training has stopped"),
            "RunFailed": self.tr("Training has failed"),
            "RunInterrupted": self.tr("Training was interrupted"),
        }
        name = self._name_of(run)
        cause = terminal.message if isinstance(terminal, RunFailed) else ""
        self._window.notifier.tell(titles[terminal.type], f"{name}: {cause}" if cause else name)

    def _name_of(self, run: Run) -> str:
        try:
            return run.training_job().name
        except UserError:  # damaged meanwhile
            return run.id

    def _on_error(self, error: Exception) -> None:
        if not isinstance(error, UserError):
            error = UserError("unexpected", "{reason}", reason=error)
        self._on_refused(error)

    def _on_start_refused(self, error: UserError) -> None:
        """What is said of the run before would be taken for what became of this one."""
        if not self._training.is_busy():
            self._show_progress(self.tr("could not start"))
        self._on_refused(error)

    def _on_refused(self, error: UserError) -> None:
        """Every mistake beside its field, and all of them where Start was pressed."""
        problems = error.problems if isinstance(error, JobError) else ()
        problems = problems or (Problem(error.field or "", explain(error)),)
        cast("TrainPage", self._window.page("navTrain")).show_problems(list(problems))
        for problem in problems:
            self._show_beside_field(problem)

    def _show_beside_field(self, problem: Problem) -> None:
        name = page_of(problem.field)
        if name:
            page = cast("ModelPage | DatasetPage | SettingsPage", self._window.page(name))
            page.show_problem(problem.field, problem.message)

    def load_answers(self, run: Run) -> None:
        """Show a run's answers on the Try it page."""
        self._answers.ask(
            lambda: samples_of(run),
            lambda found: cast("ChatPage", self._window.page("navChat")).show_answers(*found),
            lambda _: None,  # the run's own page says what is wrong with it
        )


def samples_of(run: Run) -> tuple[str, list[SampleGenerated], int | None]:
    """A run's name, its answers, and the step whose model it kept; for a thread."""
    parts = journal.pieces(run.folder)
    samples = [e for events, _ in parts for e in events if isinstance(e, SampleGenerated)]
    end = journal.last_event(run.folder)
    kept = end.best_step if isinstance(end, RunCompleted) else None
    return run.training_job().name, samples, kept


def page_of(field: str) -> str:
    """The page where a job field is edited; "" for what is no field."""
    section = field.partition(".")[0]
    known: dict[str, Any] = {"": "", "model": "navModel", "dataset": "navDataset"}
    return str(known.get(section, "navSettings"))
