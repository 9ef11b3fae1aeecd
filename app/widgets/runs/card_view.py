"""A model card as the Hub will show it, near enough: made of plain labels, one a block.

Qt's own reader of Markdown would load pictures and links of whoever wrote the text. Here nothing is
read as markup but the shape of lines: headings, lists, tables, code and the card's own picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from PySide6.QtCore import Qt
from PySide6.QtGui import QFont, QPixmap
from PySide6.QtWidgets import QFrame, QGridLayout, QVBoxLayout, QWidget

from app import theme
from app.widgets.card import plain_label, scroll_area
from training_backend.hub.push_files import PICTURE, front_matter

PICTURE_WIDTH = 460
_Kind = Literal["heading", "text", "item", "code", "table", "picture"]
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]*)\)")
_ESCAPE = re.compile(r"\\([\\`*_\[\]<>|#])")


class CardView(QWidget):
    """Shows a card's text; nothing in it can be clicked."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("cardView")
        self._picture = QPixmap()
        content = QFrame()
        content.setObjectName("scrolled")
        self._column = QVBoxLayout(content)
        self._column.setContentsMargins(16, 12, 16, 16)
        self._column.setSpacing(8)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        self._area = scroll_area(content)
        self._area.setAccessibleName(self.tr("Model card"))
        self._area.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        outer.addWidget(self._area)

    def show_card(self, text: str, picture: bytes | None) -> None:
        """Show this card, from its top; the picture stands where the text names it."""
        self._picture = QPixmap()
        if picture is not None:
            self._picture.loadFromData(picture, "PNG")
        while (item := self._column.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        for kind, part in _blocks(text):
            widget = self._widget(kind, part)
            if widget is not None:
                self._column.addWidget(widget)
        self._column.addStretch(1)
        self._area.verticalScrollBar().setValue(0)

    def _widget(self, kind: _Kind, text: str) -> QWidget | None:
        match kind:
            case "heading":
                level = len(text) - len(text.lstrip("#"))
                label = plain_label(_plain(text.lstrip("# ")), wrap=True)
                label.setFont(theme.font({1: 20, 2: 16}.get(level, 14), QFont.Weight.DemiBold))
                label.setContentsMargins(0, 8 if level > 1 else 0, 0, 0)
                return label
            case "code":
                label = plain_label(text)
                label.setFont(theme.mono_font(12))
                label.setContentsMargins(12, 4, 12, 4)
                label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
                label.setWordWrap(True)
                return label
            case "table":
                return _table(text)
            case "picture":
                return self._shown_picture()
            case "item":
                return plain_label(f"•  {_plain(text)}", wrap=True)
        return plain_label(_plain(text), wrap=True)

    def _shown_picture(self) -> QWidget | None:
        if self._picture.isNull():
            return None
        label = plain_label()
        label.setAccessibleName(self.tr("Loss over the steps"))
        ratio = self.devicePixelRatioF()
        scaled = self._picture.scaledToWidth(
            round(PICTURE_WIDTH * ratio), Qt.TransformationMode.SmoothTransformation
        )
        scaled.setDevicePixelRatio(ratio)
        label.setPixmap(scaled)
        return label


def _blocks(text: str) -> Iterator[tuple[_Kind, str]]:
    """The blocks of a card without its head, each with its kind."""
    head = front_matter(text)
    if head is not None:
        text = text[text.index(head) + len(head) :].lstrip("\r\n").removeprefix("---")
    lines = _COMMENT.sub("", text).splitlines()
    gathered: list[str] = []
    kind: _Kind = "text"

    def flush() -> Iterator[tuple[_Kind, str]]:
        if gathered:
            yield kind, ("\n" if kind in ("code", "table") else " ").join(gathered)
            gathered.clear()

    in_code = False
    for line in lines:
        stripped = line.strip()
        if stripped.startswith("```"):
            yield from flush()
            in_code, kind = not in_code, "text" if in_code else "code"
        elif in_code:
            gathered.append(line)
        elif not stripped:
            yield from flush()
        elif stripped.startswith("#"):
            yield from flush()
            yield "heading", stripped
        elif re.fullmatch(rf"!\[[^\]]*\]\({re.escape(PICTURE)}\)", stripped):
            yield from flush()
            yield "picture", ""
        elif stripped.startswith(("- ", "* ")):
            yield from flush()
            yield "item", stripped[2:]
        else:
            wanted: _Kind = "table" if stripped.startswith("|") else "text"
            if wanted != kind:
                yield from flush()
                kind = wanted
            gathered.append(stripped)
    yield from flush()


def _table(text: str) -> QWidget:
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        for line in text.splitlines()
    ]
    rows = [row for row in rows if not all(re.fullmatch(r":?-*:?", cell) for cell in row)]
    table = QFrame()
    grid = QGridLayout(table)
    grid.setContentsMargins(0, 0, 0, 0)
    grid.setHorizontalSpacing(16)
    grid.setVerticalSpacing(4)
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            label = plain_label(_plain(cell), wrap=column == 0)
            if number == 0:
                label.setProperty("role", "secondary")
            grid.addWidget(label, number, column, Qt.AlignmentFlag.AlignTop)
    grid.setColumnStretch(0, 1)
    return table


def _plain(text: str) -> str:
    """Without the marks of Markdown that stand within a line."""
    text = _LINK.sub(r"\1", text)
    text = re.sub(r"(?<!\\)`|(?<!\\)\*\*", "", text)
    return _ESCAPE.sub(r"\1", text)
