"""The window: the only place where pages are wired together."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

from PySide6.QtCore import QEvent, QTimer, Signal
from PySide6.QtGui import QCloseEvent, QKeySequence, QShortcut, QShowEvent
from PySide6.QtWidgets import QApplication, QHBoxLayout, QMainWindow, QStackedWidget, QWidget

from app import theme
from app.background import Latest, run_in_background
from app.desks.at_start import AtStart
from app.desks.export_desk import ExportDesk
from app.desks.hang_watch import HangWatch
from app.desks.memory_estimator import MemoryEstimator
from app.desks.probe_controller import ProbeController
from app.desks.queue_controller import QueueController
from app.desks.recipe_desk import RecipeDesk
from app.desks.run_desk import RunDesk, page_of
from app.desktop.away import Away
from app.desktop.closing import Closing
from app.desktop.keep_awake import KeepAwake
from app.desktop.notifier import Notifier
from app.desktop.sleeping import Sleeping
from app.desktop.tray import Tray
from app.draft import JobDraft, problems_of
from app.helper_client import HelperClient
from app.i18n import integer, size
from app.pages.model import ModelPage
from app.run_controller import RunController
from app.settings import Settings
from app.widgets.settings import memory_words
from app.widgets.sidebar import Sidebar
from training_backend import preferences, runs
from training_backend.computer.devices import this_device
from training_backend.errors import JobError
from training_backend.memory.worth_measuring import reason_to_measure
from training_backend.models import adapters
from training_backend.models.catalog_entry import CatalogEntry
from training_backend.runs import Run
from training_backend.summaries.run_facts import RunFacts

if TYPE_CHECKING:  # these are built, and their modules read, after the first paint
    from app.pages.dataset import DatasetPage
    from app.pages.settings import SettingsPage
    from app.pages.train import TrainPage
    from app.widgets.charts.metric_chart import SmoothingBox

WARM_UP_AFTER_MS = 800
SAVE_AFTER_MS = 500
HINT_AFTER_MS = 400


class MainWindow(QMainWindow):
    """Sidebar and pages. The pages but the first are built when the window is on screen."""

    closed = Signal()

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__()
        self.setWindowTitle("Lorasmith")
        self.setMinimumSize(1040, 640)
        room = self.screen().availableSize()
        self.resize(min(1280, room.width()), min(800, room.height()))
        self.settings = settings or Settings()
        self.draft = JobDraft(self.settings.draft(), self)
        self.training = RunController(self)
        self.hang_watch = HangWatch(self.training, self)
        self.exports = RunController(self)
        self.queue = QueueController(self.training, self)
        self.awake = KeepAwake(self.training, self.queue, self)
        self.tray = Tray(self)
        self.notifier = Notifier(self, self.settings, self.tray)
        self.away = Away(self.queue, self.notifier, self.settings, self)
        self.probe = ProbeController(self.training, self)
        self.helper = HelperClient(self)
        self._smoothing_boxes: list[SmoothingBox] = []
        self.estimator = MemoryEstimator(self.draft, self.helper, self)
        self.desk = RunDesk(self)
        self.export_desk = ExportDesk(self)
        self.at_start = AtStart(self)
        self.closing = Closing(self)
        self.sleeping = Sleeping(self)
        self.recipes = RecipeDesk(self.draft, self)
        self.recipes.applied.connect(self._show_field)
        self._painted = False
        self._hint = Latest(self)
        self._model_comes_first = ""  # what training downloads before it begins

        self.sidebar = Sidebar()
        self.sidebar.set_offline(preferences.is_offline())
        self._stack = QStackedWidget()
        central = QWidget()
        row = QHBoxLayout(central)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        row.addWidget(self.sidebar)
        row.addWidget(self._stack, 1)
        self.setCentralWidget(central)

        self._pages: dict[str, QWidget] = {}
        self._builders: dict[str, Callable[[], QWidget]] = {
            "navModel": self._build_model,
            "navDataset": self._build_dataset,
            "navSettings": self._build_settings,
            "navTrain": self._build_train,
            "navChat": self._build_chat,
            "navExport": self._build_export,
            "navRuns": self._build_runs,
        }
        self._connect()
        self._show_draft("")
        self.sidebar.set_detail("navTrain", self.tr("not started"))
        self.go_to("navModel")
        self.restoreGeometry(self.settings.geometry())

    # -------------------------------------------------------------------------------- pages

    def go_to(self, name: str) -> None:
        """Show a page by the name of its button."""
        self._stack.setCurrentWidget(self.page(name))
        self.sidebar.select(name)

    def page(self, name: str) -> QWidget:
        """A page, built if it is not yet."""
        if name not in self._pages:
            page = self._builders[name]()
            self._pages[name] = page
            self._stack.addWidget(page)
        return self._pages[name]

    def is_built(self, name: str) -> bool:
        return name in self._pages

    def build_all(self) -> None:
        """Build the pages that are missing, one at a time, so that input comes in between."""
        missing = next((name for name in self._builders if name not in self._pages), None)
        if missing is not None:
            self.page(missing)
            QTimer.singleShot(0, self, self.build_all)

    def _build_model(self) -> QWidget:
        page = ModelPage(self.draft, self.settings, self.helper)
        page.continue_requested.connect(lambda: self.go_to("navDataset"))
        page.settings_requested.connect(lambda: self.go_to("navSettings"))
        page.offline_changed.connect(self.sidebar.set_offline)
        page.described.connect(self._on_model_described)
        # Whoever looked at the model looks again: it is on this computer now.
        page.model_arrived.connect(lambda _: self.draft.changed.emit("model.id"))
        page.try_requested.connect(lambda: self.go_to("navTrain"))
        self.estimator.traced.connect(page.refresh_memory)
        return page

    def _build_dataset(self) -> QWidget:
        from app.pages.dataset import DatasetPage

        page = DatasetPage(self.draft, self.settings, self.helper)
        page.continue_requested.connect(lambda: self.go_to("navSettings"))
        page.lengths_known.connect(self.estimator.set_lengths)
        return page

    def _build_settings(self) -> QWidget:
        from app.pages.settings import SettingsPage

        page = SettingsPage(self.draft, self.estimator, self.probe)
        page.more.add_separator()
        page.more.add("trySeveral", self.tr("Try several values…"), self.desk.try_values)
        page.continue_requested.connect(lambda: self.go_to("navTrain"))
        page.open_requested.connect(self.recipes.ask_for_file)
        page.save_requested.connect(self.recipes.save)
        page.more.add("showScript", self.tr("Show as script…"), self._show_script)
        return page

    def _build_train(self) -> QWidget:
        from app.pages.train import TrainPage

        page = TrainPage()
        page.start_requested.connect(self.desk.start)
        page.queue_requested.connect(self.desk.add_to_queue)
        page.stop_requested.connect(self.training.stop)
        page.end_requested.connect(self.training.end)
        page.resume_requested.connect(self.desk.resume)
        steer = page.buttons.steer
        steer.checkpoint_requested.connect(lambda: self.training.request("checkpoint"))
        steer.pause_requested.connect(lambda: self.training.request("pause"))
        steer.go_on_requested.connect(self.training.go_on)
        steer.question_asked.connect(self.training.ask_model)
        page.extend_requested.connect(self.desk.ask_to_extend)
        page.report_requested.connect(self.desk.show_report)
        page.move_requested.connect(self.desk.ask_to_move)
        page.make_fit_requested.connect(self.desk.fit.offer)
        page.export_requested.connect(self.desk.export)
        page.measure_requested.connect(self._measure)
        page.back_to_current_requested.connect(self.desk.back_to_current)
        page.set_waiting(len(self.queue.state.entries), paused=self.queue.state.paused)
        self.training.event_arrived.connect(page.apply)
        self.training.run_ended.connect(page.finish)
        self._share_smoothing(page.charts.loss.smoothing)
        self.estimator.estimated.connect(
            lambda shown: page.progress.set_memory(*memory_words.verdict(shown.estimate))
        )
        self.estimator.unknown.connect(lambda _: page.progress.set_memory(""))
        page.progress.make_it_fit_requested.connect(self.desk.make_it_fit)
        self.estimator.refresh()
        self._tell_draft(page)
        return page

    def _build_chat(self) -> QWidget:
        from app.pages.chat import ChatPage

        page = ChatPage()
        page.continue_requested.connect(lambda: self.go_to("navExport"))
        page.settings_requested.connect(lambda: self.go_to("navSettings"))
        return page

    def _build_export(self) -> QWidget:
        from app.pages.export_wizard import ExportPage

        page = ExportPage()
        page.train_requested.connect(lambda: self.go_to("navTrain"))
        self.export_desk.serve(page)
        return page

    def _build_runs(self) -> QWidget:
        from app.pages.runs import RunsPage
        from app.widgets.runs.queue_card import QueueCard
        from app.widgets.runs.summary_card import SummaryCard

        page = RunsPage()
        summary = SummaryCard()
        summary.open_requested.connect(self.desk.open_run)
        summary.resume_requested.connect(self.desk.resume)
        summary.compare_requested.connect(page.compare_sweep)
        summary.dismissed.connect(self.away.dismiss)
        page.add_above(summary)
        self._summary = summary
        page.add_above(QueueCard(self.queue, self.awake))
        page.refreshing.connect(self.queue.refresh)
        self.queue.changed.connect(page.refresh_if_seen)
        page.again_requested.connect(self.desk.run_again)
        page.more.add_separator()
        tell = page.more.add("notifyOfEnds", self.tr("Notify me when training ends"), lambda: None)
        tell.setCheckable(True)
        tell.setChecked(self.settings.notify())
        tell.toggled.connect(self.settings.set_notify)
        self._share_smoothing(page.comparison.smoothing)
        page.open_requested.connect(self.desk.open_run)
        page.train_requested.connect(lambda: self.go_to("navTrain"))
        page.resume_requested.connect(self.desk.resume)
        page.export_requested.connect(self.desk.export)
        page.use_settings_requested.connect(self.recipes.open_run)
        page.script_requested.connect(self._show_script)
        return page

    # -------------------------------------------------------------------------------- wiring

    def _share_smoothing(self, box: SmoothingBox) -> None:
        """All charts are smoothed alike, also at the next start."""
        remembered = self.settings.smoothing()
        if remembered is not None:
            box.setValue(remembered)
        self._smoothing_boxes.append(box)
        box.valueChanged.connect(self._on_smoothing)

    def _on_smoothing(self, weight: float) -> None:
        self.settings.set_smoothing(weight)
        for box in self._smoothing_boxes:
            box.setValue(weight)

    def _show_summary(self, ended: list[RunFacts]) -> None:
        """Whoever looks at a page of their own choice by now keeps it."""
        self.page("navRuns")  # has the summary
        at_start = self._stack.currentWidget() is self._pages["navModel"]
        if at_start or QApplication.activeWindow() is None:
            self.go_to("navRuns")
        self._summary.show_ended(ended, len(self.queue.state.entries))

    def _connect(self) -> None:
        self.away.found.connect(self._show_summary)
        self.sidebar.chosen.connect(self.go_to)
        self.sidebar.theme_chosen.connect(self._set_theme)
        self.sidebar.hardware_requested.connect(self._show_hardware)
        self._save_pause = QTimer(self, singleShot=True, interval=SAVE_AFTER_MS)
        self._save_pause.timeout.connect(lambda: self.settings.set_draft(self.draft.document()))
        self._hint_pause = QTimer(self, singleShot=True, interval=HINT_AFTER_MS)
        self._hint_pause.timeout.connect(self._look_for_hint)
        self.draft.changed.connect(self._show_draft)
        self.probe.measured.connect(lambda _: self._hint_pause.start())
        for change in (
            self.probe.began, self.probe.ended, self.training.run_opened, self.training.run_ended,
        ):  # fmt: skip
            change.connect(lambda *_: self._hold_estimate())
        self.probe.ended.connect(self.warm_up_soon)  # it had the worker of the next training
        shortcuts: dict[str, Callable[[], object]] = {
            "Ctrl+Z": lambda: self._show_field(self.draft.undo()),
            "Ctrl+Shift+Z": lambda: self._show_field(self.draft.redo()),
            "Ctrl+O": self.recipes.ask_for_file,
            "Ctrl+S": self.recipes.save,
        }
        for number, name in enumerate(self._builders, start=1):
            shortcuts[f"Ctrl+{number}"] = partial(self.go_to, name)
        for keys, act in shortcuts.items():
            QShortcut(QKeySequence(keys), self).activated.connect(act)

    def _set_theme(self, name: theme.ThemeName) -> None:
        self.settings.set_theme(name)
        theme.apply(cast(QApplication, QApplication.instance()), name)

    def _show_hardware(self) -> None:
        from app.dialogs.hardware_dialog import HardwareDialog

        dialog = HardwareDialog(self)
        dialog.card_chosen.connect(self._on_card_chosen)
        dialog.open()

    def _show_script(self, run: Run | None = None) -> None:
        """The draft, or what a run did, as a script."""
        from app.dialogs.script_dialog import ScriptDialog

        find_job = partial(adapters.job_of, run) if run is not None else self.draft.job
        ScriptDialog(self.helper, find_job, self).open()

    def _hold_estimate(self) -> None:
        """What our own work holds is free again when it has ended; a trial may end after Start."""
        self.estimator.hold(self.training.is_busy() or self.probe.is_busy())

    def _on_card_chosen(self) -> None:
        """Whatever says how much fits is told of the other card."""
        self.sidebar.memory.reopen()
        self.estimator.forget_device()
        self.estimator.refresh()
        self._hint_pause.start()
        cast(ModelPage, self.page("navModel")).refresh()

    def event(self, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Paint and not self._painted:
            self._painted = True
            QTimer.singleShot(0, self, self._on_first_paint)
        return super().event(event)

    def _on_first_paint(self) -> None:
        QTimer.singleShot(0, self, self.build_all)
        self.at_start.look()
        self.away.look()
        run_in_background(runs.clear_probes, lambda _: None, lambda _: None, self)
        self.warm_up_soon()
        if not os.environ.get("LORASMITH_NO_WARM_UP"):
            QTimer.singleShot(WARM_UP_AFTER_MS, self, self.helper.warm_up)

    def warm_up_soon(self) -> None:
        """Have a worker ready for the next training, unless one is under way."""
        if not os.environ.get("LORASMITH_NO_WARM_UP") and not self.training.is_busy():
            QTimer.singleShot(WARM_UP_AFTER_MS, self, self.training.warm_up)

    # ----------------------------------------------------------------------------- the draft

    def _show_draft(self, field: str) -> None:
        self.sidebar.set_detail("navModel", self.draft.model_text())
        self.sidebar.set_detail("navDataset", self.draft.dataset_text())
        self.sidebar.set_detail("navSettings", self.draft.settings_text())
        if "navTrain" in self._pages:
            self._tell_draft(self._pages["navTrain"])
        if field:
            self._save_pause.start()

    def _tell_draft(self, page: QWidget) -> None:
        problems = problems_of(self.draft)
        count = integer(len(problems))
        why_not = self.tr("{count} settings need a look first.").format(count=count)
        cast("TrainPage", page).set_draft_summary(
            str(self.draft.value("name")),
            f"{self.draft.summary()}{self._model_comes_first}",
            not problems,
            why_not if problems else "",
        )
        self._hint_pause.start()

    def _look_for_hint(self) -> None:
        """Whether to try one step first is found out off the GUI thread; it never holds up."""
        self._hint.forget()
        if "navTrain" not in self._pages:
            return
        page = cast("TrainPage", self._pages["navTrain"])
        try:
            job = self.draft.job()
        except JobError:
            page.set_hint("")
            return
        newest = self.probe.newest
        if newest is not None and newest.is_of(job) and newest.result.fits:
            page.set_hint("")
            return
        self._hint.ask(lambda: reason_to_measure(job, this_device()), page.set_hint, lambda _: None)

    def _measure(self) -> None:
        """Try one real step of the draft, where memory is shown."""
        page = cast("SettingsPage", self.page("navSettings"))
        self.go_to("navSettings")
        page.memory.measure()

    def _on_model_described(self, entry: CatalogEntry | None) -> None:
        """Say before Start what training would download first."""
        self._model_comes_first = ""
        if entry is not None and entry.location is None and not entry.problem:
            text = self.tr("; downloads the model first ({size})")
            amount = size(entry.size_bytes) if entry.size_bytes else self.tr("size not known")
            self._model_comes_first = text.format(size=amount)
        if "navTrain" in self._pages:
            self._tell_draft(self._pages["navTrain"])

    def _show_field(self, field: str) -> None:
        """After undo or redo: the page where something changed."""
        if field:
            self.go_to(page_of(field) or "navSettings")

    # ------------------------------------------------------------------------------- closing

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.tray.leave()

    def remember(self) -> None:
        """Keep what the next start begins with."""
        self.away.dismiss()  # what was to be told is on the Runs page
        self.settings.set_geometry(self.saveGeometry())
        self.settings.set_draft(self.draft.document())
        self.settings.flush()

    def closeEvent(self, event: QCloseEvent) -> None:
        if not self.closing.may_close():
            event.ignore()
            return
        self.remember()
        cast("ModelPage", self.page("navModel")).shutdown()
        self.queue.shutdown()
        self.awake.shutdown()
        self.sleeping.shutdown()
        self.tray.leave()
        self.hang_watch.shutdown()
        self.training.shutdown()
        self.exports.shutdown()
        self.probe.shutdown()
        if "navDataset" in self._pages:
            cast("DatasetPage", self._pages["navDataset"]).shutdown()
        self.helper.shutdown()
        event.accept()
        self.closed.emit()
