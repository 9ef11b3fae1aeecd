"""The table that base models are chosen from, with a word of where to go when it is empty."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QBrush, QColor, QIcon, QPainter, QPen, QPixmap, QResizeEvent
from PySide6.QtWidgets import (
    QHeaderView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.models.models_model import (
    BADGE_ROLE,
    ENTRY_ROLE,
    FIT,
    LICENCE,
    MODEL,
    PARAMETERS,
    SIZE,
    STATE,
    Badge,
    Filters,
    FoundModels,
    ModelsModel,
    badge_role,
)
from app.widgets.card import SecondaryButton, plain_label, secondary_label
from app.widgets.list_table import ListTable
from training_backend.models.catalog_entry import CatalogEntry

_WIDTHS = {PARAMETERS: 112, SIZE: 88, LICENCE: 120, STATE: 138, FIT: 142}
_SHAPE = 10.0
_GAP = 10


class ModelTable(ListTable):
    """One row a model; `chosen` comes when the person moves to another row."""

    chosen = Signal(object)  # CatalogEntry
    typed = Signal(str)  # letters, which are words to look for
    clear_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("modelTable")
        self.setAccessibleName(self.tr("Models to choose from"))
        self.models = ModelsModel()
        self.found = FoundModels(self.models)
        self.setModel(self.found)
        self.setSortingEnabled(True)
        self.sortByColumn(
            -1, Qt.SortOrder.AscendingOrder
        )  # as they come, until a header is pressed
        header = self.horizontalHeader()
        header.setSectionResizeMode(MODEL, QHeaderView.ResizeMode.Stretch)
        header.setMinimumSectionSize(64)
        for column, width in _WIDTHS.items():
            self.setColumnWidth(column, width)
        self.setItemDelegateForColumn(MODEL, _NameDelegate(self))
        self.setItemDelegateForColumn(FIT, _BadgeDelegate(self))
        self._telling = True
        self.selectionModel().currentRowChanged.connect(self._on_current)
        self._empty = _Empty(self.viewport())
        self._empty.button.clicked.connect(self.clear_requested)
        for changed in (self.found.rowsInserted, self.found.rowsRemoved, self.found.modelReset):
            changed.connect(self._show_whether_empty)

    def show_models(self, entries: list[CatalogEntry], paused: set[str], chosen: str) -> None:
        """Show these, with one of them selected; what is in view stays in view."""
        scrolled = self.verticalScrollBar().value()
        self._telling = False
        self.models.show_models(entries, paused)
        self._telling = True
        self.select(chosen, scroll=False)
        self.verticalScrollBar().setValue(scrolled)

    def narrow(self, query: str, filters: Filters, chosen: str) -> None:
        """Show only what fits the words and filters."""
        self._telling = False
        self.found.narrow(query, filters)
        self._telling = True
        self._empty.say(query, filters)
        self._show_whether_empty()
        self.select(chosen)

    def select(self, id: str, *, scroll: bool = True) -> None:
        """Select the model of this id, or nothing when it is not in view."""
        row = self.models.row_of(id)
        index = self.found.mapFromSource(self.models.index(row, 0)) if row >= 0 else QModelIndex()
        self._telling = False
        if index.isValid():
            self.setCurrentIndex(index)
            if scroll:
                self.scrollTo(index)
        else:
            self.clearSelection()
            self.setCurrentIndex(QModelIndex())
        self._telling = True

    def take_first(self) -> None:
        """Choose the first of those in view and go on with the keyboard from there."""
        if self.found.rowCount():
            self.setFocus()
            self.setCurrentIndex(self.found.index(0, 0))

    def keyboardSearch(self, search: str) -> None:
        self.typed.emit(search)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._empty.resize(self.viewport().size())
        if self.currentIndex().isValid():  # the cards below grow with what is chosen
            self.scrollTo(self.currentIndex())

    def _on_current(self, current: QModelIndex, _: QModelIndex) -> None:
        if self._telling and current.isValid():
            self.chosen.emit(current.data(ENTRY_ROLE))

    def _show_whether_empty(self) -> None:
        self._empty.setVisible(self.found.rowCount() == 0 and self.models.rowCount() > 0)


class _Empty(QWidget):
    """In place of the rows: that there are none, and the next step."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._title = plain_label()
        self._hint = secondary_label(wrap=True)
        self.button = SecondaryButton(self.tr("Show all models"))
        self.button.setObjectName("modelShowAll")
        column = QVBoxLayout(self)
        column.setSpacing(8)
        column.addStretch(1)
        for part in (self._title, self._hint):
            part.setAlignment(Qt.AlignmentFlag.AlignHCenter)
            column.addWidget(part)
        column.addWidget(self.button, 0, Qt.AlignmentFlag.AlignHCenter)
        column.addStretch(1)
        self.hide()

    def say(self, query: str, filters: Filters) -> None:
        words = " ".join(query.split())
        if len(words) > 60:
            words = words[:59] + "…"
        filtered = filters != Filters()
        if words and filtered:
            title = self.tr("No model matches “{words}” and the filters.").format(words=words)
        elif words:
            title = self.tr("No model matches “{words}”.").format(words=words)
        else:
            title = self.tr("No model passes these filters.")
        self._title.setText(title)
        self._hint.setText(
            self.tr(
                "A model that is not listed is taken by its whole name, owner/name, or its folder."
            )
        )


