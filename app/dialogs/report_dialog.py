"""A report on a run: everything that is in it is shown before it is saved."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QDialog,
    QFileDialog,
    QHBoxLayout,
    QListWidget,
    QPlainTextEdit,
    QWidget,
)

from app import theme
from app.background import run_in_background
from app.i18n import explain
from app.widgets.actions import open_folder
from app.widgets.card import (
    ErrorLabel,
    PrimaryButton,
    SecondaryButton,
    page_title,
    secondary_label,
)
from app.widgets.dialog_parts import dialog_layout
from training_backend.runs import Run
from training_backend.summaries import run_report

LIST_WIDTH = 150


class ReportDialog(QDialog):
    """The texts at the right, their names at the left; nothing is written before Save."""

    def __init__(self, run: Run, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("reportDialog")
        self.setWindowTitle(self.tr("Report on this run"))
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._run = run
        self._texts: dict[str, str] = {}
        self._saved: Path | None = None
        column = dialog_layout(self)
        column.addWidget(page_title(self.windowTitle()))
        intro = self.tr(
            "For whoever helps you. This is all of it; prompts, answers, rows of data, names of "
            "files and folders, your name and tokens are left out. It is saved as a zip of these "
            "texts and sent nowhere."
        )
        column.addWidget(secondary_label(intro, wrap=True))
        column.addLayout(self._content(), 1)
        self._error = ErrorLabel("reportProblem")
        column.addWidget(self._error)
        column.addLayout(self._foot())
        self.resize(860, 600)
        run_in_background(lambda: run_report.texts(run), self._show, self._on_error, self)

    def _content(self) -> QHBoxLayout:
        self._names = QListWidget()
        self._names.setObjectName("reportFiles")
        self._names.setAccessibleName(self.tr("Files in the report"))
        self._names.setFixedWidth(LIST_WIDTH)
        self._names.currentTextChanged.connect(self._show_text)
        self._text = QPlainTextEdit()
        self._text.setObjectName("reportText")
        self._text.setAccessibleName(self.tr("What stands in the file"))
        self._text.setReadOnly(True)
        self._text.setTabChangesFocus(True)
        self._text.setFont(theme.mono_font(12))
        self._text.setPlaceholderText(self.tr("Gathering what is known…"))
        row = QHBoxLayout()
        row.setSpacing(12)
        row.addWidget(self._names)
        row.addWidget(self._text, 1)
        return row

    def _foot(self) -> QHBoxLayout:
        self._status = secondary_label("")
        self._status.setObjectName("reportStatus")
        self._folder = SecondaryButton(self.tr("Show folder"))
        self._folder.clicked.connect(self._open_folder)
        self._folder.hide()
        close = SecondaryButton(self.tr("Close"))
        close.clicked.connect(self.reject)
        self._save = PrimaryButton(self.tr("Save…"))
        self._save.setObjectName("reportSave")
        self._save.setDefault(True)
        self._save.setEnabled(False)
        self._save.clicked.connect(self._choose)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self._status, 1)
        for button in (self._folder, close, self._save):
            row.addWidget(button)
        return row

    def _show(self, texts: dict[str, str]) -> None:
        self._texts = texts
        self._names.addItems(list(texts))
        self._names.setCurrentRow(0)
        self._save.setEnabled(True)

    def _show_text(self, name: str) -> None:
        self._text.setPlainText(self._texts.get(name, ""))

    def _on_error(self, error: Exception) -> None:
        self._save.setEnabled(bool(self._texts))
        self._text.setPlaceholderText("")
        self._status.setText("")
        self._error.show_error(explain(error))

    def _choose(self) -> None:
        name = str(Path.home() / run_report.file_name(self._run))
        chosen, _ = QFileDialog.getSaveFileName(
            self, self.tr("Save the report"), name, self.tr("Zip file (*.zip)")
        )
        if chosen:
            self._write(Path(chosen))

    def _write(self, out: Path) -> None:
        self._error.show_error("")
        self._save.setEnabled(False)
        texts = self._texts

        def saved(_: None) -> None:
            self._save.setEnabled(True)
            self._saved = out
            self._status.setText(self.tr("Saved as {name}.").format(name=out.name))
            self._folder.show()

        run_in_background(lambda: run_report.save(texts, out), saved, self._on_error, self)

    def _open_folder(self) -> None:
        if self._saved is not None:
            open_folder(self._saved.parent)
