"""What keeps a source of data from being read, with the one change that may help."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QWidget

from app.i18n import explain
from app.widgets.card import ErrorLabel, SecondaryButton
from training_backend.data.table import LEAVE_OUT, can_be_left_out


class SourceProblem(QWidget):
    """One sentence below the path; nothing while there is nothing to say."""

    leave_out_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._label = ErrorLabel("error_dataset_path")
        self._leave_out = SecondaryButton(self.tr("Leave out bad lines"))
        self._leave_out.setObjectName("leaveOutBadLines")
        self._leave_out.clicked.connect(self.leave_out_requested)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(16)
        row.addWidget(self._label, 1)
        row.addWidget(self._leave_out, 0, Qt.AlignmentFlag.AlignTop)
        self.show_words("")

    def show_words(self, words: str) -> None:
        self._label.show_error(words)
        self._leave_out.hide()
        self.setVisible(bool(words))

    def show_problem(self, error: Exception) -> None:
        """Say it; a line that may be left out has its button."""
        helps = can_be_left_out(error)
        words = explain(error)
        self.show_words(words.removesuffix(LEAVE_OUT).rstrip() if helps else words)
        self._leave_out.setVisible(helps)
