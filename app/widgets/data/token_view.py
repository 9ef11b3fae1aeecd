"""A row as the model sees it: its tokens, those that are learned from apart from the others.

Tokens that are learned from stand on green over a line, special ones are chips, and what
`max_length` cuts off is struck out behind a mark. All of it is plain text that can be
selected; signs that no eye sees, or that turn a line around, are written out.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, Literal

from PySide6.QtCore import QEvent, QPoint, QPointF, QRectF, QSignalBlocker, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QFont,
    QFontMetricsF,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QResizeEvent,
    QTextBlock,
    QTextBlockFormat,
    QTextCharFormat,
    QTextCursor,
    QTextLine,
    QTextOption,
)
from PySide6.QtWidgets import QTextEdit, QWidget

from app import theme
from app.i18n import integer
from app.widgets.wording import visible

_CHIP_GAP = 8.0  # pixels behind a chip
_GAP_BEFORE = 5.0
_LINE_HEIGHT = 23
_EDGE = 4  # pixels that a chip reaches above its line
_MARK_SIZE = 9

Style = Literal["trained", "read", "special", "trained_special", "cut_mark", "cut"]
_CHIPS = ("special", "trained_special", "cut_mark")


@dataclass(frozen=True)
class _Piece:
    """A token's place in the document, counted in UTF-16 units as Qt does."""

    begin: int
    end: int
    style: Style
    mark: str
    token: dict[str, Any] | None


