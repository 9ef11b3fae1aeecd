"""A command to copy: what it does, the command, a button."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt, QTimer
from PySide6.QtGui import QGuiApplication, QResizeEvent, QTextLayout, QTextOption
from PySide6.QtWidgets import QHBoxLayout, QPlainTextEdit, QSizePolicy, QVBoxLayout, QWidget

from app import theme
from app.widgets.card import SecondaryButton, plain_label

COPIED_FOR_MS = 2000
MOST_LINES = 8
ABOVE_AND_BELOW = 22  # the text: margin, padding and border
BESIDE = 2 * (7 + 4) + 2  # padding with the border, margin, and a little
MINIMUM_WIDTH = 160
WRAP = QTextOption.WrapMode.WrapAtWordBoundaryOrAnywhere


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
        self.text.updateGeometry()

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
        self.setWordWrapMode(WRAP)
        policy = QSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)

    def hasHeightForWidth(self) -> bool:
        return True

    def heightForWidth(self, width: int) -> int:
        lines = min(self._lines(width - BESIDE), MOST_LINES)
        return self.fontMetrics().lineSpacing() * lines + ABOVE_AND_BELOW

    def sizeHint(self) -> QSize:
        return QSize(super().sizeHint().width(), self.heightForWidth(self.width()))

    def minimumSizeHint(self) -> QSize:
        return QSize(MINIMUM_WIDTH, self.fontMetrics().lineSpacing() + ABOVE_AND_BELOW)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        shown = Qt.ScrollBarPolicy
        longer = self._lines(self.width() - BESIDE) > MOST_LINES
        self.setVerticalScrollBarPolicy(
            shown.ScrollBarAsNeeded if longer else shown.ScrollBarAlwaysOff
        )

    def _lines(self, width: int) -> int:
        layout = QTextLayout(self.toPlainText().replace("\n", "\u2028"), self.font())
        option = QTextOption()
        option.setWrapMode(WRAP)
        layout.setTextOption(option)
        layout.beginLayout()
        while (line := layout.createLine()).isValid():
            line.setLineWidth(max(width, 1))
        layout.endLayout()
        return max(1, layout.lineCount())
