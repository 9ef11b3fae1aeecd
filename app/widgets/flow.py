"""A row of small parts that goes on in the next line where there is no room left."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QRect, QSize, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QLayout, QLayoutItem, QWidget

from app.widgets.card import plain_label


class FlowLayout(QLayout):
    """Parts keep the width that they ask for, up to the whole line; all are 32 high or so."""

    def __init__(self, parent: QWidget | None = None, *, gap: int = 16, line_gap: int = 8) -> None:
        super().__init__(parent)
        self.setContentsMargins(0, 0, 0, 0)
        self._items: list[QLayoutItem] = []
        self._gap = gap
        self._line_gap = line_gap

    def addItem(self, item: QLayoutItem) -> None:
        self._items.append(item)

    def count(self) -> int:
        return len(self._items)

    def itemAt(self, index: int) -> QLayoutItem | None:
        return self._items[index] if 0 <= index < len(self._items) else None

    def takeAt(self, index: int) -> QLayoutItem | None:
        return self._items.pop(index) if 0 <= index < len(self._items) else None

    def expandingDirections(self) -> Qt.Orientation:
        return Qt.Orientation(0)

    def hasHeightForWidth(self) -> bool:
        return True

    def heightForWidth(self, width: int) -> int:
        return self._place(QRect(0, 0, width, 0), move=False)

    def setGeometry(self, rect: QRect) -> None:
        super().setGeometry(rect)
        self._place(rect, move=True)

    def sizeHint(self) -> QSize:
        shown = [item.sizeHint() for item in self._items if not item.isEmpty()]
        width = sum(size.width() + self._gap for size in shown) - self._gap
        return QSize(max(0, width), max((size.height() for size in shown), default=0))

    def minimumSize(self) -> QSize:
        shown = [item.minimumSize() for item in self._items if not item.isEmpty()]
        return QSize(
            max((size.width() for size in shown), default=0),
            max((size.height() for size in shown), default=0),
        )

    def _place(self, rect: QRect, *, move: bool) -> int:
        """Puts the parts into lines; the height that they take."""
        left, top, line = rect.x(), rect.y(), 0
        for item in self._items:
            if item.isEmpty():  # hidden
                continue
            size = item.sizeHint()
            width = min(size.width(), rect.width())
            if left > rect.x() and left + width > rect.x() + rect.width():
                left, top, line = rect.x(), top + line + self._line_gap, 0
            if move:
                item.setGeometry(QRect(left, top, width, size.height()))
            left += width + self._gap
            line = max(line, size.height())
        return top + line - rect.y()


class FlowRow(QWidget):
    """A widget of parts in a flow that never gets less height than its lines need.

    Layouts around it do not know: their minimum is that of one line.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._flow = FlowLayout(self)

    def add(self, part: QWidget) -> None:
        self._flow.addWidget(part)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def event(self, event: QEvent) -> bool:
        done = super().event(event)
        if event.type() == QEvent.Type.LayoutRequest:  # a part came, went or changed
            self._fit()
        return done

    def _fit(self) -> None:
        self.setMinimumHeight(self._flow.heightForWidth(self.width()))


def labelled(title: str, *inputs: QWidget) -> QWidget:
    """Inputs with a label in front, which goes to the first of them."""
    whole = QWidget()
    row = QHBoxLayout(whole)
    row.setContentsMargins(0, 0, 0, 0)
    row.setSpacing(8)
    label = plain_label(title)
    label.setProperty("role", "secondary")
    label.setBuddy(inputs[0])
    row.addWidget(label)
    for part in inputs:
        row.addWidget(part)
    return whole
