"""What the model is tested on, which turns it learns from, and how they are written."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QSignalBlocker
from PySide6.QtWidgets import QVBoxLayout, QWidget

from app.draft import JobDraft
from app.widgets.card import ErrorLabel, secondary_label
from app.widgets.data.template_choice import TemplateChoice
from app.widgets.flow import FlowRow, labelled
from app.widgets.inputs import NumberEdit, SteadyComboBox
from app.widgets.path_picker import PathPicker
from training_backend.data.table import Details

SHARE = "evaluation.held_out_fraction"
FILE = "dataset.held_out_path"
LOSS = "dataset.loss_on"
PIECE = "dataset.chunk_length"
ROWS = "dataset.max_rows"
FIRST_SHARE = 0.05
MAX_PERCENT = 50


class SplitOptions(QWidget):
    """Small inputs in a row: what is tested on and learned from, template, length of pieces."""

    def __init__(self, draft: JobDraft, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._draft = draft
        self._wants_file = False  # chosen, though no file is named yet
        self._is_text = False
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(8)
        flow = self.row = FlowRow()
        flow.add(self._test_part())
        flow.add(self._rows_part())
        flow.add(self._loss_part())
        flow.add(self._piece_part())
        self.template = TemplateChoice(draft)
        flow.add(self.template)
        layout.addWidget(flow)
        self._file = PathPicker(
            "heldOutPathEdit",
            self.tr("Test file"),
            self.tr("Data files (*.jsonl *.json *.csv *.tsv *.parquet *.xlsx *.txt *.md)")
            + self.tr(";;All files (*)"),
        )
        self._file.edit.setPlaceholderText(self.tr("A file like the first one, with other rows"))
        self._file.picked.connect(self._on_file)
        layout.addWidget(self._file)
        self._errors = {
            field: ErrorLabel(f"error_{field.replace('.', '_')}")
            for field in (FILE, ROWS, LOSS, PIECE)
        }
        # The settings page has a label of the usual name for this field.
        self._errors[SHARE] = ErrorLabel("error_dataset_held_out_share")
        for error in self._errors.values():
            layout.addWidget(error)
        draft.changed.connect(self._on_draft_changed)
        self._show()

    def set_table(
        self, details: Details | None, columns: tuple[str, ...], rows: list[dict[str, Any]]
    ) -> None:
        """The data; plain texts are cut to pieces, and have no turns to learn from."""
        self._is_text = details is not None and details.kind in ("text", "markdown")
        self._show()

    def show_problem(self, field: str, message: str) -> bool:
        """Say beside the input what is wrong; False for a field that is none of these."""
        if field in self._errors:
            self._errors[field].show_error(message)
            return True
        return self.template.show_problem(field, message)

    # -------------------------------------------------------------------------------- the parts

    def _test_part(self) -> QWidget:
        self._test = SteadyComboBox()
        self._test.setObjectName("testOn")
        self._test.setAccessibleName(self.tr("Test on"))
        for choice, title in (
            ("nothing", self.tr("Nothing")),
            ("share", self.tr("A share of the rows")),
            ("file", self.tr("A file of its own")),
        ):
            self._test.addItem(title, choice)
        self._test.activated.connect(lambda _: self._on_test(self._test.currentData()))
        self._share = NumberEdit(whole=False, minimum=0, maximum=MAX_PERCENT)
        self._share.setObjectName("field_dataset_held_out_share")
        self._share.setAccessibleName(self.tr("Share of the rows to test on, in percent"))
        self._share.setFixedWidth(72)
        self._share.valueChanged.connect(self._on_share)
        self._percent = secondary_label(self.tr("%"))
        return labelled(self.tr("Test on"), self._test, self._share, self._percent)

    def _rows_part(self) -> QWidget:
        self._rows = NumberEdit(
            whole=True, minimum=0, maximum=1_000_000_000, special=self.tr("all rows")
        )
        self._rows.setObjectName("field_dataset_max_rows")
        self._rows.setAccessibleName(self.tr("Rows to learn from, at most"))
        self._rows.setFixedWidth(96)
        self._rows.valueChanged.connect(
            lambda value: self._draft.set_value(ROWS, None if value == 0 else value)
        )
        return labelled(self.tr("Rows to use"), self._rows)

    def _loss_part(self) -> QWidget:
        self._loss = SteadyComboBox()
        self._loss.setObjectName("field_dataset_loss_on")
        self._loss.setAccessibleName(self.tr("Learn from"))
        for choice, title in (
            ("assistant", self.tr("Every answer")),
            ("last_answer", self.tr("The last answer only")),
            ("everything", self.tr("Questions and answers")),
        ):
            self._loss.addItem(title, choice)
        self._loss.activated.connect(
            lambda _: self._draft.set_value(LOSS, self._loss.currentData())
        )
        self._loss_row = labelled(self.tr("Learn from"), self._loss)
        return self._loss_row

    def _piece_part(self) -> QWidget:
        self._piece = NumberEdit(
            whole=True, minimum=0, maximum=1_000_000, special=self.tr("as long as a row")
        )
        self._piece.setObjectName("field_dataset_chunk_length")
        self._piece.setAccessibleName(self.tr("Length of pieces of plain text, in tokens"))
        self._piece.setFixedWidth(160)
        self._piece.valueChanged.connect(
            lambda value: self._draft.set_value(PIECE, None if value == 0 else value)
        )
        unit = secondary_label(self.tr("tokens"))
        self._piece_row = labelled(self.tr("Pieces of"), self._piece, unit)
        return self._piece_row

    # ---------------------------------------------------------------------------- what is asked

    def _on_test(self, choice: str) -> None:
        self._wants_file = choice == "file"
        if choice == "file":
            self._show()
            self._file.edit.setFocus()
        elif choice == "share":
            share = self._draft.value(SHARE) or FIRST_SHARE
            self._draft.set_values({FILE: None, SHARE: share})
        else:
            self._test.setFocus()
            self._draft.set_values({FILE: None, SHARE: 0.0})
        self._show()

    def _on_share(self, percent: Any) -> None:
        share = percent if isinstance(percent, str) else round(percent / 100, 6)
        self._draft.set_value(SHARE, share)

    def _on_file(self, path: str) -> None:
        # A file and a share at once would read as both; the file is what counts.
        self._draft.set_values({FILE: path or None, SHARE: 0.0})

    def _on_draft_changed(self, field: str) -> None:
        if field == FILE:
            self._wants_file = False
        if field in (SHARE, FILE, ROWS, LOSS, PIECE):
            self._show()

    # ---------------------------------------------------------------------------- what is shown

    def _show(self) -> None:
        draft = self._draft
        share, file = draft.value(SHARE), draft.value(FILE)
        is_typing = self._share.hasFocus()  # 0 may be the beginning of 0.5
        shared = isinstance(share, str) or share > 0 or is_typing
        choice = "file" if file or self._wants_file else "share" if shared else "nothing"
        with QSignalBlocker(self._test), QSignalBlocker(self._share), QSignalBlocker(self._loss):
            self._test.setCurrentIndex(self._test.findData(choice))
            self._share.setValue(share if isinstance(share, str) else round(share * 100, 4))
            self._loss.setCurrentIndex(max(0, self._loss.findData(draft.value(LOSS))))
        with QSignalBlocker(self._rows):
            rows = draft.value(ROWS)
            self._rows.setValue(0 if rows is None else rows)
        with QSignalBlocker(self._piece):
            piece = draft.value(PIECE)
            self._piece.setValue(0 if piece is None else piece)
        self._share.setVisible(choice == "share")
        self._percent.setVisible(choice == "share")
        self._file.setVisible(choice == "file")
        self._file.set_path(file or "")
        self._loss_row.setVisible(not self._is_text)
        self.template.setVisible(not self._is_text)
        self._piece_row.setVisible(self._is_text or draft.value(PIECE) is not None)
        self._errors[SHARE].show_error(self._share_problem(share) if choice == "share" else "")

    def _share_problem(self, share: Any) -> str:
        if isinstance(share, (int, float)) and 0 <= share <= MAX_PERCENT / 100:
            return ""
        return self.tr("A number from 0 to {most}.").format(most=MAX_PERCENT)
