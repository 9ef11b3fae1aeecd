"""The card where a base model is looked for and picked: field, filters, table, and a line below."""

from __future__ import annotations

import os
from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHBoxLayout, QWidget

from app.desks.model_finder import ModelFinder
from app.i18n import explain, integer
from app.widgets.card import Card, ErrorLabel, QuietButton, SecondaryButton, secondary_label
from app.widgets.model.model_field import ModelField
from app.widgets.model.model_filters import ModelFilters
from app.widgets.model.model_table import ModelTable
from training_backend import preferences
from training_backend.hub import hub_cache
from training_backend.models.catalog_entry import CatalogEntry

LEAST_HEIGHT = 196


class ModelChooser(Card):
    """Shows what the finder finds; says by `chosen` which model, or which place, is wanted."""

    chosen = Signal(str)  # the id of one in the list; or owner/name, an address, a folder
    folder_requested = Signal()

    def __init__(self, finder: ModelFinder, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.setAccessibleName(self.tr("Base model"))
        self._finder = finder
        self._listed: list[CatalogEntry] = []
        self._told: dict[str, CatalogEntry] = {}  # by the Hub
        self._paused: set[str] = set()
        self._chosen = ""
        self._query = ""
        self._note = ""
        self.error = ErrorLabel("error_model_id")
        self._filters = ModelFilters()
        self._table = ModelTable()
        self.body.addLayout(self._field_row())
        self.body.addWidget(self.error)
        self.body.addWidget(self._filters)
        self.body.addWidget(self._table, 1)
        self.body.addLayout(self._status_row())
        self.set_flexible(LEAST_HEIGHT)
        self._connect()

    def set_chosen(self, id: str) -> None:
        """Show which model is chosen."""
        self._chosen = id
        if not self._query:
            self._field.show_chosen(id)
        self._table.select(id)

    def entries(self) -> list[CatalogEntry]:
        """What the table holds: the list, and of other finds what is looked for or chosen."""
        known = {entry.id for entry in self._listed}
        others = (entry for entry in self._told.values() if entry.id not in known)
        return self._listed + [e for e in others if self._query or e.id == self._chosen]

    def told(self, id: str) -> CatalogEntry | None:
        """What the Hub told of a model."""
        return self._told.get(id)

    def add_told(self, entry: CatalogEntry) -> None:
        self._told[entry.id] = entry
        self._fill()

    def forget_told(self, id: str) -> None:
        """It may have changed: it was downloaded, or the download was given up."""
        self._told.pop(id, None)

    def show_paused(self, ids: set[str]) -> None:
        """The models whose download is not finished."""
        self._paused = ids
        self._fill()

    def show_coming(self, id: str) -> None:
        """The model that is being downloaded; "" for none."""
        self._table.models.show_coming(id)

    def clear_search(self) -> None:
        self._search("")

    def search_again(self) -> None:
        """After the switch “work offline” was flipped."""
        self._say("")
        self._finder.search(self._query, self._filters.filters())

    def focus_field(self) -> None:
        self._field.setFocus()

    # ------------------------------------------------------------------------------- the parts

    def _field_row(self) -> QHBoxLayout:
        self._field = ModelField()
        folder = SecondaryButton(self.tr("Choose folder"))
        folder.setToolTip(self.tr("A model's folder, or an adapter's to train on from"))
        folder.clicked.connect(self.folder_requested)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self._field, 1)
        row.addWidget(folder)
        return row

    def _status_row(self) -> QHBoxLayout:
        self._status = secondary_label()
        self._status.setObjectName("modelStatus")
        self._show_all = QuietButton(self.tr("Show all models"))
        self._show_all.setObjectName("modelClear")
        self._show_all.clicked.connect(self._clear)
        row = QHBoxLayout()
        row.addWidget(self._status)
        row.addWidget(self._show_all)
        row.addStretch(1)
        return row

    def _connect(self) -> None:
        self._field.picked.connect(lambda id: self._on_named(id, ""))
        self._field.named.connect(lambda place: self._on_named(place, _words_of(place)))
        self._field.searched.connect(self._search)
        self._field.left_empty.connect(lambda: self._field.show_chosen(self._chosen))
        self._field.entered.connect(self._go_on_in_table)
        self._field.cleared.connect(self._clear)
        self._filters.changed.connect(self._narrow)
        self._table.chosen.connect(lambda entry: self.chosen.emit(entry.id))
        self._table.typed.connect(self._field.begin_search)
        self._table.clear_requested.connect(self._clear)
        self._finder.listed.connect(self._on_listed)
        self._finder.list_failed.connect(lambda error: self.error.show_error(explain(error)))
        self._finder.searching.connect(lambda: self._say(self.tr("Searching the Hub…")))
        self._finder.found.connect(self._on_found)
        self._finder.no_connection.connect(self._on_no_connection)
        self._finder.search_failed.connect(lambda error: self._say(explain(error)))
        self._finder.badges_arrived.connect(self._on_badges)

    # ----------------------------------------------------------------------------- the search

    def _on_named(self, place: str, words: str) -> None:
        self._search(words)
        self.chosen.emit(place)

    def _go_on_in_table(self) -> None:
        if self._query and self._query != self._chosen:
            self._table.take_first()
        self._table.setFocus()

    def _search(self, query: str) -> None:
        if query != self._query:
            self._query = query
            self._field.set_searching(bool(query))
            self._note = ""
            self._narrow()

    def _clear(self) -> None:
        self._query = self._note = ""
        self._field.set_searching(False)
        self._filters.clear()
        self._field.show_chosen(self._chosen)

    def _narrow(self) -> None:
        """Show what matches here at once, and what the Hub has as it comes."""
        filters = self._filters.filters()
        self._fill()
        self._table.narrow(self._query, filters, self._chosen)
        self._finder.search(self._query, filters)
        self._show_status()

    # ---------------------------------------------------------------------------- what is shown

    def _fill(self) -> None:
        entries = self.entries()
        self._table.show_models(entries, self._paused, self._chosen)
        self._finder.judge(entries)
        self._show_status()

    def _on_listed(self, entries: list[CatalogEntry], unfinished: dict[str, int]) -> None:
        self._listed, self._paused = entries, set(unfinished)
        usable = [entry for entry in entries if not entry.problem or entry.source == "folder"]
        self._field.set_models([(entry.title, entry.id) for entry in usable])
        if not self._query and not self._field.is_typing():
            self._field.show_chosen(self._chosen)
        self._fill()

    def _on_found(self, models: list[CatalogEntry], left_out: int) -> None:
        self._told |= {entry.id: entry for entry in models}
        self._note = ""
        if left_out:
            words = self.tr("The Hub has {count} more that cannot be trained.")
            self._note = words.format(count=integer(left_out))
        self._fill()

    def _on_badges(self, badges: dict[str, Any]) -> None:
        self._table.models.show_badges(badges)
        self._show_status()

    def _on_no_connection(self) -> None:
        self._say(
            self.tr("Working offline: showing what is here and the catalogue.")
            if preferences.is_offline()
            else self.tr("No connection: showing what is here and the catalogue.")
        )

    def _say(self, note: str) -> None:
        self._note = note
        self._show_status()

    def _show_status(self) -> None:
        shown, total = self._table.found.rowCount(), self._table.models.rowCount()
        text = self.tr("{shown} of {total} models.")
        text = text.format(shown=integer(shown), total=integer(total))
        self._status.setText(f"{text} {self._note}".rstrip())
        self._show_all.setVisible(0 < shown < total)  # else the table itself offers it


def _words_of(place: str) -> str:
    """What to look for when a place was typed: the name on the Hub, as far as it is there."""
    return "" if os.path.isabs(place) else (hub_cache.parse_id(place) or "")
