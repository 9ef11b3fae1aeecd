"""Rows as the conversations that they become, answers marked as what is learned from."""

from __future__ import annotations

import json
from collections.abc import Iterator

from PySide6.QtCore import QCoreApplication
from PySide6.QtGui import (
    QColor,
    QFont,
    QTextBlockFormat,
    QTextCharFormat,
    QTextCursor,
    QTextFrameFormat,
    QTextLength,
    QTextTableFormat,
)
from PySide6.QtWidgets import QTextEdit, QWidget

from app import theme
from app.i18n import integer
from app.widgets.data.data_words import turn_title
from training_backend.data.mapping import Message

SHOWN_CHARACTERS = 320  # of a turn
ROLE_WIDTH = 88
ROW_GAP = 12


class ConversationView(QTextEdit):
    """A few rows, one below the other; in place of one that cannot be used stands why.

    Text goes in as plain text, whatever it holds.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setReadOnly(True)
        self.setTabChangesFocus(True)
        self.setUndoRedoEnabled(False)
        self.document().setDocumentMargin(8)
        self._rows: list[list[Message] | str] = []
        theme.notifier.changed.connect(self._draw)

    def show_rows(self, rows: list[list[Message] | str]) -> None:
        """Show each row's messages, or the sentence that says why it has none."""
        if rows != self._rows:
            self._rows = rows
            self._draw()

    def _draw(self) -> None:
        place = self.verticalScrollBar().value()  # nothing jumps while a text is typed
        self.clear()
        cursor = QTextCursor(self.document())
        colors = theme.current()
        for number, row in enumerate(self._rows, start=1):
            if number > 1:
                cursor.insertBlock()
            apart = QTextBlockFormat()
            apart.setTopMargin(0 if number == 1 else ROW_GAP)
            cursor.setBlockFormat(apart)
            head = QCoreApplication.translate("ConversationView", "Row {number}")
            cursor.insertText(head.format(number=integer(number)), _style(colors.secondary))
            if isinstance(row, str):
                cursor.insertBlock(QTextBlockFormat())
                cursor.insertText(row, _style(colors.careful))
            else:
                self._draw_turns(cursor, list(_turns(row)))
        self.moveCursor(QTextCursor.MoveOperation.Start)  # it has gone along with the text
        self.verticalScrollBar().setValue(place)

    def _draw_turns(self, cursor: QTextCursor, turns: list[tuple[str, str, bool]]) -> None:
        colors = theme.current()
        shape = QTextTableFormat()
        shape.setBorder(0)
        shape.setBorderStyle(QTextFrameFormat.BorderStyle.BorderStyle_None)
        shape.setCellSpacing(0)
        shape.setCellPadding(2)
        shape.setLeftMargin(-2)
        shape.setWidth(QTextLength(QTextLength.Type.PercentageLength, 100))
        shape.setColumnWidthConstraints(
            [
                QTextLength(QTextLength.Type.FixedLength, ROLE_WIDTH),
                QTextLength(QTextLength.Type.VariableLength, 1),
            ]
        )
        table = cursor.insertTable(len(turns), 2, shape)
        for place, (who, text, learned) in enumerate(turns):
            who_style = _style(colors.secondary)
            who_style.setFontWeight(QFont.Weight.Medium)
            table.cellAt(place, 0).firstCursorPosition().insertText(who, who_style)
            style = _style(colors.text)
            if learned:
                style.setBackground(QColor(colors.token_trained_bg))
                style.setUnderlineStyle(QTextCharFormat.UnderlineStyle.SingleUnderline)
                style.setUnderlineColor(QColor(colors.token_trained_line))
            shown = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]} …"
            table.cellAt(place, 1).firstCursorPosition().insertText(shown, style)
        cursor.movePosition(QTextCursor.MoveOperation.End)


def _turns(messages: list[Message]) -> Iterator[tuple[str, str, bool]]:
    """Who says what, and whether it is learned from."""
    for message in messages:
        role = message["role"]
        learned = role in ("assistant", "text") and message.get("weight", 1) != 0
        if reasoning := message.get("reasoning_content"):
            yield QCoreApplication.translate("ConversationView", "Reasoning"), reasoning, learned
        if calls := message.get("tool_calls"):
            title = QCoreApplication.translate("ConversationView", "Calls a tool")
            yield title, json.dumps(calls, ensure_ascii=False), learned
        if message["content"] or not (reasoning or calls):
            yield turn_title(role), message["content"], learned


def _style(color: str) -> QTextCharFormat:
    style = QTextCharFormat()
    style.setForeground(QColor(color))
    return style