class _NameDelegate(QStyledItemDelegate):
    """The title, and greyed behind it where the model is from."""

    def paint(
        self,
        painter: QPainter,
        option: QStyleOptionViewItem,
        index: QModelIndex | QPersistentModelIndex,
    ) -> None:
        self.initStyleOption(option, index)
        title, option.text = option.text, ""
        option.widget.style().drawControl(
            QStyle.ControlElement.CE_ItemViewItem, option, painter, option.widget
        )
        entry: CatalogEntry = index.data(ENTRY_ROLE)
        colors = theme.current()
        room = option.rect.adjusted(8, 0, -8, 0)
        metrics = option.fontMetrics
        shown = metrics.elidedText(title, Qt.TextElideMode.ElideMiddle, room.width())
        painter.save()
        painter.setFont(option.font)
        painter.setPen(QColor(colors.disabled if entry.problem else colors.text))
        flags = Qt.AlignmentFlag.AlignVCenter | Qt.TextFlag.TextSingleLine
        painter.drawText(room, flags, shown)
        room.setLeft(room.left() + metrics.horizontalAdvance(shown) + _GAP)
        second = _second(entry)
        if second and room.width() > 60:
            painter.setPen(QColor(colors.disabled if entry.problem else colors.secondary))
            short = metrics.elidedText(second, Qt.TextElideMode.ElideMiddle, room.width())
            painter.drawText(room, flags, short)
        painter.restore()


class _BadgeDelegate(QStyledItemDelegate):
    """A shape of its own in front of each word, for who does not see the colour."""

    def initStyleOption(
        self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        super().initStyleOption(option, index)
        badge: Badge = index.data(BADGE_ROLE)
        if badge != "unknown" and not index.data(ENTRY_ROLE).problem:
            option.features |= QStyleOptionViewItem.ViewItemFeature.HasDecoration
            option.decorationSize = QSize(14, 14)
            option.icon = QIcon(badge_pixmap(badge))


def badge_pixmap(badge: Badge) -> QPixmap:
    """Full, half full, a quarter full, crossed: comfortable, tight, in 4-bit, does not fit."""
    scale = 2
    drawn = QPixmap(14 * scale, 14 * scale)
    drawn.setDevicePixelRatio(scale)
    drawn.fill(Qt.GlobalColor.transparent)
    color = theme.current().color(badge_role(badge))
    painter = QPainter(drawn)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    circle = QRectF(2, 2, _SHAPE, _SHAPE)
    painter.setPen(QPen(color, 1.5))
    painter.drawEllipse(circle)
    painter.setBrush(QBrush(color))
    if badge == "does_not_fit":
        painter.drawLine(QPointF(4.6, 4.6), QPointF(9.4, 9.4))
        painter.drawLine(QPointF(9.4, 4.6), QPointF(4.6, 9.4))
    else:
        share = {"comfortable": 360, "tight": 180, "fits_in_4bit": 90}.get(badge, 0)
        painter.drawPie(circle, 90 * 16, -share * 16)
    painter.end()
    return drawn


def _second(entry: CatalogEntry) -> str:
    if entry.source == "folder" and entry.location is not None:
        return str(entry.location.parent)
    if entry.id != entry.title and "/" in entry.id:
        return entry.id
    return entry.family
