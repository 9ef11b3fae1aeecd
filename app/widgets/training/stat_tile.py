"""A key number with its name above it."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from app.widgets.card import number_label, secondary_label

NOTHING_YET = "–"
GAP = 8  # pixels


class StatTile(QWidget):
    """Keeps its height, and a dash until there is a number."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._name = name
        self.value = number_label(NOTHING_YET)
        self._beside = secondary_label()
        self._beside.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        row = QHBoxLayout()
        row.setSpacing(GAP)
        row.addWidget(self.value, 0, Qt.AlignmentFlag.AlignBaseline)
        row.addWidget(self._beside, 1, Qt.AlignmentFlag.AlignBaseline)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(secondary_label(name))
        layout.addLayout(row)
        self._words = ""
        self.show_value("")

    def show_value(self, text: str, beside: str = "") -> None:
        """Show it; what stands beside it is small, and left out where there is no room."""
        shown = text or NOTHING_YET
        if (shown, beside) != (self.value.text(), self._words) or not self.accessibleName():
            self.value.setText(shown)
            self._words = beside
            self.setAccessibleName(", ".join(filter(None, (f"{self._name}: {shown}", beside))))
            self._fit()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        room = self.width() - self.value.sizeHint().width() - GAP
        fits = self._beside.fontMetrics().horizontalAdvance(self._words) <= room
        self._beside.setText(self._words if fits else "")
