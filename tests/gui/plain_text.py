"""Looks through everything on screen for text from outside, and for what would read it as markup.

HOSTILE begins so that its `CORE` has the tag before it wherever it stands as text; where it was
taken for markup the tag is gone. What cannot be seen (a turn of the writing direction) must be
written out.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel
from PySide6.QtCore import QAbstractListModel, QModelIndex, Qt
from PySide6.QtGui import QAction, QTextDocument
from PySide6.QtGui import Qt as GuiQt  # whether a text might be markup is asked of this one
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QComboBox,
    QGraphicsTextItem,
    QGraphicsView,
    QGroupBox,
    QHeaderView,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QTabWidget,
    QTextEdit,
    QWidget,
)

CORE = "H0ST"
NAME = f"<b>{CORE}<img src=x>&lt;i&gt; \u202egnp.txt"  # may stand in the name of a file
HOSTILE = f'<b>{CORE}</b>&lt;i&gt;<img src="file:///etc/hostname"> \u202egnp.\u202c\nR & D'
LONG = HOSTILE + " " + "ab<b>" * 2_000

_EATEN = re.compile(rf"(?<!<b>)(?<!<b>\u200b)(?<!<\u200bb>){CORE}")
_TURNS = re.compile("[\u202a-\u202e\u2066-\u2069]")
_MOST_ROWS = 60


@dataclass
class Found:
    """What was seen: the kinds of places that showed the text, and what was wrong where."""

    seen: set[str] = field(default_factory=set)
    wrong: set[str] = field(default_factory=set)

    def look(self, root: QWidget, *, at: str) -> None:
        """Everything in a window, a page or a dialog, hidden parts too."""
        for widget in (root, *root.findChildren(QWidget)):
            for kind, text, rich in _texts(widget):
                self._judge(f"{kind} of {_path(widget)}", at, kind, text, rich)

    def _judge(self, where: str, at: str, kind: str, text: str, rich: bool) -> None:
        if rich:
            self.wrong.add(f"{where} could be markup: {text[:80]!r}")
        if CORE not in text:
            return
        self.seen |= {kind, at}
        if _EATEN.search(text):
            self.wrong.add(f"{where} was read as markup: {text[:80]!r}")
        if _TURNS.search(text) and kind not in _AS_TYPED:
            self.wrong.add(f"{where} turns the direction of writing: {text[:80]!r}")


# What a person edits stands there as it is; so does what a program reads aloud.
_AS_TYPED = {"QLineEdit", "editable", "QPlainTextEdit", "accessible name", "window title"}


def _texts(widget: QWidget) -> Iterator[tuple[str, str, bool]]:
    """Kind of place, its text, and whether Qt might take it for markup."""
    for kind, text in (
        ("tool tip", widget.toolTip()),
        ("status tip", widget.statusTip()),
        ("what's this", widget.whatsThis()),
    ):
        yield kind, text, GuiQt.mightBeRichText(text)
    yield "accessible name", widget.accessibleName(), False
    yield "window title", widget.windowTitle(), False
    for action in widget.actions():
        yield from _of_action(action)
    match widget:
        case QLabel():
            plain = widget.textFormat() == Qt.TextFormat.PlainText
            yield "QLabel", widget.text(), not plain and GuiQt.mightBeRichText(widget.text())
        case QAbstractButton():
            yield "button", widget.text(), False
        case QGroupBox():
            yield "QGroupBox", widget.title(), False
        case QLineEdit():
            yield "QLineEdit", widget.text() + widget.placeholderText(), False
        case QPlainTextEdit():
            yield "QPlainTextEdit", widget.toPlainText(), _has_markup(widget.document())
            yield "placeholder", widget.placeholderText(), False
        case QTextEdit():
            yield "QTextEdit", widget.toPlainText(), _has_markup(widget.document())
            yield "placeholder", widget.placeholderText(), False
        case QComboBox():
            kind = "editable" if widget.isEditable() else "QComboBox"
            for row in range(widget.count()):
                yield kind, widget.itemText(row), False
                yield from _tips(widget.model().index(row, 0))
        case QHeaderView():
            pass  # its table tells
        case QAbstractItemView() if widget.model() is not None:
            yield from _of_view(widget)
        case QTabWidget():
            for tab in range(widget.count()):
                yield "tab", widget.tabText(tab), False
        case QGraphicsView():
            for item in widget.scene().items() if widget.scene() else ():
                tip = item.toolTip()
                yield "tool tip", tip, GuiQt.mightBeRichText(tip)
                if isinstance(item, QGraphicsTextItem):
                    yield "chart", item.toPlainText(), _has_markup(item.document())


def _of_action(action: QAction) -> Iterator[tuple[str, str, bool]]:
    yield "menu", action.text(), False
    for text in (action.toolTip(), action.statusTip()):
        if text != action.text():  # Qt's own tip of an action without one is its text
            yield "tool tip", text, GuiQt.mightBeRichText(text)


def _of_view(view: QAbstractItemView) -> Iterator[tuple[str, str, bool]]:
    model = view.model()
    root = QModelIndex()
    rows = min(model.rowCount(root), _MOST_ROWS)
    columns = 1 if isinstance(model, QAbstractListModel) else model.columnCount(root)
    for direction, count in ((Qt.Orientation.Horizontal, columns), (Qt.Orientation.Vertical, rows)):
        for section in range(count):
            for role, kind in ((Qt.ItemDataRole.DisplayRole, "header"), (_TIP, "tool tip")):
                text = model.headerData(section, direction, role)
                if isinstance(text, str):
                    yield kind, text, role == _TIP and GuiQt.mightBeRichText(text)
    for row in range(rows):
        for column in range(columns):
            index = model.index(row, column)
            text = index.data()
            if isinstance(text, str):
                yield "table", text, False
            yield from _tips(index)


_TIP = Qt.ItemDataRole.ToolTipRole


def _tips(index: QModelIndex) -> Iterator[tuple[str, str, bool]]:
    for role in (_TIP, Qt.ItemDataRole.StatusTipRole, Qt.ItemDataRole.WhatsThisRole):
        text = index.data(role)
        if isinstance(text, str):
            yield "tool tip", text, GuiQt.mightBeRichText(text)


def _has_markup(document: QTextDocument) -> bool:
    """Pictures and links; colours and weights may be ours."""
    block = document.begin()
    while block.isValid():
        fragments = block.begin()
        while not fragments.atEnd():
            form = fragments.fragment().charFormat()
            if form.isImageFormat() or form.isAnchor():
                return True
            fragments += 1
        block = block.next()
    return False


def _path(widget: QWidget) -> str:
    names = []
    part: QWidget | None = widget
    while part is not None:
        names.append(part.objectName() or type(part).__name__)
        part = part.parentWidget()
    return "/".join(reversed(names))


def hostile_model(kind: type[BaseModel], text: str = LONG) -> Any:
    """One of these with the text wherever a text may be, and something in every other field."""
    return kind(**{name: _value(info.annotation, text) for name, info in kind.model_fields.items()})


def _value(annotation: Any, text: str) -> Any:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return arguments[0]
    if origin in (types.UnionType, typing.Union):
        return _value(arguments[0], text)
    if origin is tuple:
        return (_value(arguments[0], text),) * 2
    if origin is dict:
        return {"a": _value(arguments[1], text)} if arguments[1] is int else {text: text}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return hostile_model(annotation, text)
    return {str: text, int: 5, float: 0.5, bool: False}[annotation]
