"""A training as a script of its own: to read, to copy, and to save with its data."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import (
    QDialog,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QPlainTextEdit,
    QWidget,
)

from app import theme
from app.helper_client import HelperClient
from app.i18n import explain, integer
from app.models.export_sources import fresh_folder
from app.widgets.actions import open_folder
from app.widgets.card import (
    ErrorLabel,
    PrimaryButton,
    SecondaryButton,
    page_title,
    plain_label,
    secondary_label,
)
from app.widgets.dialog_parts import dialog_layout
from training_backend.errors import UserError
from training_backend.job import TrainingJob

COPIED_FOR_MS = 2000


class ScriptDialog(QDialog):
    """Shows what the helper writes for a job.

    Args:
        find_job: gives the job; a `UserError` that it raises is shown.
    """

    def __init__(
        self,
        helper: HelperClient,
        find_job: Callable[[], TrainingJob],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("scriptDialog")
        self.setWindowTitle(self.tr("Script"))
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._helper = helper
        self._job: dict[str, Any] = {}
        self._saved: Path | None = None
        self._ready = False
        layout = dialog_layout(self)
        layout.addWidget(page_title(self.tr("This training as a script")))
        intro = self.tr(
            "Plain TRL and PEFT, to run without this program. Saved with its data, it repeats the "
            "training; on a processor, and with fast paths off, to the last digit."
        )
        layout.addWidget(secondary_label(intro, wrap=True))
        self._error = ErrorLabel("error_script")
        layout.addWidget(self._error)
        layout.addWidget(self._code(), 1)
        layout.addLayout(self._folder_row())
        layout.addLayout(self._buttons())
        self.resize(860, 640)
        self._ask_for_text(find_job)

    def done(self, result: int) -> None:
        """Closing gives up what is under way; nothing half-written stays."""
        self._helper.cancel("script", self)
        super().done(result)

    # ------------------------------------------------------------------------------- the parts

    def _code(self) -> QWidget:
        self._text = QPlainTextEdit()
        self._text.setObjectName("scriptText")
        self._text.setAccessibleName(self.tr("The script"))
        self._text.setReadOnly(True)
        self._text.setTabChangesFocus(True)
        self._text.setFont(theme.mono_font(12))
        self._text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self._text.setPlaceholderText(self.tr("Writing the script…"))
        return self._text

    def _folder_row(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(8)
        label = plain_label(self.tr("Folder"))
        self._folder = QLineEdit()
        self._folder.setObjectName("scriptFolderEdit")
        self._folder.setAccessibleName(self.tr("Folder for script and data"))
        self._folder.textEdited.connect(lambda _: self._allow_saving())
        label.setBuddy(self._folder)
        self._pick = SecondaryButton(self.tr("Choose folder"))
        self._pick.clicked.connect(self._choose)
        row.addWidget(label)
        row.addWidget(self._folder, 1)
        row.addWidget(self._pick)
        return row

    def _buttons(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(8)
        self._copy = SecondaryButton(self.tr("Copy"))
        self._copy.setObjectName("scriptCopy")
        self._copy.setAccessibleName(self.tr("Copy the script"))
        self._copy.clicked.connect(self._copy_text)
        self._status = secondary_label("")
        self._status.setObjectName("scriptStatus")
        self._show_folder = SecondaryButton(self.tr("Show folder"))
        self._show_folder.clicked.connect(self._open_folder)
        self._stop = SecondaryButton(self.tr("Cancel"))
        self._stop.setObjectName("scriptCancel")
        self._stop.clicked.connect(self._cancel)
        self._save = PrimaryButton(self.tr("Save with data"))
        self._save.setObjectName("scriptSave")
        self._save.clicked.connect(self._save_all)
        close = SecondaryButton(self.tr("Close"))
        close.clicked.connect(self.reject)
        row.addWidget(self._copy)
        row.addWidget(self._status, 1)
        for button in (self._show_folder, self._stop, close, self._save):
            row.addWidget(button)
        self._show_state(ready=False)
        return row

    def _allow_saving(self, free: bool = True) -> None:
        """Once saved, the next one goes elsewhere."""
        elsewhere = self._saved is None or self._out() != self._saved
        self._save.setEnabled(free and self._ready and elsewhere)

    def _out(self) -> Path:
        return Path(os.path.abspath(os.path.expanduser(self._folder.text().strip())))

    def _show_state(self, *, ready: bool, saving: bool = False) -> None:
        self._copy.setEnabled(bool(self._text.toPlainText()))
        self._ready = ready
        self._allow_saving(not saving)
        self._folder.setEnabled(not saving)
        self._pick.setEnabled(not saving)
        self._stop.setVisible(saving)
        self._show_folder.setVisible(self._saved is not None and not saving)

    # ------------------------------------------------------------------- what the helper does

    def _ask_for_text(self, find_job: Callable[[], TrainingJob]) -> None:
        try:
            job = find_job()
        except UserError as error:
            self._on_error(error)
            return
        self._job = job.model_dump(mode="json")
        self._folder.setText(str(fresh_folder(f"{job.name} script")))
        self._helper.ask("script", {"job": self._job}, self._show_text, self._on_error, self)

    def _show_text(self, answer: dict[str, Any]) -> None:
        self._text.setPlainText(answer["text"])
        self._show_state(ready=True)

    def _on_error(self, error: Exception) -> None:
        self._error.show_error(explain(error))
        self._status.setText("")
        self._text.setPlaceholderText("")
        self._show_state(ready=bool(self._text.toPlainText()))

    def _save_all(self) -> None:
        self._error.show_error("")
        self._status.setText(self.tr("Preparing the rows…"))
        self._saved = None
        out = self._out()
        self._show_state(ready=True, saving=True)
        self._helper.ask(
            "script",
            {"job": self._job, "out": str(out)},
            lambda _: self._on_saved(out),
            self._on_error,
            self,
            self._on_progress,
        )

    def _on_progress(self, told: dict[str, Any]) -> None:
        self._status.setText(self.tr("{count} rows prepared").format(count=integer(told["rows"])))

    def _on_saved(self, out: Path) -> None:
        self._saved = out
        self._status.setText(self.tr("Saved. README.md there says how to run it."))
        self._show_state(ready=True)

    def _cancel(self) -> None:
        self._helper.cancel("script", self)
        self._status.setText(self.tr("Cancelled. Nothing was saved."))
        self._show_state(ready=True)

    # ------------------------------------------------------------------------------- the buttons

    def _choose(self) -> None:
        chosen = QFileDialog.getExistingDirectory(
            self, self.tr("Folder for script and data"), str(Path(self._folder.text()).parent)
        )
        if chosen:
            self._folder.setText(chosen)
            self._allow_saving()

    def _open_folder(self) -> None:
        if self._saved is not None:
            open_folder(self._saved)

    def _copy_text(self) -> None:
        QGuiApplication.clipboard().setText(self._text.toPlainText())
        self._copy.setText(self.tr("Copied"))
        QTimer.singleShot(COPIED_FOR_MS, self, lambda: self._copy.setText(self.tr("Copy")))
