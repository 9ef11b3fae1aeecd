"""How rows become conversations: what each column is, or texts with {column} in them.

Every change goes to the draft at once, and what becomes of the first rows stands beside it.
"""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QSignalBlocker, Qt
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QButtonGroup,
    QDialog,
    QDialogButtonBox,
    QHBoxLayout,
    QRadioButton,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from app.draft import JobDraft
from app.widgets.card import (
    Card,
    ErrorLabel,
    PrimaryButton,
    SecondaryButton,
    plain_label,
    secondary_label,
)
from app.widgets.data.column_roles import ColumnRoles
from app.widgets.data.conversation_view import ConversationView
from app.widgets.data.data_words import form_titles
from app.widgets.data.mapping_texts import MappingTexts
from app.widgets.data.mapping_verdict import TEXTS, Verdict, judge
from app.widgets.inputs import JobLineEdit
from training_backend.data.mapping import detect
from training_backend.data.roles import guess_roles
from training_backend.data.table import Details
from training_backend.errors import UserError
from training_backend.job_data import PLACEHOLDER, DataFormat, placeholders

SHOWN_ROWS = 5
CELL_CHARACTERS = 4000  # of a cell, in what is shown; a row can be megabytes
EMPTY: dict[str, Any] = {
    "columns": {}, "user": None, "assistant": None, "system": None, "system_prompt": None,
}  # fmt: skip


