"""Ask the model of a training under way, and read what it says."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QCloseEvent, QFont, QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QDialog,
    QHBoxLayout,
    QPlainTextEdit,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.i18n import explain
from app.widgets import figures, wording
from app.widgets.card import (
    ErrorLabel,
    PrimaryButton,
    SecondaryButton,
    page_title,
    plain_label,
    scroll_area,
    secondary_label,
)
from app.widgets.dialog_parts import dialog_layout
from training_backend.errors import UserError
from training_backend.lifecycle.run_requests import checked_prompt
from training_backend.protocol import SampleGenerated

MOST_ANSWERS = 50
EDIT_HEIGHT = 76


class AskDialog(QDialog):
    """Stays open beside the training, so that one asks again and sees the model change.

    `asked` carries the question, or None for those of the job. An answer comes at the end of
    the step that the run is at.
    """

    asked = Signal(object)  # str | None
    closed = Signal()

    def __init__(self, own_questions: int, parent: QWidget | None = None) -> None:
        """`own_questions` is how many questions the job itself has."""
        super().__init__(parent)
        self.setObjectName("askDialog")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(self.tr("Ask the model"))
        self.resize(560, 480)
        self._shown = 0
        outer = dialog_layout(self)
        outer.addWidget(page_title(self.windowTitle()))
        outer.addWidget(
            secondary_label(
                self.tr("The model as it is now answers; the training goes on as if not asked."),
                wrap=True,
            )
        )
        self._edit = QPlainTextEdit()
        self._edit.setObjectName("askEdit")
        self._edit.setAccessibleName(self.tr("Question"))
        self._edit.setPlaceholderText(self.tr("Your question"))
        self._edit.setTabChangesFocus(True)
        self._edit.setFixedHeight(EDIT_HEIGHT)
        outer.addWidget(self._edit)
        self._error = ErrorLabel("askError")
        outer.addWidget(self._error)
        outer.addLayout(self._buttons(own_questions))
        outer.addWidget(self._answers_area(), 1)
        for keys in ("Ctrl+Return", "Ctrl+Enter"):
            QShortcut(QKeySequence(keys), self).activated.connect(self._ask_typed)

    def show_answer(self, event: SampleGenerated) -> None:
        """Add an answer above the earlier ones."""
        self._status.setText("")
        box = QWidget()
        column = QVBoxLayout(box)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        question = plain_label(wording.visible(event.prompt), wrap=True)
        question.setFont(theme.font(13, QFont.Weight.DemiBold))
        answer = plain_label(
            wording.visible(event.answer.strip()) or self.tr("(an empty answer)"), wrap=True
        )
        answer.setObjectName("askAnswer")
        answer.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse
            | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        step = self.tr("after step {step}").format(step=figures.count(event.step))
        for label in (question, secondary_label(step), answer):
            column.addWidget(label)
        self._list.insertWidget(0, box)
        self._shown += 1
        if self._shown > MOST_ANSWERS:
            oldest = self._list.takeAt(MOST_ANSWERS)
            if oldest is not None and (widget := oldest.widget()) is not None:
                widget.deleteLater()
            self._shown -= 1

    def end(self) -> None:
        """The training is over: nothing more can be asked of it."""
        for widget in (self._edit, self._ask, self._own):
            widget.setEnabled(False)
        self._status.setText(self.tr("The training has ended."))

    def closeEvent(self, event: QCloseEvent) -> None:
        super().closeEvent(event)
        self.closed.emit()

    def reject(self) -> None:
        """Escape closes it as any other way does."""
        self.close()

    def _ask_typed(self) -> None:
        if not self._ask.isEnabled():
            return
        try:
            prompt = checked_prompt(self._edit.toPlainText())
        except UserError as error:
            self._error.show_error(explain(error))
            return
        self._edit.selectAll()
        self._put(prompt)

    def _put(self, prompt: str | None) -> None:
        self._error.show_error("")
        self._status.setText(self.tr("Asked; it answers between two steps."))
        self.asked.emit(prompt)

    def _buttons(self, own_questions: int) -> QHBoxLayout:
        self._status = secondary_label()
        self._status.setObjectName("askStatus")
        self._own = SecondaryButton(self.tr("Ask the run's own questions"))
        self._own.setObjectName("askOwnButton")
        self._own.setVisible(own_questions > 0)
        self._own.clicked.connect(lambda: self._put(None))
        self._ask = PrimaryButton(self.tr("Ask"))
        self._ask.setObjectName("askButton")
        self._ask.setProperty("primary", True)
        self._ask.setToolTip(self.tr("Ctrl+Enter"))
        self._ask.clicked.connect(self._ask_typed)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self._status, 1)
        row.addWidget(self._own)
        row.addWidget(self._ask)
        return row

    def _answers_area(self) -> QScrollArea:
        content = QWidget()
        content.setObjectName("scrolled")
        self._list = QVBoxLayout(content)
        self._list.setContentsMargins(0, 8, 12, 0)
        self._list.setSpacing(16)
        self._list.addStretch(1)
        return scroll_area(content)
