"""The base models to choose from, as a table that sorts and narrows down."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from PySide6.QtCore import (
    QAbstractTableModel,
    QCoreApplication,
    QModelIndex,
    QPersistentModelIndex,
    QSortFilterProxyModel,
    Qt,
)
from PySide6.QtGui import QColor

from app import theme
from app.i18n import size
from app.widgets import figures
from app.widgets.card import plain_tool_tip
from training_backend.models.catalog_entry import CatalogEntry

Badge = Literal["comfortable", "tight", "fits_in_4bit", "does_not_fit", "unknown"]
State = Literal[
    "here", "coming", "paused", "needs_access", "to_download", "not_trainable"
]  # fmt: skip

ENTRY_ROLE = Qt.ItemDataRole.UserRole  # the CatalogEntry
SORT_ROLE = Qt.ItemDataRole.UserRole + 1
BADGE_ROLE = Qt.ItemDataRole.UserRole + 2
MODEL, PARAMETERS, SIZE, LICENCE, STATE, FIT = range(6)
_NUMBERS = (PARAMETERS, SIZE)
_Index = QModelIndex | QPersistentModelIndex

# Licences that allow any use, with no more than naming the authors.
OPEN_LICENCES = frozenset(
    {
        "apache-2.0", "mit", "isc", "bsd", "bsd-2-clause", "bsd-3-clause", "unlicense", "cc0-1.0",
        "cc-by-4.0", "afl-3.0", "zlib",
    }
)  # fmt: skip
# In the order of the best; "unknown" comes last.
_FITS: tuple[Badge, ...] = ("comfortable", "tight", "fits_in_4bit", "does_not_fit", "unknown")
FITTING: tuple[Badge, ...] = _FITS[:3]


class ModelsModel(QAbstractTableModel):
    """One row a model: first those that are here, then the catalogue, then what the Hub found."""

    def __init__(self) -> None:
        super().__init__()
        self._entries: list[CatalogEntry] = []
        self._badges: dict[str, Badge] = {}
        self._paused: frozenset[str] = frozenset()
        self._coming = ""

    def show_models(self, entries: Iterable[CatalogEntry], paused: Iterable[str]) -> None:
        """Show these.

        Args:
            paused: ids of models whose download is not finished.
        """
        new, halves = list(entries), frozenset(paused)
        if new != self._entries or halves != self._paused:
            self.beginResetModel()
            self._entries, self._paused = new, halves
            self.endResetModel()

    def show_badges(self, badges: dict[str, Badge]) -> None:
        """How these would fit; what was said of others stays."""
        self._badges |= badges
        if self._entries:
            last = len(self._entries) - 1
            self.dataChanged.emit(self.index(0, FIT), self.index(last, FIT))

    def show_coming(self, id: str) -> None:
        """Which one is being downloaded; "" for none."""
        if id != self._coming:
            self._coming = id
            if self._entries:
                last = len(self._entries) - 1
                self.dataChanged.emit(self.index(0, STATE), self.index(last, STATE))

    def entries(self) -> list[CatalogEntry]:
        return self._entries

    def badge(self, id: str) -> Badge:
        return self._badges.get(id, "unknown")

    def state(self, entry: CatalogEntry) -> State:
        if entry.problem:
            return "not_trainable"
        if entry.location is not None:
            return "here"
        if entry.id == self._coming:
            return "coming"
        if entry.id in self._paused:
            return "paused"
        return "needs_access" if entry.gated else "to_download"

    def row_of(self, id: str) -> int:
        """The row of a model; -1 when it is not there."""
        ids = [entry.id for entry in self._entries]
        return ids.index(id) if id in ids else -1

    def rowCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self._entries)

    def columnCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else 6

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _alignment(section)
        if role != Qt.ItemDataRole.DisplayRole:
            return None
        return (
            _tr("Model"), _tr("Parameters"), _tr("Download"), _tr("Licence"), _tr("State"),
            _tr("Fits this machine"),
        )[section]  # fmt: skip

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        entry, column = self._entries[index.row()], index.column()
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self._text(entry, column)
            case Qt.ItemDataRole.ToolTipRole:
                return plain_tool_tip(self._whole(entry, column))
            case Qt.ItemDataRole.ForegroundRole:
                return self._color(entry, column)
            case Qt.ItemDataRole.FontRole if column in _NUMBERS:
                return theme.font(13, tabular=True)
            case Qt.ItemDataRole.TextAlignmentRole:
                return _alignment(column)
        if role == ENTRY_ROLE:
            return entry
        if role == BADGE_ROLE:
            return self.badge(entry.id)
        return self._sort_key(entry, column) if role == SORT_ROLE else None

    def _text(self, entry: CatalogEntry, column: int) -> str:
        match column:
            case 0:
                return entry.title
            case 1:
                return figures.millions(entry.parameters) if entry.parameters else "–"
            case 2:
                return size(entry.size_bytes) if entry.size_bytes else "–"
            case 3:
                return entry.licence or "–"
            case 4:
                return state_word(self.state(entry))
        return "–" if entry.problem else badge_word(self.badge(entry.id))

    def _whole(self, entry: CatalogEntry, column: int) -> str:
        if entry.problem:
            return entry.problem
        match column:
            case 0:
                return f"{entry.id}\n{entry.description}"
            case 3:
                return entry.licence_note or entry.licence
            case 5:
                return badge_sentence(self.badge(entry.id))
        return self._text(entry, column)

    def _color(self, entry: CatalogEntry, column: int) -> QColor | None:
        colors = theme.current()
        if entry.problem:
            return colors.color("disabled")
        if column == FIT:
            return colors.color(badge_role(self.badge(entry.id)))
        if column in (LICENCE, STATE) and self.state(entry) != "here":
            return colors.color("secondary")
        return None

    def _sort_key(self, entry: CatalogEntry, column: int) -> Any:
        match column:
            case 1:
                return float(entry.parameters or "inf")
            case 2:
                return float(entry.size_bytes or "inf")
            case 5:
                return float(_FITS.index(self.badge(entry.id))) + (10.0 if entry.problem else 0.0)
        return self._text(entry, column)


@dataclass(frozen=True)
class Filters:
    """What the list is narrowed down to. `max_parameters` None is any size."""

    max_parameters: int | None = None
    open_licence: bool = False
    no_gated: bool = False
    fits: bool = False
    here: bool = False


class FoundModels(QSortFilterProxyModel):
    """The models that have all the words and pass the filters; sorted by a pressed header."""

    def __init__(self, models: ModelsModel) -> None:
        super().__init__()
        self._models = models
        self._words: list[str] = []
        self._filters = Filters()
        self.setSourceModel(models)
        self.setSortRole(SORT_ROLE)
        self.setSortCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)

    def narrow(self, query: str, filters: Filters) -> None:
        """Show only what has these words and passes these filters."""
        words = query.casefold().split()
        if (words, filters) != (self._words, self._filters):
            self._words, self._filters = words, filters
            self.invalidate()

    def filterAcceptsRow(self, source_row: int, source_parent: _Index) -> bool:
        entry, wanted = self._models.entries()[source_row], self._filters
        text = f"{entry.title} {entry.id} {entry.family} {entry.licence}".casefold()
        if not all(word in text for word in self._words):
            return False
        if wanted.max_parameters is not None and (
            entry.parameters is None or entry.parameters > wanted.max_parameters
        ):
            return False
        return (
            (not wanted.open_licence or entry.licence.casefold() in OPEN_LICENCES)
            and (not wanted.no_gated or not entry.gated)
            and (not wanted.fits or self._models.badge(entry.id) in FITTING)
            and (not wanted.here or entry.location is not None)
        )


# ------------------------------------------------------------------------------------ in words


def _tr(text: str) -> str:
    return QCoreApplication.translate("ModelsModel", text)


def state_word(state: State) -> str:
    return {
        "here": _tr("on this computer"),
        "coming": _tr("downloading"),
        "paused": _tr("download paused"),
        "needs_access": _tr("needs access"),
        "to_download": _tr("to be downloaded"),
        "not_trainable": _tr("cannot be trained"),
    }[state]


def badge_word(badge: Badge) -> str:
    return {
        "comfortable": _tr("comfortable"),
        "tight": _tr("tight"),
        "fits_in_4bit": _tr("fits in 4-bit"),
        "does_not_fit": _tr("does not fit"),
        "unknown": "–",
    }[badge]


def badge_sentence(badge: Badge) -> str:
    return {
        "comfortable": _tr("Fits in 16-bit with room to spare, at the settings as they are."),
        "tight": _tr("Just fits in 16-bit, at the settings as they are."),
        "fits_in_4bit": _tr("Fits with 4-bit weights (QLoRA), at the settings as they are."),
        "does_not_fit": _tr("Does not fit even in 4-bit, at the settings as they are."),
        "unknown": _tr("Not known yet."),
    }[badge]


def badge_role(badge: Badge) -> str:
    """The colour's role in the palette; never shown without the word."""
    return {
        "comfortable": "good",
        "tight": "careful",
        "fits_in_4bit": "accent",
        "does_not_fit": "bad",
        "unknown": "secondary",
    }[badge]


def _alignment(column: int) -> Qt.AlignmentFlag:
    side = Qt.AlignmentFlag.AlignRight if column in _NUMBERS else Qt.AlignmentFlag.AlignLeft
    return side | Qt.AlignmentFlag.AlignVCenter
