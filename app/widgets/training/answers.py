"""The answers to the fixed questions: the base model's beside those of each checkpoint."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication, Qt, QTimer
from PySide6.QtGui import QFont, QWheelEvent
from PySide6.QtWidgets import QFrame, QGridLayout, QSlider, QVBoxLayout, QWidget

from app import theme
from app.models.told_answers import ToldAnswers
from app.widgets import figures
from app.widgets.card import Card, ElidedLabel, plain_label, secondary_label
from app.widgets.training.answer_text import AnswerText
from training_backend.protocol import SampleGenerated

SLIDER_WIDTH = 220


class AnswersCard(Card):
    """One row a question; a slider goes through the steps, and stands at the newest by default.

    Words that the answer beside it does not have are marked.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.set_title(self.tr("Answers before and after"))
        self._told = ToldAnswers()
        self._rows: dict[str, _Row] = {}
        self._kept: int | None = None
        self._chosen: int | None = None  # a step; None follows the newest
        self._legend_words = ElidedLabel()  # gives way, so that the slider is whole in any window
        self._legend_words.setProperty("role", "secondary")
        self.add_legend(self._legend_words)
        self._step_words = plain_label()
        self._step_words.setFont(theme.font(13, tabular=True))
        self.add_right(self._step_words)
        self.slider = _StepSlider()
        self.slider.setObjectName("answersStepSlider")
        self.slider.setAccessibleName(self.tr("Step whose answers are shown"))
        self.slider.setFixedWidth(SLIDER_WIDTH)
        self.slider.valueChanged.connect(self._choose)
        self.add_right(self.slider)
        self._list = QVBoxLayout()
        self._list.setSpacing(16)
        self.body.addLayout(self._list)
        self._soon = QTimer(self, singleShot=True, interval=0)
        self._soon.timeout.connect(self.render_now)
        self.render_now()

    def set_questions(self, questions: tuple[str, ...]) -> None:
        """Start over with these questions, each with room for its answers."""
        self._told, self._kept, self._chosen = ToldAnswers(), None, None
        self._told.questions = list(questions)
        self._rows.clear()
        while (item := self._list.takeAt(0)) is not None:
            if (widget := item.widget()) is not None:
                widget.setParent(None)
                widget.deleteLater()
        self.setVisible(bool(questions))
        self.render_now()

    def add(self, event: SampleGenerated) -> None:
        self._told.add(event)
        self.setVisible(True)
        self._soon.start()

    def show_kept(self, step: int | None) -> None:
        """The run has ended, and what is kept is the model of this step: its answers count."""
        self._kept = self._chosen = step
        self._soon.start()

    def answers(self, question: str) -> tuple[str, str]:
        """What is shown as the answers before and after."""
        self.render_now()
        row = self._rows[question]
        return row.before.toPlainText(), row.after.toPlainText()

    def render_now(self) -> None:
        """Write the answers of the chosen step."""
        self._soon.stop()
        steps = self._told.steps()
        step = self._step(steps)
        self._render_slider(steps, step)
        for question in self._told.questions:
            if question not in self._rows:
                self._add_row(question)
            self._rows[question].show_answers(self._told, question, step)
        marked = any(row.after.marked() for row in self._rows.values())
        self._legend_words.setVisible(marked)
        self._legend_words.setText(self.tr("marked: changed by the training"))

    def _step(self, steps: list[int]) -> int | None:
        if not steps:
            return None
        return self._chosen if self._chosen in steps else steps[-1]

    def _render_slider(self, steps: list[int], step: int | None) -> None:
        self.slider.setVisible(len(steps) > 1)
        self._step_words.setVisible(len(steps) > 1)
        if step is None:
            return
        blocked = self.slider.blockSignals(True)
        self.slider.setRange(0, len(steps) - 1)
        self.slider.setValue(steps.index(step))
        self.slider.blockSignals(blocked)
        words = _after(step)
        if step == self._kept:
            words = self.tr("{step}, kept").format(step=words)
        self._step_words.setText(words)
        self.slider.setAccessibleDescription(words)

    def _choose(self, place: int) -> None:
        steps = self._told.steps()
        self._chosen = None if place == len(steps) - 1 else steps[place]
        self.render_now()

    def _add_row(self, question: str) -> None:
        if self._rows:
            line = QFrame()
            line.setFixedHeight(1)
            line.setStyleSheet("background: palette(mid);")
            self._list.addWidget(line)
        self._rows[question] = row = _Row(question)
        self._list.addWidget(row)


class _Row(QWidget):
    """A question with the first answer and a later one."""

    def __init__(self, question: str) -> None:
        super().__init__()
        asked = plain_label(question, wrap=True)
        asked.setFont(theme.font(13, QFont.Weight.DemiBold))
        self.before, self.after = AnswerText(), AnswerText()
        self._before_head, self._after_head = secondary_label(), secondary_label()
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(24)
        grid.setVerticalSpacing(4)
        grid.addWidget(asked, 0, 0, 1, 2)
        top = Qt.AlignmentFlag.AlignTop
        for column, (head, answer) in enumerate(
            ((self._before_head, self.before), (self._after_head, self.after))
        ):
            head.setIndent(2)  # as the text below, which has a frame when it has the focus
            grid.addWidget(head, 1, column)
            grid.addWidget(answer, 2, column, top)
            grid.setColumnStretch(column, 1)

    def show_answers(self, told: ToldAnswers, question: str, step: int | None) -> None:
        empty = self.tr("(an empty answer)")
        self._before_head.setText(
            self.tr("The base model") if told.knows_base() else self.tr("Before the training")
        )
        first = told.first(question)
        found = None if step is None else told.newest(question, step)
        if first is not None:
            self.before.show_answer(first.strip() or empty)
        elif found is not None:  # it was thought of while the run went on
            self.before.show_note(self.tr("Was not asked then."))
        else:
            self.before.show_note(self.tr("Comes before the first step."))
        if found is None:
            self._after_head.setText(self.tr("After the training"))
            self.after.show_note(self.tr("Comes at the first checkpoint."))
        else:
            given, answer = found
            self._after_head.setText(_after(given))
            self.after.show_answer(answer.strip() or empty, first)
        self.before.setAccessibleName(f"{question} {self._before_head.text()}")
        self.after.setAccessibleName(f"{question} {self._after_head.text()}")


class _StepSlider(QSlider):
    """Turns with the wheel only when it has the focus."""

    def __init__(self) -> None:
        super().__init__(Qt.Orientation.Horizontal)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setPageStep(1)

    def wheelEvent(self, event: QWheelEvent) -> None:
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


def _after(step: int) -> str:
    if step == 0:
        return _tr("Before the training")
    return _tr("After step {step}").format(step=figures.count(step))


def _tr(text: str) -> str:
    return QCoreApplication.translate("answers", text)
