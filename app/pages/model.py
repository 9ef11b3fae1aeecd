"""The Model page: which base model is trained."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication, QSignalBlocker, Qt, QTimer, Signal
from PySide6.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from app.background import run_in_background
from app.draft import JobDraft
from app.i18n import explain, integer, number, size
from app.settings import Settings
from app.widgets.card import (
    Card,
    ElidedLabel,
    ErrorLabel,
    PageHeader,
    PrimaryButton,
    SecondaryButton,
    page_layout,
    secondary_label,
)
from app.widgets.inputs import SteadyComboBox
from training_backend import catalog
from training_backend.catalog import CatalogEntry

TYPING_PAUSE_MS = 400


class ModelPage(QWidget):
    """Pick the demo model, one on this computer, a folder, or type a Hub id."""

    continue_requested = Signal()
    try_requested = Signal()  # train now, with what is chosen

    def __init__(self, draft: JobDraft, settings: Settings, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._draft = draft
        self._settings = settings
        self._entries: dict[str, CatalogEntry] = {}
        self._pause = QTimer(self, singleShot=True, interval=TYPING_PAUSE_MS)
        self._pause.timeout.connect(self._take_text)

        layout = page_layout(self)
        self._header = PageHeader(self.tr("Model"), self.tr("The language model to start from"))
        go_on = PrimaryButton(self.tr("Continue"))
        go_on.clicked.connect(self.continue_requested)
        self._header.add_button(go_on)
        layout.addWidget(self._header)
        layout.addWidget(self._choice_card())
        layout.addWidget(self._details_card())
        layout.addWidget(self._local_card(), 1)
        layout.addWidget(self._first_try_card())

        draft.changed.connect(self._on_draft_changed)
        self._show_chosen()
        self.refresh()

    def refresh(self) -> None:
        """Look again for the models on this computer."""
        run_in_background(catalog.list_models, self._show_models, self._on_list_error, self)

    def show_problem(self, field: str, message: str) -> None:
        """Say beside the field what is wrong with the model."""
        self._error.show_error(message)

    # ------------------------------------------------------------------------------- the cards

    def _choice_card(self) -> Card:
        card = Card(self.tr("Base model"))
        self._combo = SteadyComboBox()
        self._combo.setObjectName("modelCombo")
        self._combo.setAccessibleName(self.tr("Base model"))
        self._combo.setEditable(True)
        self._combo.setInsertPolicy(SteadyComboBox.InsertPolicy.NoInsert)
        self._combo.setMinimumContentsLength(20)
        self._combo.setSizeAdjustPolicy(
            SteadyComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self._combo.activated.connect(lambda _: self._take_text())
        self._combo.editTextChanged.connect(lambda _: self._pause.start())
        line = self._combo.lineEdit()
        if line is not None:
            line.editingFinished.connect(self._take_text)
            line.setPlaceholderText(self.tr("A folder, or owner/name on the Hugging Face Hub"))
        folder = SecondaryButton(self.tr("Choose folder"))
        folder.clicked.connect(self._browse)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self._combo, 1)
        row.addWidget(folder)
        card.body.addLayout(row)
        self._error = ErrorLabel("error_model_id")
        card.body.addWidget(self._error)
        card.body.addWidget(
            secondary_label(
                self.tr(
                    "Choose from the list or a folder, or type the name of a model on the "
                    "Hugging Face Hub, such as owner/name."
                ),
                wrap=True,
            )
        )
        return card

    def _details_card(self) -> Card:
        card = Card(self.tr("Details"))
        grid = QGridLayout()
        grid.setHorizontalSpacing(24)
        grid.setVerticalSpacing(2)
        titles = {
            "parameters": self.tr("Parameters"),
            "size": self.tr("Size on disk"),
            "licence": self.tr("Licence"),
            "location": self.tr("Where it is"),
        }
        self._details: dict[str, QLabel] = {}
        for column, (key, title) in enumerate(titles.items()):
            grid.addWidget(secondary_label(title), 0, column)
            value = ElidedLabel("–")
            self._details[key] = value
            grid.addWidget(value, 1, column)
            grid.setColumnStretch(column, 3 if key == "location" else 1)
        card.body.addLayout(grid)
        self._description = secondary_label("", wrap=True)
        card.body.addWidget(self._description)
        self._details_title = card.title
        return card

    def _local_card(self) -> Card:
        card = Card(self.tr("To choose from"))
        self._table = QTableWidget(0, 4)
        self._table.setObjectName("modelTable")
        self._table.setAccessibleName(self.tr("Models to choose from"))
        self._table.setHorizontalHeaderLabels(
            [self.tr("Model"), self.tr("Parameters"), self.tr("Size"), self.tr("State")]
        )
        self._table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self._table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self._table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self._table.setTabKeyNavigation(False)
        self._table.setShowGrid(False)
        self._table.verticalHeader().hide()
        self._table.verticalHeader().setDefaultSectionSize(30)
        header = self._table.horizontalHeader()
        header.setHighlightSections(False)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column, width in ((1, 120), (2, 120), (3, 190)):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
            self._table.setColumnWidth(column, width)
        self._table.itemSelectionChanged.connect(self._on_row_selected)
        card.body.addWidget(self._table, 1)
        card.body.addWidget(
            secondary_label(
                self.tr(
                    "Models that other programs have fetched from the Hugging Face Hub to this "
                    "computer stand here too."
                ),
                wrap=True,
            )
        )
        return card

    def _first_try_card(self) -> Card:
        self._first_try = Card()
        row = QHBoxLayout()
        row.addWidget(
            secondary_label(
                self.tr(
                    "Ready for a first try: the demo model, demo data and quick settings are "
                    "chosen. It runs on any computer."
                ),
                wrap=True,
            ),
            1,
        )
        button = SecondaryButton(self.tr("Go to training"))
        button.clicked.connect(self.try_requested)
        row.addWidget(button)
        self._first_try.body.addLayout(row)
        return self._first_try

    # ---------------------------------------------------------------------------- what is asked

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, self.tr("Choose a model folder"))
        if folder:
            self._settings.add_recent("models", folder)
            self._draft.set_value("model.id", folder)
            self.refresh()

    def _take_text(self) -> None:
        """Take what stands in the combo box: a title from the list, or what was typed."""
        self._pause.stop()
        text = self._combo.currentText().strip()
        index = self._combo.findText(text, Qt.MatchFlag.MatchFixedString)
        chosen = self._combo.itemData(index) if index >= 0 else text
        self._draft.set_value("model.id", chosen)

    def _on_row_selected(self) -> None:
        items = self._table.selectedItems()
        if items:
            self._draft.set_value("model.id", items[0].data(Qt.ItemDataRole.UserRole))

    # ---------------------------------------------------------------------------- what is shown

    def _on_draft_changed(self, field: str) -> None:
        if field == "model.id":
            self._show_chosen()
        if field in ("model.id", "dataset.path"):
            self._show_first_try()

    def _show_chosen(self) -> None:
        chosen = str(self._draft.value("model.id"))
        self._show_first_try()
        with QSignalBlocker(self._combo):
            index = self._combo.findData(chosen)
            if index >= 0:
                self._combo.setCurrentIndex(index)
            elif self._combo.currentText().strip() != chosen:
                self._combo.setEditText(chosen)
        self._select_row(chosen)
        run_in_background(
            lambda: catalog.describe_model(chosen),
            lambda entry: self._show_entry(chosen, entry),
            lambda error: self._show_entry(chosen, error),
            self,
        )

    def _show_first_try(self) -> None:
        demo = (self._draft.value("model.id"), self._draft.value("dataset.path"))
        self._first_try.setVisible(demo == ("demo", "demo"))

    def _show_entry(self, chosen: str, found: CatalogEntry | Exception) -> None:
        if chosen != self._draft.value("model.id"):
            return  # the person has moved on
        self._error.show_error(explain(found) if isinstance(found, Exception) else "")
        if isinstance(found, Exception):
            for label in self._details.values():
                label.setText("–")
            self._details_title.setText(self.tr("Details"))
            self._header.subtitle.setText(self.tr("No usable model is chosen"))
            self._description.setText("")
            return
        unknown = self.tr("not known")
        where = str(found.location) if found.location else self.tr("not on this computer yet")
        self._details_title.setText(found.title)
        self._header.subtitle.setText(found.title)
        self._details["parameters"].setText(_parameters(found) or unknown)
        self._details["size"].setText(size(found.size_bytes) if found.size_bytes else unknown)
        self._details["licence"].setText(found.licence or unknown)
        self._details["location"].setText(where)
        self._description.setText(found.description)
        if found.location and chosen == str(found.location):
            self._settings.add_recent("models", chosen)

    def _show_models(self, entries: list[CatalogEntry]) -> None:
        self._entries = {entry.id: entry for entry in entries}
        recent = [item for item in self._settings.recent("models") if item not in self._entries]
        with QSignalBlocker(self._combo):
            self._combo.clear()
            for entry in entries:
                self._combo.addItem(entry.title, entry.id)
            for folder in recent:
                self._combo.addItem(folder, folder)
            chosen = str(self._draft.value("model.id"))
            self._combo.setCurrentIndex(self._combo.findData(chosen))
            if self._combo.currentIndex() < 0:
                self._combo.setEditText(chosen)
        with QSignalBlocker(self._table):
            self._table.setRowCount(0)
            for entry in entries:
                here = self.tr("on this computer") if entry.location else self.tr("to be fetched")
                length = size(entry.size_bytes) if entry.size_bytes else ""
                self._add_row(entry.id, [entry.title, _parameters(entry), length, here])
            for folder in recent:
                self._add_row(folder, [folder, "", "", self.tr("recent folder")])
        self._select_row(chosen)

    def _on_list_error(self, error: Exception) -> None:
        self._error.show_error(explain(error))

    def _add_row(self, id: str, texts: list[str]) -> None:
        row = self._table.rowCount()
        self._table.insertRow(row)
        for column, text in enumerate(texts):
            item = QTableWidgetItem(text)
            item.setData(Qt.ItemDataRole.UserRole, id)
            self._table.setItem(row, column, item)

    def _select_row(self, chosen: str) -> None:
        with QSignalBlocker(self._table):
            self._table.clearSelection()
            for row in range(self._table.rowCount()):
                item = self._table.item(row, 0)
                if item is not None and item.data(Qt.ItemDataRole.UserRole) == chosen:
                    self._table.selectRow(row)


def _parameters(entry: CatalogEntry) -> str:
    """134.5 million, 8.0 billion."""
    count = entry.parameters
    if count is None:
        return ""
    if count >= 1_000_000_000:
        return QCoreApplication.translate("ModelPage", "{count} billion").format(
            count=number(count / 1e9)
        )
    if count >= 1_000_000:
        return QCoreApplication.translate("ModelPage", "{count} million").format(
            count=number(count / 1e6)
        )
    return integer(count)
