"""What the run said, line by line, in a card that folds."""

from __future__ import annotations

from PySide6.QtCore import QDateTime, QLocale
from PySide6.QtWidgets import QPlainTextEdit, QWidget

from app import theme
from app.widgets.card import Card, QuietButton

MOST_LINES = 5_000
HEIGHT = 180


class LogCard(Card):
    """Collects lines and writes them all at once on `flush`."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.set_title(self.tr("Log"))
        self._pending: list[str] = []
        self.view = QPlainTextEdit()
        self.view.setObjectName("logView")
        self.view.setAccessibleName(self.tr("Log"))
        self.view.setReadOnly(True)
        self.view.setTabChangesFocus(True)
        self.view.setFont(theme.mono_font(12))
        self.view.setMaximumBlockCount(MOST_LINES)
        self.view.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.view.setPlaceholderText(self.tr("What the training says appears here."))
        self.view.setFixedHeight(HEIGHT)
        self.body.addWidget(self.view)
        self._fold = QuietButton(self.tr("Hide"))
        self._fold.setAccessibleName(self.tr("Show or hide the log"))
        self._fold.clicked.connect(lambda: self.set_folded(self.view.isVisibleTo(self)))
        self.add_right(self._fold)

    def set_folded(self, folded: bool) -> None:
        self.view.setVisible(not folded)
        self._fold.setText(self.tr("Show") if folded else self.tr("Hide"))

    def clear(self) -> None:
        self._pending.clear()
        self.view.clear()

    def add(self, unix_seconds: float, text: str) -> None:
        """Note a line with the time of day; it shows at the next `flush`."""
        self._pending.append(f"{_time_of_day(unix_seconds)}  {text}")

    def flush(self) -> None:
        if self._pending:
            lines, self._pending = self._pending[-MOST_LINES:], []
            self.view.appendPlainText("\n".join(lines))


class LogTail(QPlainTextEdit):
    """The last words of a worker that died: a few lines of plain text."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setReadOnly(True)
        self.setTabChangesFocus(True)
        self.setFont(theme.mono_font(12))
        self.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.setFixedHeight(120)
        self.setAccessibleName(self.tr("The last lines of the worker's log"))

    def show_tail(self, text: str) -> None:
        """The end is what matters; it comes into view."""
        self.setPlainText(text)
        self.setVisible(bool(text))
        self.verticalScrollBar().setValue(self.verticalScrollBar().maximum())


def _time_of_day(unix_seconds: float) -> str:
    moment = QDateTime.fromSecsSinceEpoch(int(unix_seconds)).time()
    return QLocale.c().toString(moment, "HH:mm:ss")
