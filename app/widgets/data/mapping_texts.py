"""Texts with {column} in them, which become the question and the answer of every row."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, QSignalBlocker, Signal
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from app.widgets.card import plain_label, secondary_label
from app.widgets.inputs import JobTextEdit, SteadyComboBox
from app.widgets.wording import one_line

ROLES = ("system", "user", "assistant")


class MappingTexts(QWidget):
    """A field for each turn; a column chosen from the list goes in where the cursor is.

    `edited` gives a role and its text.
    """

    edited = Signal(str, str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        titles = {
            "system": self.tr("System text (may stay empty)"),
            "user": self.tr("Question"),
            "assistant": self.tr("Answer, learned from"),
        }
        examples = {
            "system": self.tr("You answer questions about {product}."),
            "user": self.tr("{title}, then whatever else is asked"),
            "assistant": self.tr("{answer}"),
        }
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        self._insert = SteadyComboBox()
        self._insert.setObjectName("insertColumn")
        self._insert.setAccessibleName(self.tr("Insert a column where the cursor is"))
        self._insert.setPlaceholderText(self.tr("Insert a column"))
        self._insert.setFixedWidth(208)
        self._insert.activated.connect(self._on_insert)
        row = QHBoxLayout()
        row.addWidget(secondary_label(self.tr("{column} stands for the cell of each row.")), 1)
        row.addWidget(self._insert)
        layout.addLayout(row)
        self._edits: dict[str, JobTextEdit] = {}
        for role, title in titles.items():
            edit = self._edits[role] = JobTextEdit()
            edit.setObjectName(f"mapping_{role}")
            edit.setAccessibleName(title)
            edit.setTabChangesFocus(True)
            edit.setMinimumHeight(48)
            edit.textChanged.connect(
                lambda role=role, edit=edit: self.edited.emit(role, edit.toPlainText())
            )
            edit.setPlaceholderText(examples[role])
            edit.installEventFilter(self)
            label = plain_label(title)
            label.setBuddy(edit)
            layout.addWidget(label)
            layout.addWidget(edit, 1 if role == "system" else 2)
        self._target = self._edits["user"]

    def set_columns(self, columns: tuple[str, ...]) -> None:
        self._insert.clear()
        # Those with braces in their names cannot be written as {column}.
        for name in columns:
            if not set("{}") & set(name):
                self._insert.addItem(one_line(name), name)
        self._insert.setCurrentIndex(-1)
        view = self._insert.view()
        view.setMinimumWidth(min(480, view.sizeHintForColumn(0) + 40))

    def show_texts(self, texts: dict[str, str]) -> None:
        """Show what the draft holds, without reporting it back."""
        for role, edit in self._edits.items():
            if edit.toPlainText() != texts[role]:
                with QSignalBlocker(edit):
                    edit.setPlainText(texts[role])

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.FocusIn and isinstance(watched, JobTextEdit):
            self._target = watched
        return super().eventFilter(watched, event)

    def _on_insert(self, index: int) -> None:
        self._target.insertPlainText("{" + self._insert.itemData(index) + "}")
        self._target.setFocus()
        self._insert.setCurrentIndex(-1)
