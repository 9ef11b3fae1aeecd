"""A key number with its name above it."""

from __future__ import annotations

from PySide6.QtWidgets import QVBoxLayout, QWidget

from app.widgets.card import number_label, secondary_label

NOTHING_YET = "–"


class StatTile(QWidget):
    """Keeps its height, and a dash until there is a number."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._name = name
        self.value = number_label(NOTHING_YET)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(secondary_label(name))
        layout.addWidget(self.value)
        self.show_value("")

    def show_value(self, text: str) -> None:
        shown = text or NOTHING_YET
        if shown != self.value.text() or not self.accessibleName():
            self.value.setText(shown)
            self.setAccessibleName(f"{self._name}: {shown}")
