"""The Data page: which file is learned from, and what its rows look like."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import QModelIndex, QSignalBlocker, Qt, QTimer, Signal
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QPlainTextEdit,
    QTableView,
    QWidget,
)

from app import theme
from app.background import run_in_background
from app.draft import JobDraft
from app.i18n import explain, integer
from app.models.rows_model import PreviewRow, RowsModel, preview_rows
from app.settings import Settings
from app.widgets.card import (
    Card,
    ErrorLabel,
    PageHeader,
    PrimaryButton,
    QuietButton,
    page_layout,
    secondary_label,
)
from app.widgets.inputs import SteadyComboBox
from app.widgets.path_picker import PathPicker, dropped_path
from training_backend.data.mapping import detect
from training_backend.data.reader import read_rows, resolve_dataset
from training_backend.errors import UserError
from training_backend.job import DataFormat

TYPING_PAUSE_MS = 400
# Larger files are shown by their beginning; training reads them whole.
WHOLE_UP_TO_BYTES = 100_000_000
SHOWN_OF_LARGE = 5_000
DEMO_FILE = "support.jsonl"


@dataclass(frozen=True)
class Preview:
    """What came of reading a file."""

    file: Path
    rows: list[PreviewRow]
    form: DataFormat | None
    problem: str
    whole: bool


def load_preview(path: str, form: DataFormat) -> Preview:
    """Read and map a data file; for a thread. Raises `UserError` when it cannot be read."""
    file = resolve_dataset(path)
    whole = file.stat().st_size <= WHOLE_UP_TO_BYTES
    rows = read_rows(file, None if whole else SHOWN_OF_LARGE)
    problem = ""
    found: DataFormat | None = form
    if form == "auto":
        try:
            found = detect(rows)
        except UserError as error:
            found, problem = None, explain(error)
    return Preview(file, preview_rows(rows, found), found, problem, whole)


class DatasetPage(QWidget):
    """Pick a file by typing, choosing or dropping it; its rows stand below."""

    continue_requested = Signal()

    def __init__(self, draft: JobDraft, settings: Settings, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAcceptDrops(True)
        self._draft = draft
        self._settings = settings
        self._pause = QTimer(self, singleShot=True, interval=TYPING_PAUSE_MS)
        self._pause.timeout.connect(lambda: self._on_picked(self._picker.edit.text().strip()))

        layout = page_layout(self)
        self._header = PageHeader(self.tr("Data"), self.tr("The examples to learn from"))
        go_on = PrimaryButton(self.tr("Continue"))
        go_on.clicked.connect(self.continue_requested)
        self._header.add_button(go_on)
        layout.addWidget(self._header)
        layout.addWidget(self._file_card())
        layout.addWidget(self._rows_card(), 3)
        layout.addWidget(self._row_card(), 2)

        draft.changed.connect(self._on_draft_changed)
        self._show_choice()
        self._load()

    def show_problem(self, field: str, message: str) -> None:
        """Say beside the field what is wrong with the data."""
        (self._format_error if field == "dataset.format" else self._error).show_error(message)

    # ------------------------------------------------------------------------------- the cards

    def _file_card(self) -> Card:
        card = Card(self.tr("Data file"))
        demo = QuietButton(self.tr("Use the demo data"))
        demo.clicked.connect(lambda: self._on_picked("demo"))
        card.add_right(demo)
        self._picker = PathPicker(
            "datasetPathEdit",
            self.tr("Data file"),
            self.tr("Data files (*.jsonl *.json);;All files (*)"),
        )
        self._picker.edit.setPlaceholderText(
            self.tr("Choose a JSON or JSONL file, or drop one here")
        )
        self._picker.suggest(self._settings.recent("datasets"))
        self._picker.picked.connect(self._on_picked)
        self._picker.edit.textEdited.connect(lambda _: self._pause.start())
        self._format = SteadyComboBox()
        self._format.setObjectName("field_dataset_format")
        self._format.setAccessibleName(self.tr("Format of the rows"))
        self._format.setFixedWidth(210)
        for name, title in self._format_titles().items():
            self._format.addItem(title, name)
        self._format.currentIndexChanged.connect(
            lambda _: self._draft.set_value("dataset.format", self._format.currentData())
        )
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self._picker, 1)
        row.addWidget(self._format)
        card.body.addLayout(row)
        self._error = ErrorLabel("error_dataset_path")
        self._format_error = ErrorLabel("error_dataset_format")
        card.body.addWidget(self._error)
        card.body.addWidget(self._format_error)
        return card

    def _rows_card(self) -> Card:
        card = Card(self.tr("Rows"))
        self._state = secondary_label()
        self._state.setFont(theme.font(13, tabular=True))
        card.add_right(self._state)
        self._model = RowsModel()
        self._table = QTableView()
        self._table.setObjectName("datasetPreviewTable")
        self._table.setAccessibleName(self.tr("Rows of the data file"))
        self._table.setModel(self._model)
        self._table.setShowGrid(False)
        self._table.setWordWrap(False)
        self._table.setTabKeyNavigation(False)
        self._table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self._table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self._table.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self._table.verticalHeader().setDefaultSectionSize(30)
        self._table.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        header = self._table.horizontalHeader()
        header.setHighlightSections(False)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        self._table.selectionModel().currentRowChanged.connect(self._on_row_changed)
        card.body.addWidget(self._table, 1)
        self._empty = secondary_label(self.tr("The rows of the file will stand here."))
        card.body.addWidget(self._empty, 1, Qt.AlignmentFlag.AlignCenter)
        self._table.hide()
        return card

    def _row_card(self) -> Card:
        card = Card(self.tr("The selected row"))
        self._place = secondary_label()
        self._place.setFont(theme.font(13, tabular=True))
        card.add_right(self._place)
        before, after = "‹", "›"  # noqa: RUF001
        for text, name, step in (
            (before, self.tr("Row before"), -1),
            (after, self.tr("Next row"), 1),
        ):
            button = QuietButton(text)
            button.setAccessibleName(name)
            button.setToolTip(name)
            button.clicked.connect(lambda _=False, step=step: self._step(step))
            card.add_right(button)
        self._view = QPlainTextEdit()
        self._view.setObjectName("tokenView")
        self._view.setAccessibleName(self.tr("The selected row"))
        self._view.setReadOnly(True)
        self._view.setTabChangesFocus(True)
        self._view.setFont(theme.mono_font())
        self._view.setPlaceholderText(self.tr("Choose a row above to read it whole."))
        card.body.addWidget(self._view, 1)
        return card

    # ---------------------------------------------------------------------------- what is asked

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if dropped_path(event):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        event.acceptProposedAction()
        self._picker.pick(dropped_path(event))

    def _on_picked(self, path: str) -> None:
        self._pause.stop()
        chosen = "demo" if path == DEMO_FILE else path
        self._draft.set_value("dataset.path", chosen)

    def _step(self, by: int) -> None:
        row = self._table.currentIndex().row() + by
        if 0 <= row < self._model.rowCount():
            self._table.selectRow(row)

    # ---------------------------------------------------------------------------- what is shown

    def _on_draft_changed(self, field: str) -> None:
        if field in ("dataset.path", "dataset.format"):
            self._show_choice()
            self._load()

    def _show_choice(self) -> None:
        path = str(self._draft.value("dataset.path"))
        self._picker.set_path(DEMO_FILE if path == "demo" else path)
        with QSignalBlocker(self._format):
            self._format.setCurrentIndex(self._format.findData(self._draft.value("dataset.format")))

    def _load(self) -> None:
        path = str(self._draft.value("dataset.path"))
        form: DataFormat = self._draft.value("dataset.format")
        self._state.setText(self.tr("reading"))
        run_in_background(
            lambda: load_preview(path, form),
            lambda preview: self._show_preview(path, preview),
            lambda error: self._show_error(path, error),
            self,
        )

    def _show_preview(self, path: str, preview: Preview) -> None:
        if path != self._draft.value("dataset.path"):
            return  # the person has moved on
        self._error.show_error("")
        self._format_error.show_error(preview.problem)
        self._model.show_rows(preview.rows, preview.form is not None)
        count = integer(len(preview.rows))
        rows = self.tr("{count} rows") if preview.whole else self.tr("the first {count} rows")
        titles = self._format_titles()
        form = titles[preview.form] if preview.form else self.tr("unknown")
        self._header.subtitle.setText(
            self.tr("{file}, {rows}, format: {form}").format(
                file=preview.file.name, rows=rows.format(count=count), form=form
            )
        )
        unusable = sum(bool(row.problem) for row in preview.rows)
        self._state.setText(
            self.tr("{count} of {all} cannot be used").format(count=integer(unusable), all=count)
            if unusable
            else self.tr("{count} rows").format(count=count)
        )
        self._state.setProperty("role", "careful" if unusable else "secondary")
        self._state.style().polish(self._state)
        self._fit_columns()
        self._empty.hide()
        self._table.show()
        self._table.selectRow(0)
        if path != "demo":
            self._settings.add_recent("datasets", path)

    def _show_error(self, path: str, error: Exception) -> None:
        if path != self._draft.value("dataset.path"):
            return
        self._error.show_error(explain(error))
        self._format_error.show_error("")
        self._model.show_rows([], mapped=True)
        self._header.subtitle.setText(self.tr("No usable data file is chosen"))
        self._state.setText("")
        self._place.setText("")
        self._view.clear()
        self._table.hide()
        self._empty.show()

    def _fit_columns(self) -> None:
        """Share the width among the texts; many raw columns scroll instead."""
        header = self._table.horizontalHeader()
        count = self._model.columnCount()
        stretch = count <= 4
        header.setSectionResizeMode(
            QHeaderView.ResizeMode.Stretch if stretch else QHeaderView.ResizeMode.Interactive
        )
        last_is_count = self._model.headerData(count - 1, Qt.Orientation.Horizontal) == self.tr(
            "Messages"
        )
        if stretch and count > 1 and last_is_count:
            header.setSectionResizeMode(count - 1, QHeaderView.ResizeMode.Fixed)
            self._table.setColumnWidth(count - 1, 96)

    def _on_row_changed(self, current: QModelIndex, before: QModelIndex) -> None:
        if not current.isValid():
            return
        row = self._model.row(current.row())
        self._view.setPlainText(_as_text(row))
        self._place.setText(
            self.tr("row {row} of {all}").format(
                row=integer(current.row() + 1), all=integer(self._model.rowCount())
            )
        )

    def _format_titles(self) -> dict[str, str]:
        return {
            "auto": self.tr("Detect the format"),
            "messages": self.tr("messages"),
            "sharegpt": self.tr("ShareGPT"),
            "alpaca": self.tr("Alpaca"),
            "prompt_completion": self.tr("prompt and completion"),
            "text": self.tr("plain text"),
        }


def _as_text(row: PreviewRow) -> str:
    """A row in plain words: who says what; or its columns where it does not map."""
    if row.messages:
        return "\n\n".join(f"{m['role']}\n{m['content']}" for m in row.messages)
    columns = "\n\n".join(f"{key}\n{value}" for key, value in row.raw.items())
    return f"{row.problem}\n\n{columns}" if row.problem else columns
