"""The Runs page: every run there was, to look at again, go on with, export or throw away."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

from PySide6.QtCore import QFile, QModelIndex, Qt, QTimer, Signal
from PySide6.QtGui import QGuiApplication, QHideEvent, QKeySequence, QShortcut, QShowEvent
from PySide6.QtWidgets import (
    QHBoxLayout,
    QMessageBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from app.background import Latest, run_in_background
from app.i18n import explain
from app.models import sweep_shown
from app.models.comparison import MOST_RUNS
from app.models.sweep_shown import SweepShown
from app.widgets import figures, wording
from app.widgets.actions import open_folder
from app.widgets.card import (
    CARD_GAP,
    Card,
    ErrorLabel,
    PageHeader,
    PrimaryButton,
    SecondaryButton,
    page_layout,
    plain_tool_tip,
    secondary_label,
)
from app.widgets.menu_button import MenuButton
from app.widgets.runs.comparison import Comparison
from app.widgets.runs.runs_table import RunsTable
from training_backend import runs
from training_backend.errors import UserError
from training_backend.queueing import queue_file
from training_backend.runs import Run, RunSummary
from training_backend.training.tensorboard_log import FOLDER as TENSORBOARD_FOLDER

REFRESH_MILLISECONDS = 5_000


class RunsPage(QWidget):
    """The table of runs; newest first until a header is pressed."""

    open_requested = Signal(object)
    resume_requested = Signal(object)
    export_requested = Signal(object)
    again_requested = Signal(object)
    script_requested = Signal(object)
    train_requested = Signal()
    use_settings_requested = Signal(object)
    refreshing = Signal()  # the list is read again, and what stands above it should be

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._comparing = self._any = False
        self._sweep = ""  # that is compared
        self._subtitle = ""
        self._listed, self._compared = Latest(self, same=True), Latest(self, same=True)
        self._timer = QTimer(self, interval=REFRESH_MILLISECONDS)
        self._timer.timeout.connect(self.refresh)
        self._build()
        self._show_runs([])

    def refresh(self) -> None:
        """Read the run store again."""
        self.refreshing.emit()
        self._listed.ask(
            _begun, self._show_runs, lambda error: self._errors.show_error(explain(error))
        )

    def refresh_if_seen(self) -> None:
        """The store has changed; whoever comes to the page later reads it then."""
        if self.isVisible():
            self.refresh()

    def add_above(self, card: QWidget) -> None:
        """Show a card above the list; it hides itself while it has nothing to say."""
        self._above.addWidget(card)

    def selected(self) -> RunSummary | None:
        """The run that is selected alone."""
        found = self.table.selected()
        return found[0] if len(found) == 1 else None

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.refresh()
        self._timer.start()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._timer.stop()

    # ---------------------------------------------------------------------------- what is shown

    def _show_runs(self, found: list[RunSummary]) -> None:
        self.table.show_runs(found)
        count = figures.count(len(found))
        self._subtitle = self.tr("{count} on this computer").format(count=count) if found else ""
        self._any = bool(found)
        if self._comparing and self._sweep:
            self._load_sweep()
        elif self._comparing:
            self.comparison.reload_changed(found)
        self._show_parts()

    def _show_parts(self) -> None:
        """The list, or what was chosen to compare, or why there is neither."""
        comparing = self._comparing
        title = self.tr("Compare a sweep") if self._sweep else self.tr("Compare runs")
        self.header.title.setText(title if comparing else self.tr("Runs"))
        if not (comparing and self._sweep):
            self.header.subtitle.setText("" if comparing else self._subtitle)
        self._listing.setVisible(not comparing)
        self.comparison.setVisible(comparing)
        self.comparison.controls.setVisible(comparing)
        self._card.setVisible(self._any)
        self._empty.setVisible(not self._any)
        for button in self._buttons:
            button.setVisible(self._any and not comparing)
        self.back_button.setVisible(comparing)
        self._update_buttons()

    def _update_buttons(self) -> None:
        summary = self.selected()
        ended = summary is not None and summary.state not in ("running", "queued")
        saved = summary is not None and _has_checkpoint(summary.run)
        self.open_button.setEnabled(summary is not None)
        for action in self._for_one:
            action.setEnabled(summary is not None)
        chosen = self.table.selected()
        line = tensorboard_line(summary.run) if summary is not None else ""
        self._copy_tensorboard.setEnabled(bool(line))
        self._copy_tensorboard.setToolTip(
            plain_tool_tip(line or self.tr("This run wrote no TensorBoard logs."))
        )
        of_sweep = summary is not None and bool(sweep_shown.sweep_of(summary.run))
        text = self.tr("Compare this sweep") if of_sweep else self.tr("Compare")
        self.compare_button.setText(text)
        self.compare_button.setAccessibleName(text)
        self.compare_button.setEnabled(of_sweep or 2 <= len(chosen) <= MOST_RUNS)
        self.delete_button.setEnabled(
            bool(chosen) and all(one.state != "running" for one in chosen)
        )
        self.resume_button.setEnabled(
            summary is not None and ended and summary.state != "completed" and saved
        )
        self.export_button.setEnabled(
            summary is not None and ended and (summary.state == "completed" or saved)
        )

    # ------------------------------------------------------------------------------ what is asked

    def _open(self) -> None:
        if (summary := self.selected()) is not None:
            self.open_requested.emit(summary.run)

    def _resume(self) -> None:
        if (summary := self.selected()) is not None:
            self.resume_requested.emit(summary.run)

    def _run_again(self) -> None:
        if (summary := self.selected()) is not None:
            self.again_requested.emit(summary.run)

    def _show_script(self) -> None:
        if (summary := self.selected()) is not None:
            self.script_requested.emit(summary.run)

    def _export(self) -> None:
        if (summary := self.selected()) is not None:
            self.export_requested.emit(summary.run)

    def _use_its_settings(self) -> None:
        if (summary := self.selected()) is not None:
            self.use_settings_requested.emit(summary.run)

    def _copy_line(self) -> None:
        if (summary := self.selected()) is not None:
            QGuiApplication.clipboard().setText(tensorboard_line(summary.run))

    def _show_folder(self) -> None:
        if (summary := self.selected()) is not None:
            open_folder(summary.run.folder)

    def _compare(self) -> None:
        alone = self.selected()
        if alone is not None:
            self.compare_sweep(sweep_shown.sweep_of(alone.run))
            return
        self._choose_sweep("")
        self._comparing = True
        self.comparison.compare(self.table.selected())
        self._show_parts()
        self.back_button.setFocus()

    def compare_sweep(self, sweep_id: str) -> None:
        """Show the runs of a sweep beside one another, with what is to be learned from them."""
        self._choose_sweep(sweep_id)
        self._comparing = True
        self.comparison.compare([])
        self._show_parts()
        self.back_button.setFocus()
        self._load_sweep()

    def _load_sweep(self) -> None:
        sweep_id = self._sweep

        def take(shown: SweepShown) -> None:
            self.header.subtitle.setText(shown.name)
            before = self.comparison.asked()
            if [one.run for one in shown.runs] != [one.run for one in before]:
                self.comparison.compare(shown.runs)
            elif shown.runs != before:
                self.comparison.reload(shown.runs)
            self.comparison.say(shown.verdict)

        self._compared.ask(
            lambda: sweep_shown.load(sweep_id),
            take,
            lambda error: self._errors.show_error(explain(error)),
        )

    def _choose_sweep(self, sweep_id: str) -> None:
        """Compare its runs; "" for those of none."""
        self._sweep = sweep_id
        self._compared.forget()

    def _back(self) -> None:
        self._comparing = False
        self._choose_sweep("")
        self._show_parts()
        self.table.setFocus()

    def _ask_to_delete(self) -> None:
        chosen = self.table.selected()
        if not self.delete_button.isEnabled():
            return
        box = QMessageBox(self)
        box.setObjectName("deleteRunDialog")
        box.setIcon(QMessageBox.Icon.Question)
        box.setTextFormat(Qt.TextFormat.PlainText)
        if len(chosen) == 1:
            box.setWindowTitle(self.tr("Delete the run"))
            box.setText(
                self.tr("Move the run “{name}” to the trash?").format(
                    name=wording.one_line(chosen[0].name)
                )
            )
        else:
            box.setWindowTitle(self.tr("Delete runs"))
            count = figures.count(len(chosen))
            box.setText(self.tr("Move {count} runs to the trash?").format(count=count))
        box.setInformativeText(
            self.tr("Checkpoints, adapters and history go with them. Exports stay.")
        )
        delete = box.addButton(self.tr("Move to the trash"), QMessageBox.ButtonRole.AcceptRole)
        box.addButton(self.tr("Cancel"), QMessageBox.ButtonRole.RejectRole)
        box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        delete.clicked.connect(lambda: self._delete([summary.run for summary in chosen]))
        box.open()

    def _delete(self, chosen: list[Run]) -> None:
        self._errors.show_error("")
        run_in_background(
            lambda: _all_to_trash(chosen),
            lambda _: self.refresh(),
            self._on_not_deleted,
            self,
        )

    def _on_not_deleted(self, error: Exception) -> None:
        self._errors.show_error(explain(error))
        self.refresh()  # those before it are gone

    # --------------------------------------------------------------------------------- the widgets

    def _build(self) -> None:
        layout = page_layout(self)
        self.header = PageHeader(self.tr("Runs"))
        layout.addWidget(self.header)
        self.delete_button = self._button("deleteRunButton", self.tr("Delete"), self._ask_to_delete)
        self.more = MenuButton(self.tr("More"))
        self.more.setObjectName("runsMenu")
        self._for_one = (
            self.more.add("runAgain", self.tr("Run again"), self._run_again),
            self.more.add("useSettings", self.tr("Use these settings…"), self._use_its_settings),
            self.more.add("scriptOfRun", self.tr("Show as script…"), self._show_script),
            self.more.add("openRunFolder", self.tr("Show folder"), self._show_folder),
        )
        self._copy_tensorboard = self.more.add(
            "copyTensorboard", self.tr("Copy the line for TensorBoard"), self._copy_line
        )
        self.export_button = self._button("exportRunButton", self.tr("Export"), self._export)
        self.resume_button = self._button("resumeRunButton", self.tr("Resume"), self._resume)
        self.compare_button = self._button("compareRunsButton", self.tr("Compare"), self._compare)
        how = self.tr("Select 2 to {count} runs with Ctrl or Shift.").format(count=MOST_RUNS)
        self.compare_button.setToolTip(plain_tool_tip(how))
        self.back_button = self._button("backToRunsButton", self.tr("Back to the list"), self._back)
        self.open_button = PrimaryButton(self.tr("Open"))
        self.open_button.setObjectName("openRunButton")
        self.open_button.clicked.connect(self._open)
        self._buttons: tuple[QPushButton, ...] = (
            self.delete_button, self.more, self.compare_button, self.export_button,
            self.resume_button, self.open_button,
        )  # fmt: skip
        self.comparison = Comparison()
        for button in (*self._buttons, self.comparison.controls, self.back_button):
            self.header.add_button(button)
        self._errors = ErrorLabel("runsProblem")
        layout.addWidget(self._errors)
        self._listing = QWidget()
        listing = QVBoxLayout(self._listing)
        listing.setContentsMargins(0, 0, 0, 0)
        listing.setSpacing(CARD_GAP)
        self._above = QVBoxLayout()
        self._above.setSpacing(CARD_GAP)
        listing.addLayout(self._above)
        layout.addWidget(self._listing, 1)
        self._card = Card()
        self._card.setContentsMargins(-15, -4, -15, -8)  # the table reaches the card's edge
        self.table = self._table()
        self._card.body.addWidget(self.table)
        listing.addWidget(self._card, 1)
        self._empty = self._empty_state()
        listing.addWidget(self._empty, 1, Qt.AlignmentFlag.AlignTop)
        layout.addWidget(self.comparison, 1)

    def _button(self, name: str, text: str, act: object) -> SecondaryButton:
        button = SecondaryButton(text)
        button.setObjectName(name)
        button.clicked.connect(act)
        return button

    def _table(self) -> RunsTable:
        table = RunsTable(several=True)
        table.setObjectName("runsTable")
        table.setAccessibleName(self.tr("Runs"))
        table.doubleClicked.connect(self._open_index)
        table.selectionModel().selectionChanged.connect(lambda: self._update_buttons())
        for keys, act in (
            (Qt.Key.Key_Return, self._open),
            (Qt.Key.Key_Enter, self._open),
            (QKeySequence.StandardKey.Delete, self._ask_to_delete),
        ):
            shortcut = QShortcut(QKeySequence(keys), table)
            shortcut.setContext(Qt.ShortcutContext.WidgetShortcut)
            shortcut.activated.connect(act)
        return table

    def _open_index(self, _: QModelIndex) -> None:
        self._open()

    def _empty_state(self) -> Card:
        card = Card(self.tr("No runs yet"))
        card.body.addWidget(
            secondary_label(
                self.tr(
                    "Every training is kept here with its settings, its curves and its "
                    "checkpoints, so that you can compare, go on and export."
                ),
                wrap=True,
            )
        )
        go = SecondaryButton(self.tr("Go to Train"))
        go.clicked.connect(self.train_requested)
        row = QHBoxLayout()
        row.addWidget(go)
        row.addStretch(1)
        card.body.addLayout(row)
        return card


def _begun() -> list[RunSummary]:
    """All runs but those that wait in the queue, which stand in its own list above."""
    return [
        one
        for one in runs.list_runs()
        if one.state != "queued" or queue_file.read_mark(one.run) is None
    ]


def tensorboard_line(run: Run) -> str:
    """What to type to see the run in TensorBoard; "" where it wrote nothing for it."""
    folder = run.folder / TENSORBOARD_FOLDER
    quoted = f'"{folder}"' if os.name == "nt" else shlex.quote(str(folder))
    return f"tensorboard --logdir {quoted}" if folder.is_dir() else ""


def _has_checkpoint(run: Run) -> bool:
    return any(run.checkpoints.glob("checkpoint-*"))


def _all_to_trash(chosen: list[Run]) -> None:
    for run in chosen:
        _to_trash(run)


def _to_trash(run: Run) -> None:
    """Raises `UserError` when the run lives or there is no trash."""
    if run.is_alive():
        raise UserError("run_is_alive", "The run is still being worked on.", "Stop it first.")
    moved = QFile.moveToTrash(str(run.folder))
    if not (moved[0] if isinstance(moved, tuple) else moved):
        _set_aside(run.folder)


def _set_aside(folder: Path) -> None:
    """Where the system has no trash for this drive: out of the list, yet not gone."""
    aside = folder.parent.parent / "deleted-runs"
    try:
        aside.mkdir(exist_ok=True)
        shutil.move(folder, aside / folder.name)
    except OSError as error:
        raise UserError(
            "cannot_delete", "The run cannot be moved: {reason}.", reason=error.strerror or error
        ) from error
