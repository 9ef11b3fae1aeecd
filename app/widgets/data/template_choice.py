"""Which chat template turns messages into the model's text."""

from __future__ import annotations

from PySide6.QtCore import QSignalBlocker
from PySide6.QtWidgets import QVBoxLayout, QWidget

from app.draft import JobDraft
from app.widgets.card import ErrorLabel, secondary_label
from app.widgets.flow import labelled
from app.widgets.inputs import SteadyComboBox

FIELD = "dataset.chat_template"


class TemplateChoice(QWidget):
    """The model's own template, or one of the standard ones for a model without."""

    def __init__(self, draft: JobDraft, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._draft = draft
        self._has_own: bool | None = None
        self._combo = SteadyComboBox()
        self._combo.setObjectName("field_dataset_chat_template")
        self._combo.setAccessibleName(self.tr("Chat template"))
        self._combo.setAccessibleDescription(
            self.tr("How messages are written for the model; use it with the same one later.")
        )
        for template, title in (
            (None, ""),
            ("chatml", self.tr("ChatML (Qwen and many others)")),
            ("llama3", self.tr("Llama 3")),
            ("mistral", self.tr("Mistral")),
            ("gemma", self.tr("Gemma")),
            ("alpaca", self.tr("Alpaca (instruction and response)")),
            ("plain", self.tr("Plain (User: and Assistant:)")),
        ):
            self._combo.addItem(title, template)
        self._combo.setFixedWidth(256)
        self._combo.activated.connect(lambda _: draft.set_value(FIELD, self._combo.currentData()))
        self._note = secondary_label(wrap=True)
        self._note.setProperty("role", "careful")
        self._error = ErrorLabel("error_dataset_chat_template")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(labelled(self.tr("Chat template"), self._combo))
        layout.addWidget(self._note)
        layout.addWidget(self._error)
        draft.changed.connect(lambda field: self._show() if field == FIELD else None)
        self._show()

    def set_model_template(self, has_own: bool | None) -> None:
        """Whether the chosen model comes with a template; None while that is not known."""
        self._has_own = has_own
        self._show()

    def show_problem(self, field: str, message: str) -> bool:
        """Say beside the input what is wrong; False for another field."""
        if field == FIELD:
            self._error.show_error(message)
        return field == FIELD

    def _show(self) -> None:
        value = self._draft.value(FIELD)
        none = self._has_own is False
        with QSignalBlocker(self._combo):
            own = self.tr("Plain, the model has none") if none else self.tr("The model's own")
            self._combo.setItemText(0, own)
            self._combo.setCurrentIndex(max(0, self._combo.findData(value)))
        note = ""
        if none and value is None:
            note = self.tr("This model has no chat template. Choose the one you will use it with.")
        elif self._has_own and value is not None:
            note = self.tr("The model has a template of its own, which mostly serves better.")
        self._note.setText(note)
        self._note.setVisible(bool(note))