class MappingEditor(QWidget):
    """Edits the mapping of one source of the draft."""

    def __init__(self, draft: JobDraft, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._draft = draft
        self._source = 0
        self._columns: tuple[str, ...] = ()
        self._rows: list[dict[str, Any]] = []
        self._found: DataFormat | None = None
        self._guess: dict[str, str] = {}
        self.verdict = Verdict("", "careful")

        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(16)
        layout.addWidget(self._edit_card(), 11)
        layout.addWidget(self._result_card(), 9)
        draft.changed.connect(self._on_draft_changed)
        self._show()

    def set_table(
        self, details: Details | None, columns: tuple[str, ...], rows: list[dict[str, Any]]
    ) -> None:
        """The data whose rows are mapped; none while there is no readable file."""
        self._columns = columns
        self._rows = [_shortened(row) for row in rows]
        try:
            self._found = detect(self._rows) if rows else None
        except UserError:
            self._found = None
        self._guess = dict(guess_roles(columns, self._rows))
        self._texts.set_columns(columns)
        self._roles.set_columns(columns, self._rows, self._shown_roles())
        self._show()

    def set_source(self, index: int) -> None:
        """Which source of a mixture is edited."""
        self._source = index
        self._show()

    def propose(self) -> None:
        """Guess what the columns are, where the rows are of no known form and nobody said."""
        if self._mapping() is None and self._form() is None and self._columns:
            self._choose_columns()

    # -------------------------------------------------------------------------------- the parts

    def _edit_card(self) -> Card:
        card = Card(self.tr("How the rows are read"))
        choices = QVBoxLayout()
        choices.setSpacing(0)
        card.body.addLayout(choices)
        self._modes = QButtonGroup(self)
        self._as_found = QRadioButton()
        by_column = QRadioButton(self.tr("Say what each column is"))
        by_text = QRadioButton(self.tr("Write texts with {column} in them"))
        for place, (button, name, choose) in enumerate(
            (
                (self._as_found, "mappingAsFound", self._choose_as_found),
                (by_column, "mappingByColumn", self._choose_columns),
                (by_text, "mappingByText", self._choose_texts),
            )
        ):
            button.setObjectName(name)
            button.clicked.connect(choose)
            self._modes.addButton(button, place)
            choices.addWidget(button)
        self._roles = ColumnRoles()
        self._roles.role_chosen.connect(self._on_role_chosen)
        self._texts = MappingTexts()
        self._texts.edited.connect(self._on_text_edited)
        self._stack = QStackedWidget()
        self._stack.addWidget(self._roles)
        self._stack.addWidget(self._texts)
        card.body.addWidget(self._stack, 1)
        self._prompt_label = plain_label(self.tr("System prompt for every row without one"))
        self._prompt = JobLineEdit()
        self._prompt.setObjectName("mapping_system_prompt")
        self._prompt.setAccessibleName(self.tr("System prompt for every row without one"))
        self._prompt.setPlaceholderText(self.tr("May stay empty"))
        self._prompt.textChanged.connect(self._on_prompt_edited)
        self._prompt_label.setBuddy(self._prompt)
        card.body.addWidget(self._prompt_label)
        card.body.addWidget(self._prompt)
        return card

    def _result_card(self) -> Card:
        card = Card(self.tr("What the first rows become"))
        self._view = ConversationView()
        self._view.setObjectName("mappingResult")
        self._view.setAccessibleName(self.tr("What the first rows become"))
        self._sentence = secondary_label(wrap=True)
        self._sentence.setObjectName("mappingVerdict")
        self._error = ErrorLabel("error_dataset_mapping")
        self._view.setPlaceholderText(
            self.tr("The first rows will stand here as question and answer.")
        )
        card.add_right(secondary_label(self.tr("underlined: learned from")))
        card.body.addWidget(self._sentence)
        card.body.addWidget(self._error)
        card.body.addWidget(self._view, 1)
        return card

    # ---------------------------------------------------------------------------- what is asked

    def _choose_as_found(self) -> None:
        self._draft.set_source(self._source, {"format": "auto", "mapping": None})

    def _choose_columns(self) -> None:
        mapping = self._mapping()
        if mapping is None:
            self._put({**EMPTY, "columns": self._guess})
        elif mapping["assistant"] is not None:
            named = {
                column: role
                for role in TEXTS
                for column in placeholders(mapping[role] or "")
                if column in self._columns
            }
            self._put({**EMPTY, "columns": named, "system_prompt": mapping["system_prompt"]})

    def _choose_texts(self) -> None:
        mapping = self._mapping()
        if mapping is None:
            mapping = {**EMPTY, "columns": self._guess}
        if mapping["assistant"] is None:
            texts = {
                role: "\n\n".join(
                    "{" + column + "}"
                    for column, given in mapping["columns"].items()
                    if (given if given != "text" else "assistant") == role
                    and PLACEHOLDER.fullmatch("{" + column + "}")
                )
                for role in TEXTS
            }
            self._put({**EMPTY, **texts, "system_prompt": mapping["system_prompt"]})

    def _on_role_chosen(self, column: str, role: str) -> None:
        mapping = self._mapping() or {**EMPTY, "columns": self._guess}
        roles = {key: value for key, value in mapping["columns"].items() if key in self._columns}
        if role:
            roles[column] = role
        else:
            roles.pop(column, None)
        self._put({**EMPTY, "columns": roles, "system_prompt": mapping["system_prompt"]})

    def _on_text_edited(self, role: str, text: str) -> None:
        mapping = self._mapping() or {**EMPTY, "assistant": ""}
        self._put({**mapping, role: text}, merge=True)

    def _on_prompt_edited(self, text: str) -> None:
        mapping = self._mapping()
        if mapping is not None:
            self._put({**mapping, "system_prompt": text or None}, merge=True)

    def _put(self, mapping: dict[str, Any], *, merge: bool = False) -> None:
        changes = {"format": "custom", "mapping": mapping}
        self._draft.set_source(self._source, changes, merge=merge)

    # ---------------------------------------------------------------------------- what is shown

    def _on_draft_changed(self, field: str) -> None:
        if field in ("dataset.mapping", "dataset.format", "dataset.sources"):
            self._show()

    def _mapping(self) -> dict[str, Any] | None:
        sources = self._draft.sources()
        mapping = sources[min(self._source, len(sources) - 1)]["mapping"]
        return None if mapping is None else {**EMPTY, **mapping}

    def _form(self) -> DataFormat | None:
        """What the rows are read as without a mapping."""
        sources = self._draft.sources()
        form: DataFormat = sources[min(self._source, len(sources) - 1)]["format"]
        return self._found if form in ("auto", "custom") else form

    def _shown_roles(self) -> dict[str, str]:
        mapping = self._mapping()
        return self._guess if mapping is None else dict(mapping["columns"])

    def _show(self) -> None:
        mapping, form = self._mapping(), self._form()
        by_text = mapping is not None and mapping["assistant"] is not None
        mode = 0 if mapping is None else 2 if by_text else 1
        self._modes.button(mode).setChecked(True)
        titles = form_titles()
        self._as_found.setText(
            self.tr("As found: {form}").format(form=titles[form])
            if form
            else self.tr("As found: no known form")
        )
        self._as_found.setVisible(form is not None or mapping is None)
        for button in self._modes.buttons()[1:]:
            button.setEnabled(bool(self._columns))
        self._stack.setCurrentIndex(1 if by_text else 0)
        self._stack.setEnabled(bool(self._columns))
        if mapping is not None and by_text:
            self._texts.show_texts({role: mapping[role] or "" for role in TEXTS})
        else:
            self._roles.show_roles(self._shown_roles())
        self._prompt_label.setVisible(mapping is not None)
        self._prompt.setVisible(mapping is not None)
        prompt = (mapping or EMPTY)["system_prompt"] or ""
        if self._prompt.text() != prompt:
            with QSignalBlocker(self._prompt):
                self._prompt.setText(prompt)
        self._show_verdict(judge(form, mapping, self._columns, self._rows[:SHOWN_ROWS]))

    def _show_verdict(self, verdict: Verdict) -> None:
        self.verdict = verdict
        wrong = verdict.level == "error"
        self._error.show_error(verdict.sentence if wrong else "")
        self._sentence.setText(verdict.sentence)
        self._sentence.setVisible(not wrong)
        self._sentence.setProperty("role", verdict.level)
        self._sentence.style().polish(self._sentence)
        self._view.show_rows(verdict.rows)


class MappingDialog(QDialog):
    """The editor in a window of its own; Cancel takes back what was changed in it."""

    def __init__(self, draft: JobDraft, source: int = 0, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("mappingDialog")
        self.setWindowTitle(self.tr("Edit mapping"))
        self._draft = draft
        self._source = source
        self._before = self._now()
        self.editor = MappingEditor(draft)
        self.editor.set_source(source)
        done, cancel = PrimaryButton(self.tr("Done")), SecondaryButton(self.tr("Cancel"))
        done.setObjectName("mappingDone")
        cancel.setObjectName("mappingCancel")
        done.setDefault(True)
        buttons = QDialogButtonBox(Qt.Orientation.Horizontal)
        buttons.addButton(cancel, QDialogButtonBox.ButtonRole.RejectRole)
        buttons.addButton(done, QDialogButtonBox.ButtonRole.AcceptRole)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 16, 16, 16)
        layout.setSpacing(16)
        layout.addWidget(self.editor, 1)
        layout.addWidget(buttons)
        self._done = done
        draft.changed.connect(self._on_draft_changed)
        for keys, act in (
            (QKeySequence.StandardKey.Undo, self._undo),
            (QKeySequence.StandardKey.Redo, self._draft.redo),
        ):
            QShortcut(keys, self).activated.connect(act)
        self.resize(1120, 656)

    def set_table(
        self, details: Details | None, columns: tuple[str, ...], rows: list[dict[str, Any]]
    ) -> None:
        """As that of the editor; where the rows are of no known form, a guess stands there."""
        self.editor.set_table(details, columns, rows)
        self.editor.propose()
        self._on_draft_changed("")

    def reject(self) -> None:
        self._draft.set_source(self._source, self._before)
        super().reject()

    def _undo(self) -> None:
        if self._now() != self._before:
            self._draft.undo()

    def _now(self) -> dict[str, Any]:
        source = self._draft.sources()[self._source]
        return {"format": source["format"], "mapping": source["mapping"]}

    def _on_draft_changed(self, _: str) -> None:
        self._done.setEnabled(self.editor.verdict.level != "error")


def _shortened(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value[:CELL_CHARACTERS] if isinstance(value, str) else value
        for key, value in row.items()
    }
