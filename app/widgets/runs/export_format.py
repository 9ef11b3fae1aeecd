"""The second step of the export wizard: in what form, and what each form takes."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QRadioButton,
    QVBoxLayout,
    QWidget,
    QWizardPage,
)

from app import i18n, theme
from app.models.export_sources import ExportSource
from app.widgets import figures
from app.widgets.card import Card, ErrorLabel, scroll_area, secondary_label
from app.widgets.inputs import SteadyComboBox
from app.widgets.runs import export_words
from app.widgets.runs.export_options import ExportOptions
from app.widgets.training.stat_tile import StatTile
from training_backend.export.needs import Material, Needs, needs
from training_backend.job import ExportFormat, ExportJob, GgufQuantization

INDENT = 26  # what belongs to a radio button begins below its text
_NAMES: dict[ExportFormat, str] = {
    "safetensors": "exportFormatMerged",
    "gguf": "exportFormatGguf",
    "bnb_4bit": "exportFormatBnb4bit",
    "adapter": "exportFormatAdapter",
    "gguf_adapter": "exportFormatGgufAdapter",
}


class FormatStep(QWizardPage):
    """Five forms with their sizes; below them what the chosen one takes."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setTitle(self.tr("In what form"))
        self.setSubTitle(self.tr("It depends on the program that is to load it."))
        self._source: ExportSource | None = None
        self._material: Material | None = None
        self._group = QButtonGroup(self)
        self._radios: dict[ExportFormat, QRadioButton] = {}
        self._sizes = {form: secondary_label() for form in export_words.FORMATS}
        self._abouts = {form: secondary_label(wrap=True) for form in export_words.FORMATS}
        self.bits = SteadyComboBox()
        self.bits.setObjectName("exportQuantizationCombo")
        self.bits.setAccessibleName(self.tr("Bits a weight in the GGUF file"))
        for kind, _ in export_words.QUANTIZATIONS:
            self.bits.addItem(export_words.quantization(kind, None), kind)
        self.options = ExportOptions()
        content = QWidget()
        content.setObjectName("scrolled")
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 11, 11)
        column.setSpacing(12)
        self._error = ErrorLabel("error_export_format")
        column.addWidget(self._error)
        column.addLayout(self._forms())
        column.addWidget(self._takes())
        column.addWidget(self.options)
        column.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(11, 11, 0, 0)
        self._area = scroll_area(content)
        self._area.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # it follows the focus of what is in it
        layout.addWidget(self._area)
        self.merged, self.gguf = self._radios["safetensors"], self._radios["gguf"]
        self.adapter = self._radios["adapter"]
        self.merged.setChecked(True)
        self._group.buttonToggled.connect(lambda *_: self._on_form())
        self.bits.currentIndexChanged.connect(lambda _: self._show())
        self.options.changed.connect(self._show)
        self.options.fold.toggled.connect(lambda _: QTimer.singleShot(0, self, self._scroll))
        self._show()

    def show_source(self, source: ExportSource) -> None:
        """Of a model of which every weight was trained there is no adapter."""
        self._source = source
        whole = source.every_weight
        for form in ("adapter", "gguf_adapter"):
            self._radios[form].setEnabled(not whole)
            if whole and self._radios[form].isChecked():
                self.merged.setChecked(True)
        for form, label in self._abouts.items():
            label.setText(export_words.about(form, every_weight=whole))
        self._show()

    def show_material(self, material: Material | None) -> None:
        """What the sizes are told from; None while that is looked up, or where nothing tells."""
        self._material = material
        self._show()

    def initializePage(self) -> None:
        self._radios[self.format()].setFocus()

    def format(self) -> ExportFormat:
        return next(form for form, radio in self._radios.items() if radio.isChecked())

    def quantization(self) -> GgufQuantization:
        return self.bits.currentData() or "q8_0"

    def fields(self) -> dict[str, Any]:
        """What the choices here mean for an `ExportJob`."""
        chosen = {"format": self.format(), "quantization": self.quantization()}
        return {**chosen, **self.options.fields()}

    def show_problem(self, message: str) -> None:
        self._error.show_error(message)

    def validatePage(self) -> bool:
        return self.options.is_valid()

    # -------------------------------------------------------------------------------- what is shown

    def _on_form(self) -> None:
        self.show_problem("")
        self._show()

    def _show(self) -> None:
        form = self.format()
        self.bits.setEnabled(form == "gguf")
        self.options.offer(form, in_4bit=self._source is not None and self._source.in_4bit)
        for index, (kind, _) in enumerate(export_words.QUANTIZATIONS):
            told = self._needs("gguf", kind)
            self.bits.setItemText(
                index, export_words.quantization(kind, told.size_bytes if told else None)
            )
        for each, label in self._sizes.items():
            told = self._needs(each) if self._radios[each].isEnabled() else None
            label.setText(i18n.size(told.size_bytes) if told else "")
        found = self._needs(form)
        if found is None:
            for tile in (self._size, self._room, self._memory, self._time):
                tile.show_value("")
            self._note.setVisible(False)
            return
        download = i18n.size(found.download_bytes) if found.download_bytes else ""
        words = self.tr("The base model is not on this computer; it is downloaded first, {size}.")
        self._note.setText(words.format(size=download) if download else "")
        self._note.setVisible(bool(download))
        self._size.show_value(i18n.size(found.size_bytes))
        self._room.show_value(i18n.size(found.disk_bytes))
        self._memory.show_value(figures.gigabytes(found.ram_bytes))
        self._time.show_value(figures.duration(found.writing_seconds))

    def _scroll(self) -> None:
        """What was just unfolded lies below the edge."""
        if self.options.fold.isChecked():
            self._area.ensureWidgetVisible(self.options)

    def _needs(self, form: ExportFormat, kind: GgufQuantization | None = None) -> Needs | None:
        if self._material is None:
            return None
        fields = {**self.fields(), "format": form}
        if kind is not None:
            fields["quantization"] = kind
        return needs(self._material, ExportJob(run="-", out="-", **fields))

    # --------------------------------------------------------------------------------- the widgets

    def _forms(self) -> QVBoxLayout:
        column = QVBoxLayout()
        column.setSpacing(0)
        for form in export_words.FORMATS:
            radio = QRadioButton(export_words.choice(form))
            radio.setObjectName(_NAMES[form])
            radio.setAccessibleName(radio.text())
            radio.setAccessibleDescription(export_words.about(form, every_weight=False))
            self._radios[form] = radio
            self._group.addButton(radio)
            self._sizes[form].setFont(theme.font(13, tabular=True))
            row = QHBoxLayout()
            row.addWidget(radio)
            row.addStretch(1)
            row.addWidget(self._sizes[form])
            column.addLayout(row)
            below = QVBoxLayout()
            below.setContentsMargins(INDENT, 0, 0, 6)
            below.setSpacing(4)
            below.addWidget(self._abouts[form])
            if form == "gguf":
                below.addWidget(self.bits)
            column.addLayout(below)
        return column

    def _takes(self) -> Card:
        card = Card()
        self._size = StatTile(self.tr("Size of the result"))
        self._room = StatTile(self.tr("Room on the disk"))
        self._memory = StatTile(self.tr("Memory"))
        self._time = StatTile(self.tr("Time to write, about"))
        row = QHBoxLayout()
        row.setSpacing(16)
        for tile in (self._size, self._room, self._memory, self._time):
            row.addWidget(tile, 1)
        card.body.addLayout(row)
        self._note = secondary_label(wrap=True)
        card.body.addWidget(self._note)
        return card
