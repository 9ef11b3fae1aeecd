"""A line for every column of the data: its name, an example, and what it is."""

from __future__ import annotations

import json
from typing import Any

from PySide6.QtCore import QSignalBlocker, Qt, Signal
from PySide6.QtWidgets import QGridLayout, QLineEdit, QScrollArea, QVBoxLayout, QWidget

from app.widgets.card import ElidedLabel, secondary_label
from app.widgets.data.data_words import role_titles
from app.widgets.inputs import SteadyComboBox

MAX_COLUMNS = 200  # with a line each; a mapping may name others too
SEARCH_FROM = 12
ROLE_WIDTH = 204
EXAMPLE_CHARACTERS = 200


class ColumnRoles(QWidget):
    """Columns that have a role stand first when they come in; later nothing changes place.

    `role_chosen` gives a column and its new role, "" for none.
    """

    role_chosen = Signal(str, str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._combos: dict[str, SteadyComboBox] = {}
        self._lines: dict[str, list[QWidget]] = {}
        self._search = QLineEdit()
        self._search.setObjectName("columnSearch")
        self._search.setAccessibleName(self.tr("Find a column"))
        self._search.setPlaceholderText(self.tr("Find a column"))
        self._search.setClearButtonEnabled(True)
        self._search.textChanged.connect(self._on_search)
        self._area = QScrollArea()
        self._area.setWidgetResizable(True)
        self._area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._rest = secondary_label(wrap=True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(8)
        layout.addWidget(self._search)
        layout.addWidget(self._area, 1)
        layout.addWidget(self._rest)

    def set_columns(
        self, columns: tuple[str, ...], rows: list[dict[str, Any]], roles: dict[str, str]
    ) -> None:
        """Make the lines anew, for other data."""
        first = [column for column in roles if column in columns]
        shown = [*first, *(column for column in columns if column not in roles)][:MAX_COLUMNS]
        inside = QWidget()
        inside.setObjectName("scrolled")
        grid = QGridLayout(inside)
        grid.setContentsMargins(0, 0, 4, 0)
        grid.setHorizontalSpacing(12)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(0, 1)
        grid.setColumnStretch(1, 1)
        titles = (self.tr("Column"), self.tr("For example"), self.tr("What it is"))
        for place, title in enumerate(titles):
            grid.addWidget(secondary_label(title), 0, place)
        self._combos, self._lines = {}, {}
        for line, column in enumerate(shown, start=1):
            self._lines[column] = parts = self._line(column, rows)
            for place, part in enumerate(parts):
                grid.addWidget(part, line, place)
        grid.setRowStretch(len(shown) + 1, 1)
        self._area.setWidget(inside)
        before: QWidget = self._search
        for combo in self._combos.values():  # made later than what stands below them
            self.setTabOrder(before, combo)
            before = combo
        self._search.clear()
        self._search.setVisible(len(shown) >= SEARCH_FROM)
        self._rest.setText(
            self.tr("The first {shown} of {all} columns stand here.").format(
                shown=len(shown), all=len(columns)
            )
        )
        self._rest.setVisible(len(shown) < len(columns))
        self.show_roles(roles)

    def show_roles(self, roles: dict[str, str]) -> None:
        """Show what the draft holds, without reporting it back."""
        for column, combo in self._combos.items():
            with QSignalBlocker(combo):
                combo.setCurrentIndex(max(0, combo.findData(roles.get(column, ""))))

    def _line(self, column: str, rows: list[dict[str, Any]]) -> list[QWidget]:
        name = ElidedLabel(column)
        example = ElidedLabel(_example(column, rows))
        example.setProperty("role", "secondary")
        combo = SteadyComboBox()
        combo.setObjectName(f"role_{len(self._combos)}")
        combo.setAccessibleName(self.tr("What the column {column} is").format(column=column))
        combo.setFixedWidth(ROLE_WIDTH)
        combo.addItem(self.tr("Not used"), "")
        for role, title in role_titles().items():
            combo.addItem(title, role)
        combo.currentIndexChanged.connect(
            lambda _, column=column, combo=combo: self.role_chosen.emit(column, combo.currentData())
        )
        self._combos[column] = combo
        return [name, example, combo]

    def _on_search(self, text: str) -> None:
        wanted = text.strip().lower()
        for column, parts in self._lines.items():
            for part in parts:
                part.setVisible(wanted in column.lower())


def _example(column: str, rows: list[dict[str, Any]]) -> str:
    """The first cell of the column that is not empty."""
    value = next((row[column] for row in rows if row.get(column) not in (None, "")), "")
    if isinstance(value, str):
        return value[:EXAMPLE_CHARACTERS]
    return json.dumps(value, ensure_ascii=False, default=str)[:EXAMPLE_CHARACTERS]