class TokenView(QTextEdit):
    """Shows one row as the helper gives it.

    `pointed` says in words which token the mouse or the cursor is at; "" for none.
    """

    pointed = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("tokenView")
        self.setReadOnly(True)
        self.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse
            | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        self.setTabChangesFocus(True)
        self.setUndoRedoEnabled(False)
        self.setFont(theme.mono_font())
        self.setFrameShape(QTextEdit.Shape.NoFrame)
        self.setProperty("bare", True)
        self.setAcceptRichText(False)
        option = self.document().defaultTextOption()
        option.setWrapMode(QTextOption.WrapMode.WrapAtWordBoundaryOrAnywhere)
        option.setTextDirection(Qt.LayoutDirection.LeftToRight)  # the order of the tokens
        self.document().setDefaultTextOption(option)
        self.document().setDocumentMargin(5)
        self.viewport().setMouseTracking(True)
        self.cursorPositionChanged.connect(lambda: self._point(self.textCursor().position()))
        theme.notifier.changed.connect(self._recolour)
        self._pieces: list[_Piece] = []
        self._row: dict[str, Any] | None = None
        self._max_length = 0

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Room for whole lines only: no line is cut through at the lower edge."""
        spare = (self.height() - _EDGE) % _LINE_HEIGHT
        self.setViewportMargins(0, 0, 0, spare)
        super().resizeEvent(event)

    # ---------------------------------------------------------------------------- what to show

    def show_row(self, row: dict[str, Any], max_length: int) -> None:
        """Show a row of the helper's preview."""
        self._row, self._max_length = row, max_length
        self._fill()

    def show_plain(self, text: str) -> None:
        """Show a text that has not been made tokens of."""
        self._row, self._pieces = None, []
        self.setPlainText(visible(text))

    def tokens_shown(self) -> int:
        return sum(piece.token is not None for piece in self._pieces)

    def _fill(self) -> None:
        blocker = QSignalBlocker(self)  # nobody points at anything
        self.clear()
        self._pieces = []
        row = self._row or {"tokens": []}
        cut = row.get("truncated") and "cut_text" in row and _is_whole(row)
        cursor = self.textCursor()
        cursor.beginEditBlock()
        spacing = QTextBlockFormat()
        spacing.setLineHeight(_LINE_HEIGHT, QTextBlockFormat.LineHeightTypes.FixedHeight.value)
        cursor.setBlockFormat(spacing)
        tokens = row["tokens"]
        for place, token in enumerate(tokens):
            mark = token.get("mark") or ""
            following = tokens[place + 1].get("special") if place + 1 < len(tokens) else cut
            self._add(
                cursor,
                token["text"],
                _style(token),
                # Some templates open every turn with the BOS token: only the first is one.
                "" if mark == "bos" and place else mark.upper(),
                {**token, "place": place},
                gap=_GAP_BEFORE if following else 0.0,
            )
        if cut:
            text = self.tr("cut at {count} tokens").format(count=integer(self._max_length))
            self._add(cursor, text, "cut_mark")
            self._add(cursor, row["cut_text"], "cut")
        cursor.endEditBlock()
        self.moveCursor(QTextCursor.MoveOperation.Start)
        blocker.unblock()
        self._show_what_is_learned()

    def _show_what_is_learned(self) -> None:
        """Where the whole does not fit, the first token that is learned from stands in sight."""
        height = self.viewport().height()
        first = next((p for p in self._pieces if p.style in ("trained", "trained_special")), None)
        if first is None or self.document().size().height() <= height:
            return
        cursor = self.textCursor()
        cursor.setPosition(first.begin)
        top = self.cursorRect(cursor).top() + self.verticalScrollBar().value()
        if top > height // 2:
            self.verticalScrollBar().setValue(top - 2 * _LINE_HEIGHT - _EDGE)

    def _add(
        self,
        cursor: QTextCursor,
        text: str,
        style: Style,
        mark: str = "",
        token: dict[str, Any] | None = None,
        gap: float = 0.0,
    ) -> None:
        begin = cursor.position()
        shown = visible(text)
        format = _format(style)
        if style in _CHIPS:
            gap = _CHIP_GAP + (_mark_width(mark) if mark else 0.0)
        if gap and shown and not shown.endswith("\n"):
            # The last sign is spaced out: room for the edge of a chip and for its mark.
            cursor.insertText(shown[:-1], format)
            format.setFontLetterSpacingType(QFont.SpacingType.AbsoluteSpacing)
            format.setFontLetterSpacing(gap)
            shown = shown[-1:]
        cursor.insertText(shown, format)
        self._pieces.append(_Piece(begin, cursor.position(), style, mark, token))

    def _recolour(self) -> None:
        if self._row is not None:
            place = self.verticalScrollBar().value()
            self._fill()
            self.verticalScrollBar().setValue(place)

    # ---------------------------------------------------------------------------- what is asked

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        super().mouseMoveEvent(event)
        self._point(self.cursorForPosition(event.position().toPoint()).position())

    def leaveEvent(self, event: QEvent) -> None:
        super().leaveEvent(event)
        self.pointed.emit("")

    def _point(self, position: int) -> None:
        self.pointed.emit(self.describe(position))

    def describe(self, position: int) -> str:
        """The token at a place of the document, in words."""
        found = bisect_right(self._pieces, position, key=lambda piece: piece.begin) - 1
        if found < 0 or self._pieces[found].token is None:
            return ""
        token = self._pieces[found].token
        assert token is not None
        words = [
            self.tr("token {place}: id {id}").format(
                place=integer(token["place"] + 1), id=token["id"]
            ),
            visible(repr(token["text"])[1:-1]),
            self.tr("learned from") if token["trained"] else self.tr("read only"),
        ]
        if token.get("mark") == "bos":
            words.append(self.tr("begins a text (BOS)"))
        elif token.get("mark") == "eos":
            words.append(self.tr("ends an answer (EOS)"))
        elif token.get("special"):
            words.append(self.tr("special"))
        return ", ".join(words)

    # -------------------------------------------------------------------------------- painting

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self.viewport())
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        block = self.cursorForPosition(QPoint(0, 0)).block()
        seen = QRectF(event.rect()).adjusted(0, -_LINE_HEIGHT, 0, _LINE_HEIGHT)
        shift = -self.horizontalScrollBar().value(), -self.verticalScrollBar().value()
        while block.isValid():
            area = self.document().documentLayout().blockBoundingRect(block).translated(*shift)
            if area.top() > event.rect().bottom():
                break
            self._paint_block(painter, block, area, seen)
            block = block.next()
        painter.end()
        super().paintEvent(event)

    def _paint_block(
        self, painter: QPainter, block: QTextBlock, area: QRectF, seen: QRectF
    ) -> None:
        """What stands behind the tokens of a paragraph, as far as it is seen."""
        layout = block.layout()
        for number in range(layout.lineCount()):
            line = layout.lineAt(number)
            if line.rect().translated(area.topLeft()).intersects(seen):
                self._paint_line(painter, line, block.position(), area.topLeft())

    def _paint_line(
        self, painter: QPainter, line: QTextLine, position: int, corner: QPointF
    ) -> None:
        begin = position + line.textStart()
        end = begin + line.textLength()
        first = max(0, bisect_right(self._pieces, begin, key=lambda piece: piece.begin) - 1)
        while first > 0 and self._pieces[first - 1].end > begin:  # of tokens without a text
            first -= 1
        for piece in itertools.islice(self._pieces, first, None):
            if piece.begin >= end:
                break
            if piece.end > begin and piece.style not in ("read", "cut"):
                low, high = max(piece.begin, begin), min(piece.end, end)
                rect = _rect(line, low - position, high - position).translated(corner)
                self._paint_piece(painter, piece, rect)

    def _paint_piece(self, painter: QPainter, piece: _Piece, rect: QRectF) -> None:
        colours = theme.current()
        painter.setPen(Qt.PenStyle.NoPen)
        if piece.style in ("trained", "trained_special"):
            whole = rect.adjusted(0, -3, 0, 5)
            painter.fillRect(whole, colours.color("token_trained_bg"))
            line = QRectF(whole.left(), whole.bottom() - 1.5, whole.width(), 1.5)
            painter.fillRect(line, colours.color("token_trained_line"))
        if piece.style == "trained":
            return
        chip = rect.adjusted(-3, -2, 4 - _CHIP_GAP, 3)
        if piece.style == "special":
            painter.setBrush(colours.color("token_special_bg"))
        elif piece.style == "cut_mark":
            painter.setPen(QPen(colours.color("careful"), 1))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            chip.adjust(0.5, 0.5, -0.5, -0.5)
        else:
            line_colour = colours.color("token_trained_line")
            line_colour.setAlphaF(0.5)
            painter.setPen(QPen(line_colour, 1))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            chip.adjust(1.5, 2.5, -0.5, 0.5)
        painter.drawRoundedRect(chip, 4, 4)
        if piece.mark:
            painter.setFont(_mark_font())
            trained = piece.style == "trained_special"
            painter.setPen(colours.color("token_trained_line" if trained else "token_read"))
            at = chip.adjusted(0, 0, -4, 0)
            painter.drawText(
                at, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, piece.mark
            )


