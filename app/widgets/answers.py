"""The same questions answered before the training and after it, side by side."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QFont
from PySide6.QtWidgets import QFrame, QGridLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from app import theme
from app.widgets.card import Card, plain_label, secondary_label
from training_backend.protocol import SampleGenerated


class AnswersCard(Card):
    """One row a question; the answer at step 0 is the base model's, the newest one ours."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.set_title(self.tr("Answers before and after"))
        self._rows: dict[str, tuple[QLabel, QLabel, QLabel]] = {}
        self._holder = QWidget()
        self._list = QVBoxLayout(self._holder)
        self._list.setContentsMargins(0, 0, 0, 0)
        self._list.setSpacing(16)
        self.body.addWidget(self._holder)

    def set_questions(self, questions: tuple[str, ...]) -> None:
        """Start over with these questions, each with room for its answers."""
        self._rows.clear()
        while (item := self._list.takeAt(0)) is not None:
            if (widget := item.widget()) is not None:
                widget.setParent(None)
                widget.deleteLater()
        for question in questions:
            self._add_row(question)
        self.setVisible(bool(questions))

    def add(self, event: SampleGenerated) -> None:
        if event.prompt not in self._rows:
            self._add_row(event.prompt)
            self.setVisible(True)
        before, after_head, after = self._rows[event.prompt]
        target = before if event.step == 0 else after
        target.setText(event.answer.strip() or self.tr("(an empty answer)"))
        target.setProperty("role", "")
        target.style().polish(target)
        if event.step:
            after_head.setText(self.tr("After step {step}").format(step=event.step))

    def answers(self, question: str) -> tuple[str, str]:
        """What is shown as the answers before and after."""
        before, _, after = self._rows[question]
        return before.text(), after.text()

    def _add_row(self, question: str) -> None:
        if self._rows:
            line = QFrame()
            line.setFixedHeight(1)
            line.setStyleSheet("background: palette(mid);")
            self._list.addWidget(line)
        row = QWidget()
        grid = QGridLayout(row)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(24)
        grid.setVerticalSpacing(4)
        asked = plain_label(question, wrap=True)
        asked.setFont(theme.font(13, QFont.Weight.DemiBold))
        before, after = self._answer(), self._answer()
        before.setText(self.tr("Comes before the first step."))
        after.setText(self.tr("Comes when the training is done."))
        after_head = secondary_label(self.tr("After the training"))
        grid.addWidget(asked, 0, 0, 1, 2)
        grid.addWidget(secondary_label(self.tr("Before the training")), 1, 0)
        grid.addWidget(after_head, 1, 1)
        grid.addWidget(before, 2, 0, Qt.AlignmentFlag.AlignTop)
        grid.addWidget(after, 2, 1, Qt.AlignmentFlag.AlignTop)
        grid.setColumnStretch(0, 1)
        grid.setColumnStretch(1, 1)
        self._list.addWidget(row)
        self._rows[question] = (before, after_head, after)

    def _answer(self) -> QLabel:
        label = secondary_label(wrap=True)
        label.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse
            | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        return label
