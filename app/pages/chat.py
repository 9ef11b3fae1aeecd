"""The Try it page. Chat comes later; until then: the fixed questions, before and after."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QVBoxLayout, QWidget

from app.widgets.card import (
    Card,
    PageHeader,
    PrimaryButton,
    SecondaryButton,
    page_layout,
    scroll_area,
    secondary_label,
)
from app.widgets.training.answers import AnswersCard
from training_backend.protocol import SampleGenerated


class ChatPage(QWidget):
    """Says honestly that one cannot chat yet, and shows what the last run's answers became."""

    continue_requested = Signal()
    settings_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = page_layout(self)
        self._header = PageHeader(
            self.tr("Try it"), self.tr("What the model says before and after training")
        )
        go_on = PrimaryButton(self.tr("Continue"))
        go_on.clicked.connect(self.continue_requested)
        self._header.add_button(go_on)
        layout.addWidget(self._header)

        content = QWidget()
        content.setObjectName("scrolled")
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 0, 0)
        self._empty = self._empty_card()
        column.addWidget(self._empty)
        self._answers = AnswersCard()
        self._answers.hide()
        column.addWidget(self._answers)
        column.addStretch(1)
        area = scroll_area(content)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        layout.addWidget(area, 1)
        layout.addWidget(self._chat_card())

    def show_answers(
        self, run_name: str, samples: list[SampleGenerated], kept: int | None = None
    ) -> None:
        """Show what a run answered to its questions, the base model and the trained one.

        Args:
            kept: the step whose model the run kept, where that is not simply the last.
        """
        if not samples:
            return
        questions = tuple(dict.fromkeys(sample.prompt for sample in samples))
        self._answers.set_questions(questions)
        for sample in samples:
            self._answers.add(sample)
        self._answers.show_kept(kept)
        self._empty.hide()
        self._header.subtitle.setText(
            self.tr("What the model says before and after the run {name}").format(name=run_name)
        )

    def _empty_card(self) -> Card:
        card = Card(self.tr("No answers yet"))
        card.body.addWidget(
            secondary_label(
                self.tr(
                    "Questions are set on the Settings page. A run answers them before its first "
                    "step and at every checkpoint, and the answers stand here side by side."
                ),
                wrap=True,
            )
        )
        button = SecondaryButton(self.tr("Set questions"))
        button.clicked.connect(self.settings_requested)
        card.body.addWidget(button, 0, Qt.AlignmentFlag.AlignLeft)
        return card

    def _chat_card(self) -> Card:
        card = Card(self.tr("Chat"))
        card.body.addWidget(
            secondary_label(
                self.tr(
                    "Talking with a trained model comes in a later version. Until then an "
                    "exported model can be tried in any program that loads it."
                ),
                wrap=True,
            )
        )
        row = QHBoxLayout()
        row.setSpacing(8)
        field = QLineEdit()
        field.setObjectName("chatInput")
        field.setAccessibleName(self.tr("Message, not available yet"))
        field.setPlaceholderText(self.tr("Not available yet"))
        send = SecondaryButton(self.tr("Send"))
        send.setObjectName("chatSendButton")
        for part in (field, send):
            part.setEnabled(False)
            row.addWidget(part)
        card.body.addLayout(row)
        return card
