"""A command to copy: what it does, the command, a button."""

from __future__ import annotations

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QGuiApplication, QResizeEvent, QTextOption
from PySide6.QtWidgets import QHBoxLayout, QPlainTextEdit, QVBoxLayout, QWidget

from app import theme
from app.widgets.card import SecondaryButton, plain_label

COPIED_FOR_MS = 2000
MOST_LINES = 8
PADDING = 22  # above and below the text, with the border


class CommandBox(QWidget):
    """The command wraps where there is no room; it is copied as it is, on one line."""

    def __init__(self, does: str, command: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.text = _CommandText(command)
        self.text.setAccessibleName(does)
        self._copy = SecondaryButton(self.tr("Copy"))
        self._copy.setAccessibleName(self.tr("Copy the command: {does}").format(does=does))
        self._copy.clicked.connect(self._copy_text)
        head = QHBoxLayout()
        head.setSpacing(8)
        head.addWidget(plain_label(does), 1)
        head.addWidget(self._copy)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(head)
        column.addWidget(self.text)

    def set_command(self, command: str) -> None:
        self.text.setPlainText(command)
        self.text.fit()

    def _copy_text(self) -> None:
        QGuiApplication.clipboard().setText(self.text.toPlainText())
        self._copy.setText(self.tr("Copied"))
        QTimer.singleShot(COPIED_FOR_MS, self, lambda: self._copy.setText(self.tr("Copy")))


class _CommandText(QPlainTextEdit):
    """As high as its text, up to some lines."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.setReadOnly(True)
        self.setTabChangesFocus(True)
        self.setFont(theme.mono_font(12))
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWordWrapMode(QTextOption.WrapMode.WrapAtWordBoundaryOrAnywhere)
        self.fit()

    def fit(self) -> None:
        lines = round(self.document().size().height())  # of a plain text it is counted in lines
        shown = Qt.ScrollBarPolicy
        self.setVerticalScrollBarPolicy(
            shown.ScrollBarAsNeeded if lines > MOST_LINES else shown.ScrollBarAlwaysOff
        )
        height = self.fontMetrics().lineSpacing() * max(1, min(lines, MOST_LINES)) + PADDING
        if height != self.height():
            self.setFixedHeight(height)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.fit()
