"""The plain parts that every page is made of: cards, labels, buttons, the page's head."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QSize, Qt
from PySide6.QtGui import QFont, QResizeEvent
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.widgets.wording import sentence, visible

PAGE_MARGIN = 24
CARD_GAP = 16
CARD_PADDING = 16


class Card(QFrame):
    """A panel with a title row and a body.

    The title row holds the title, `add_legend` widgets right after it and `add_right`
    widgets at its far end. A card without a title has no title row until one of those
    is used. What the card shows goes into `body`.
    """

    def __init__(self, title: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._flexible = False
        outer = QVBoxLayout(self)
        outer.setContentsMargins(CARD_PADDING, 12, CARD_PADDING, CARD_PADDING)
        outer.setSpacing(8)
        self._head = QWidget()
        self._head.setVisible(bool(title))
        row = QHBoxLayout(self._head)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(16)
        self.title = card_title(title)
        row.addWidget(self.title)
        self._legend = QHBoxLayout()
        self._legend.setSpacing(16)
        row.addLayout(self._legend)
        row.addStretch(1)
        self._right = QHBoxLayout()
        self._right.setSpacing(16)
        row.addLayout(self._right)
        outer.addWidget(self._head)
        self.body = QVBoxLayout()
        self.body.setSpacing(8)
        outer.addLayout(self.body, 1)

    def set_flexible(self, minimum_height: int) -> None:
        """Take the height that is left over, whatever the texts in it would like."""
        self._flexible = True
        self.setMinimumHeight(minimum_height)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Ignored)

    def hasHeightForWidth(self) -> bool:
        return not self._flexible and super().hasHeightForWidth()

    def set_title(self, title: str) -> None:
        self.title.setText(title)
        self._head.setVisible(True)

    def add_legend(self, widget: QWidget) -> None:
        self._legend.addWidget(widget)
        self._head.setVisible(True)

    def add_right(self, widget: QWidget) -> None:
        self._right.addWidget(widget)
        self._head.setVisible(True)


class PlainLabel(QLabel):
    """Never reads its text as markup, and writes out signs that cannot be seen.

    A name from outside that turns the direction of writing would otherwise turn the sentence
    around it, too.
    """

    def __init__(self, text: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setText(text)

    def setText(self, text: str) -> None:
        super().setText(visible(text))


class ElidedLabel(QLabel):
    """One line that is cut in the middle when there is no room, with the whole as tool tip.

    Plain as `PlainLabel` is.
    """

    def __init__(self, text: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self._whole = ""
        self.setText(text)

    def text(self) -> str:
        """The whole text, whatever is shown of it."""
        return self._whole

    def setText(self, text: str) -> None:
        self._whole = visible(" ".join(text.split()))
        self.setAccessibleName(self._whole)
        self._elide()
        self.updateGeometry()

    def sizeHint(self) -> QSize:
        margins = self.contentsMargins()
        width = self.fontMetrics().horizontalAdvance(self._whole) + 2
        width += margins.left() + margins.right()
        return QSize(width, super().sizeHint().height())

    def minimumSizeHint(self) -> QSize:
        return QSize(min(48, self.sizeHint().width()), super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._elide()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.FontChange:
            self._elide()

    def _elide(self) -> None:
        shown = self.fontMetrics().elidedText(
            self._whole, Qt.TextElideMode.ElideMiddle, max(self.contentsRect().width(), 0)
        )
        super().setText(shown)
        self.setToolTip("" if shown == self._whole else plain_tool_tip(self._whole))


class PageHeader(QWidget):
    """The head of a page: title, one line below it, and the page's buttons at the right."""

    def __init__(self, title: str, subtitle: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(16)
        texts = QVBoxLayout()
        texts.setSpacing(0)
        self.title = ElidedLabel(title)
        self.title.setFont(theme.font(20, QFont.Weight.DemiBold))
        self.subtitle = ElidedLabel(subtitle)
        self.subtitle.setProperty("role", "secondary")
        texts.addWidget(self.title)
        texts.addWidget(self.subtitle)
        row.addLayout(texts, 1)
        self._buttons = row
        self.setFixedHeight(48)

    def add_button(self, button: QWidget) -> None:
        self._buttons.addWidget(button, 0, Qt.AlignmentFlag.AlignVCenter)


def page_layout(page: QWidget) -> QVBoxLayout:
    """The layout of a whole page, with the page's margins and the gap between cards."""
    layout = QVBoxLayout(page)
    layout.setContentsMargins(PAGE_MARGIN, 16, PAGE_MARGIN, PAGE_MARGIN)
    layout.setSpacing(CARD_GAP)
    return layout


def scroll_area(content: QWidget) -> QScrollArea:
    """Scrolls what is as wide as itself up and down."""
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setWidget(content)
    return area


def plain_label(text: str = "", *, wrap: bool = False) -> QLabel:
    """A label that never reads its text as markup."""
    label = PlainLabel(text)
    label.setWordWrap(wrap)
    return label


def page_title(text: str) -> QLabel:
    label = plain_label(text)
    label.setFont(theme.font(20, QFont.Weight.DemiBold))
    return label


def card_title(text: str) -> QLabel:
    label = plain_label(text)
    label.setFont(theme.font(14, QFont.Weight.DemiBold))
    return label


def secondary_label(text: str = "", *, wrap: bool = False) -> QLabel:
    label = plain_label(text, wrap=wrap)
    label.setProperty("role", "secondary")
    return label


def number_label(text: str = "", size: int = 18) -> QLabel:
    """A key number; its figures keep their width when they change."""
    label = plain_label(text)
    label.setFont(theme.font(size, QFont.Weight.DemiBold, tabular=True))
    return label


class ErrorLabel(PlainLabel):
    """One sentence beside what it is about; not there while there is nothing to say."""

    def __init__(self, object_name: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.setObjectName(object_name)
        self.setWordWrap(True)
        self.setProperty("role", "error")
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setVisible(False)

    def show_error(self, text: str) -> None:
        text = sentence(text)
        self.setText(text)
        self.setAccessibleName(text)
        self.setVisible(bool(text))


class PrimaryButton(QPushButton):
    """The one thing to do on this page."""

    def __init__(self, text: str, parent: QWidget | None = None) -> None:
        super().__init__(text, parent)
        self.setFont(theme.font(13, QFont.Weight.DemiBold))
        self.setAccessibleName(text)


class SecondaryButton(QPushButton):
    """Anything else one can do."""

    def __init__(self, text: str, parent: QWidget | None = None) -> None:
        super().__init__(text, parent)
        self.setFont(theme.font(13, QFont.Weight.Medium))
        self.setAccessibleName(text)


class QuietButton(QPushButton):
    """A button that looks like text, for the title row of a card."""

    def __init__(self, text: str, parent: QWidget | None = None) -> None:
        super().__init__(text, parent)
        self.setAccessibleName(text)


def plain_tool_tip(text: str) -> str:
    """Text for `setToolTip`, and wherever else Qt guesses, that it does not take for HTML.

    It looks for tags, for `&lt;` and for the head of an XML document: a space of no width takes
    each of them apart.
    """
    if not text:
        return ""  # no tip at all
    return "\u200b" + sentence(text).replace("<", "<\u200b").replace("&", "&\u200b")
