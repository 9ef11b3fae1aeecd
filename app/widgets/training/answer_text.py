"""An answer as plain text of its own height, in which some words can be marked."""

from __future__ import annotations

import math

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QResizeEvent, QTextCharFormat, QTextCursor, QTextOption
from PySide6.QtWidgets import QFrame, QSizePolicy, QTextEdit, QWidget

from app import theme
from app.models.told_answers import changed_words
from app.widgets.wording import visible


class AnswerText(QTextEdit):
    """As high as its text, which can be selected and is never read as markup."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setReadOnly(True)
        self.setAcceptRichText(False)
        self.setUndoRedoEnabled(False)
        self.setTabChangesFocus(True)
        self.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse
            | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setProperty("bare", True)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWordWrapMode(QTextOption.WrapMode.WrapAtWordBoundaryOrAnywhere)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.document().setDocumentMargin(0)
        self.document().documentLayout().documentSizeChanged.connect(lambda _: self._fit())
        self._before: str | None = None
        theme.notifier.changed.connect(self._mark)

    def show_answer(self, text: str, before: str | None = None) -> None:
        """Show it; words that are not so in `before` are marked."""
        text, self._before = visible(text), None if before is None else visible(before)
        if text != self.toPlainText():
            self.setPlainText(text)
        self.setProperty("role", "")
        self.style().polish(self)
        self._mark()

    def show_note(self, text: str) -> None:
        """Say why there is no answer."""
        self._before = None
        self.setPlainText(text)
        self.setProperty("role", "secondary")
        self.style().polish(self)
        self._mark()

    def marked(self) -> list[str]:
        """The words that are marked."""
        text = self.toPlainText()
        return [text[begin:end] for begin, end in self._changes()]

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def minimumSizeHint(self) -> QSize:
        return QSize(0, self.sizeHint().height())

    def _changes(self) -> list[tuple[int, int]]:
        return [] if self._before is None else changed_words(self._before, self.toPlainText())

    def _mark(self) -> None:
        """A soft ground, and a line below: colour alone would not do."""
        colours = theme.current()
        whole = QTextCursor(self.document())
        whole.select(QTextCursor.SelectionType.Document)
        whole.setCharFormat(QTextCharFormat())
        marked = QTextCharFormat()
        marked.setBackground(colours.color("accent_soft"))
        marked.setUnderlineStyle(QTextCharFormat.UnderlineStyle.DotLine)
        marked.setUnderlineColor(colours.color("accent"))
        text = self.toPlainText()
        for begin, end in self._changes():
            # Qt counts in units of UTF-16.
            cursor = QTextCursor(self.document())
            cursor.setPosition(_units(text[:begin]))
            cursor.setPosition(_units(text[:end]), QTextCursor.MoveMode.KeepAnchor)
            cursor.setCharFormat(marked)

    def _fit(self) -> None:
        edges = self.height() - self.viewport().height()
        height = math.ceil(self.document().size().height()) + max(0, edges)
        if height != self.height():
            self.setFixedHeight(height)


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
