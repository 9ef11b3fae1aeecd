"""What happens with exports on behalf of their page: made, followed, checked again, pushed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Qt
from PySide6.QtWidgets import QApplication, QDialog, QWidget

from app.background import run_in_background
from training_backend.errors import UserError
from training_backend.job import ExportJob, VerifyJob
from training_backend.runs import Run

if TYPE_CHECKING:  # the pages are built, and their modules read, after the first paint
    from app.main_window import MainWindow
    from app.models.made_exports import MadeExport
    from app.pages.export_wizard import ExportPage


class ExportDesk(QObject):
    """Takes what the Export page asks for to the worker, and what comes of it to the page."""

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window)
        self._window = window
        self._exports = window.exports
        self._page: ExportPage | None = None
        self._exports.refused.connect(self._on_refused)

    def serve(self, page: ExportPage) -> None:
        """Connect the page; an export that an earlier window began is followed on."""
        from app.models.made_exports import live_export

        self._page = page
        page.export_requested.connect(self.start)
        page.cancel_requested.connect(self._exports.stop)
        page.check_requested.connect(self.check)
        page.hand_off_requested.connect(self.hand_off)
        page.push_requested.connect(self.push)
        self._exports.event_arrived.connect(page.apply)
        self._exports.run_ended.connect(lambda _, terminal: page.finish(terminal))
        run_in_background(live_export, self._attach, lambda _: None, self)

    def start(self, job: ExportJob) -> None:
        """Export; the page hears how it goes."""
        self._exports.start(job)

    def check(self, made: MadeExport) -> None:
        """Ask an export of some time ago the questions of its check once more."""
        job = made.job
        self._exports.start(
            VerifyJob(
                name=job.name,
                folder=str(made.folder),
                run=job.run,
                checkpoint=job.checkpoint,
                prompts=job.prompts,
            )
        )

    def hand_off(self, folder: Path) -> None:
        """An export's way to other programs; before the wizard, where that asked for it."""
        from app.dialogs.hand_off_dialog import HandOffDialog

        self._open(HandOffDialog(self._window.helper, folder, self._above()))

    def push(self, folder: Path) -> None:
        """An export's way to the Hub, likewise."""
        from app.dialogs.push_dialog import PushDialog

        self._open(PushDialog(self._window.helper, folder, self._above()))

    def _above(self) -> QWidget:
        return QApplication.activeModalWidget() or self._window

    def _open(self, dialog: QDialog) -> None:
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    def _attach(self, live: Run | None) -> None:
        if live is not None and not self._exports.is_busy():
            self._exports.attach(live)

    def _on_refused(self, error: UserError) -> None:
        if self._page is not None:
            self._page.refuse(error)
