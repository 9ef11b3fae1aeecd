"""The Try it page. Chat comes later; until then: the fixed questions, before and after."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QFrame, QGridLayout, QHBoxLayout, QLineEdit, QScrollArea, QWidget

from app.widgets.card import (
    Card,
    ElidedLabel,
    PageHeader,
    PrimaryButton,
    SecondaryButton,
    page_layout,
    plain_label,
    secondary_label,
)


@dataclass(frozen=True)
class Answer:
    """One question, answered by the base model and by the trained one."""

    question: str
    before: str
    after: str


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

        self._answers = Card(self.tr("Before and after"))
        self._answers.setObjectName("answersCard")
        self._run = ElidedLabel()
        self._run.setProperty("role", "secondary")
        self._answers.add_right(self._run)
        self._empty = secondary_label(
            self.tr(
                "No finished run has answers yet. Questions are set on the Settings page; the "
                "model answers them before the first step and after the last."
            ),
            wrap=True,
        )
        self._answers.body.addWidget(self._empty, 0, Qt.AlignmentFlag.AlignTop)
        self._to_settings = SecondaryButton(self.tr("Set questions"))
        self._to_settings.clicked.connect(self.settings_requested)
        self._answers.body.addWidget(self._to_settings, 0, Qt.AlignmentFlag.AlignLeft)
        self._area = QScrollArea()
        self._area.setWidgetResizable(True)
        self._area.setFrameShape(QFrame.Shape.NoFrame)
        self._area.hide()
        self._answers.body.addWidget(self._area, 100)
        self._answers.body.addStretch(1)
        layout.addWidget(self._answers, 1)
        layout.addWidget(self._chat_card())

    def show_problem(self, field: str, message: str) -> None:
        """No field of a job is edited here."""

    def show_answers(self, run_name: str, answers: list[Answer]) -> None:
        """Show the questions of a run with both answers."""
        content = QWidget()
        content.setObjectName("scrolled")
        grid = QGridLayout(content)
        grid.setContentsMargins(0, 0, 8, 0)
        grid.setHorizontalSpacing(24)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(0, 1)
        grid.setColumnStretch(1, 1)
        for answer in answers:
            row = grid.rowCount()
            question = plain_label(answer.question, wrap=True)
            question.setProperty("role", "accent")
            grid.addWidget(question, row, 0, 1, 2)
            grid.addWidget(secondary_label(self.tr("Before")), row + 1, 0)
            grid.addWidget(secondary_label(self.tr("After")), row + 1, 1)
            for column, text in enumerate((answer.before, answer.after)):
                label = plain_label(text, wrap=True)
                label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
                grid.addWidget(label, row + 2, column, Qt.AlignmentFlag.AlignTop)
            grid.setRowMinimumHeight(row + 3, 16)
        grid.setRowStretch(grid.rowCount(), 1)
        self._area.setWidget(content)
        self._run.setText(run_name)
        self._area.setVisible(bool(answers))
        self._empty.setVisible(not answers)
        self._to_settings.setVisible(not answers)

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
