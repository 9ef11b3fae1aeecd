"""A model card before it is sent: as the Hub will show it, or its text to change."""

from __future__ import annotations

from PySide6.QtGui import QFont
from PySide6.QtWidgets import (
    QButtonGroup,
    QFrame,
    QHBoxLayout,
    QPlainTextEdit,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.widgets.card import QuietButton, card_title
from app.widgets.runs.card_view import CardView
from training_backend.hub.push_files import PICTURE
from training_backend.summaries.push_draft import edited

VIEW, TEXT = range(2)


class CardEdit(QWidget):
    """The card in its two forms, of which one is seen."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._before = ""
        self._picture: bytes | None = None
        self.view = CardView()
        frame = QFrame()
        frame.setProperty("boxed", True)
        inside = QVBoxLayout(frame)
        inside.setContentsMargins(1, 1, 1, 1)
        inside.addWidget(self.view)
        self.text = QPlainTextEdit()
        self.text.setObjectName("pushCardEdit")
        self.text.setAccessibleName(self.tr("Text of the model card"))
        self.text.setTabChangesFocus(True)
        self.text.setFont(theme.mono_font(12))
        self.text.setPlaceholderText(self.tr("Writing the card…"))
        self._stack = QStackedWidget()
        self._stack.addWidget(frame)
        self._stack.addWidget(self.text)
        self._buttons = QButtonGroup(self)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(card_title(self.tr("Model card")))
        row.addStretch(1)
        for place, name, words in (
            (VIEW, "pushCardView", self.tr("As it will look")),
            (TEXT, "pushCardText", self.tr("Change the text")),
        ):
            button = QuietButton(words)
            button.setObjectName(name)
            button.setCheckable(True)
            button.setAutoDefault(False)
            self._buttons.addButton(button, place)
            row.addWidget(button)
        self._buttons.idToggled.connect(self._on_chosen)
        self._buttons.button(VIEW).setChecked(True)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        column.addLayout(row)
        column.addWidget(self._stack, 1)

    def show_card(self, text: str, picture: bytes | None) -> None:
        """A card that has just been written."""
        self._before, self._picture = text, picture
        self.text.setPlainText(text)
        self.view.show_card(text, picture)

    def card(self) -> tuple[str, bytes | None]:
        """The text as it is now, and the picture if the text shows it."""
        text = edited(self.text.toPlainText(), self._before)
        return text, self._picture if PICTURE in text else None

    def set_locked(self, locked: bool) -> None:
        """While it is sent the card can be read, and not changed."""
        self.text.setReadOnly(locked)

    def is_ready(self) -> bool:
        return bool(self._before)

    def is_changed(self) -> bool:
        """Whether a person has changed the text."""
        return self.is_ready() and self.text.toPlainText() != self._before

    def forget_changes(self) -> None:
        """The text is kept elsewhere now."""
        self._before = self.text.toPlainText()

    def edit_it(self) -> None:
        """Show the text, since something is to be changed in it."""
        self._buttons.button(TEXT).setChecked(True)

    def _on_chosen(self, place: int, chosen: bool) -> None:
        if not chosen:
            return
        if place == VIEW:
            self.view.show_card(self.text.toPlainText(), self._picture)
        self._stack.setCurrentIndex(place)
        for button in self._buttons.buttons():
            weight = QFont.Weight.DemiBold if button.isChecked() else QFont.Weight.Normal
            button.setFont(theme.font(13, weight))