def _style(token: dict[str, Any]) -> Style:
    if token.get("special"):
        return "trained_special" if token["trained"] else "special"
    return "trained" if token["trained"] else "read"


def _is_whole(row: dict[str, Any]) -> bool:
    """Whether all tokens are there, not only the first."""
    return len(row["tokens"]) == int(row["n_tokens"])


def _format(style: Style) -> QTextCharFormat:
    colours = theme.current()
    roles = {
        "trained": "text", "trained_special": "text", "read": "token_read",
        "special": "token_read", "cut_mark": "careful", "cut": "token_read",
    }  # fmt: skip
    format = QTextCharFormat()
    format.setForeground(QColor(getattr(colours, roles[style])))
    if style == "cut":
        format.setFontStrikeOut(True)
    return format


def _rect(line: QTextLine, begin: int, end: int) -> QRectF:
    """Where a part of a line stands, in whole pixels so that neighbours meet."""
    one, other = line.cursorToX(begin)[0], line.cursorToX(end)[0]  # type: ignore[index]
    left, right = round(min(one, other)), round(max(one, other))
    return QRectF(left, line.y(), right - left, line.height())


def _mark_font() -> QFont:
    return theme.font(_MARK_SIZE, QFont.Weight.DemiBold)


def _mark_width(mark: str) -> float:
    return QFontMetricsF(_mark_font()).horizontalAdvance(mark) + 4
