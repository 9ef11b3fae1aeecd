"""What the list of models is narrowed down to, in one row."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QCheckBox, QWidget

from app.i18n import integer
from app.models.models_model import Filters
from app.widgets.flow import FlowRow
from app.widgets.inputs import SteadyComboBox

_BILLIONS = (1, 2, 4, 9, 15, 35)


class ModelFilters(FlowRow):
    """Says by `changed` that `filters()` are others now."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._size = SteadyComboBox()
        self._size.setObjectName("modelSizeFilter")
        self._size.setAccessibleName(self.tr("Size"))
        self._size.addItem(self.tr("Any size"), None)
        for count in _BILLIONS:
            text = self.tr("Up to {count} billion").format(count=integer(count))
            # A model "of 8 billion" has a little more: Llama 3.1 8B has 8.03.
            self._size.addItem(text, count * 1_000_000_000 + 99_000_000)
        self._licence = SteadyComboBox()
        self._licence.setObjectName("modelLicenceFilter")
        self._licence.setAccessibleName(self.tr("Licence"))
        self._licence.addItem(self.tr("Any licence"), False)
        self._licence.addItem(self.tr("Open licence"), True)
        self._licence.setToolTip(self.tr("Open: Apache, MIT, BSD and the like allow any use."))
        self._fits = self._box("modelFitsFilter", self.tr("Fits this machine"))
        self._here = self._box("modelHereFilter", self.tr("On this computer"))
        self._free = self._box("modelNoGatedFilter", self.tr("Open to all"))
        self._free.setToolTip(self.tr("Leaves out models that one must ask their makers for."))
        for combo in (self._size, self._licence):
            self.add(combo)
            combo.currentIndexChanged.connect(lambda _: self.changed.emit())
        for box in (self._fits, self._here, self._free):
            self.add(box)

    def filters(self) -> Filters:
        return Filters(
            max_parameters=self._size.currentData(),
            open_licence=bool(self._licence.currentData()),
            no_gated=self._free.isChecked(),
            fits=self._fits.isChecked(),
            here=self._here.isChecked(),
        )

    def clear(self) -> None:
        """Filter nothing."""
        self.blockSignals(True)
        for combo in (self._size, self._licence):
            combo.setCurrentIndex(0)
        for box in (self._fits, self._here, self._free):
            box.setChecked(False)
        self.blockSignals(False)
        self.changed.emit()

    def _box(self, name: str, title: str) -> QCheckBox:
        box = QCheckBox(title)
        box.setObjectName(name)
        box.setAccessibleName(title)
        box.toggled.connect(lambda _: self.changed.emit())
        return box
