"""Several runs as a table: what came out, and in which settings they differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, Qt
from PySide6.QtGui import QFont, QIcon, QPainter, QPixmap
from PySide6.QtWidgets import QHeaderView, QWidget

from app import theme
from app.models.comparison import ComparedRun, differing_settings
from app.widgets import figures
from app.widgets.card import plain_tool_tip
from app.widgets.charts.compare_chart import STYLES
from app.widgets.charts.legend import pen
from app.widgets.list_table import ROW_HEIGHT, ListTable
from app.widgets.wording import one_line
from training_backend.protocol import ScoreName

SWATCH = (36, 14)
NAME_WIDTH = 230
_Index = QModelIndex | QPersistentModelIndex


class ComparisonModel(QAbstractTableModel):
    """One row a run, in the order of the lines' styles. The best losses and scores stand out."""

    def __init__(self) -> None:
        super().__init__()
        self._runs: list[ComparedRun] = []
        self._columns: list[tuple[str, list[str]]] = []
        self._best: set[tuple[int, int]] = set()

    def show_runs(self, compared: list[ComparedRun]) -> None:
        self.beginResetModel()
        self._runs = compared
        losses = [run.final_loss for run in compared]
        held_out = [run.final_held_out for run in compared]
        titles: dict[ScoreName, str] = {
            "exact_match": self.tr("Exact match"),
            "f1": self.tr("F1"),
            "rouge_l": self.tr("ROUGE-L"),
        }
        scores = {name: [run.scores.get(name) for run in compared] for name in titles}
        told = [name for name in titles if any(value is not None for value in scores[name])]
        unsure = [run.perplexity for run in compared]
        beside = [(self.tr("Perplexity"), [_number(value, figures.short) for value in unsure])]
        if not any(value is not None for value in unsure):
            beside = []
        self._columns = [
            (self.tr("Run"), [f"{at} {one_line(run.name)}" for at, run in enumerate(compared, 1)]),
            (self.tr("Loss"), [_number(value, figures.loss) for value in losses]),
            (self.tr("Held-out"), [_number(value, figures.loss) for value in held_out]),
            *beside,
            *(
                (titles[name], [_number(value, figures.percent) for value in scores[name]])
                for name in told
            ),
            (
                self.tr("Memory at most"),
                [_number(run.peak_bytes, figures.gigabytes) for run in compared],
            ),
            (self.tr("Time"), [figures.duration(run.seconds) for run in compared]),
            (
                self.tr("Tokens a second"),
                [_number(run.tokens_per_second, figures.short) for run in compared],
            ),
            *differing_settings(compared),
        ]
        self._best = _best(losses, 1, min) | _best(held_out, 2, min)
        for column, name in enumerate(told, 3 + len(beside)):
            self._best |= _best(scores[name], column, max)
        self.endResetModel()

    def rowCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self._runs)

    def columnCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self._columns)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return self._columns[section][0]
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        return None

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        text = self._columns[index.column()][1][index.row()]
        best = (index.row(), index.column()) in self._best
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return text
            case Qt.ItemDataRole.ToolTipRole:
                best_text = self.tr("{value}, the best of these").format(value=text)
                return plain_tool_tip(best_text if best else text)
            case Qt.ItemDataRole.FontRole if index.column():
                weight = QFont.Weight.DemiBold if best else QFont.Weight.Normal
                return theme.font(13, weight, tabular=True)
            case Qt.ItemDataRole.DecorationRole if index.column() == 0:
                return _swatch(index.row())
        return None


class ComparisonTable(ListTable):
    """The legend of the charts, too: the piece of line stands before each name."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("comparisonTable")
        self.setAccessibleName(self.tr("Results and differing settings"))
        self.rows = ComparisonModel()
        self.setModel(self.rows)
        theme.notifier.changed.connect(self.viewport().update)

    def show_runs(self, compared: list[ComparedRun]) -> None:
        self.rows.show_runs(compared)
        self.resizeColumnsToContents()
        self.setColumnWidth(0, NAME_WIDTH)
        self.setIconSize(_swatch(0).availableSizes()[0])
        header = self.horizontalHeader()
        for column in range(1, self.rows.columnCount()):
            self.setColumnWidth(column, min(max(self.columnWidth(column), 76), 220))
        header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        bar = self.horizontalScrollBar().sizeHint().height()
        self.setFixedHeight((len(compared) + 1) * ROW_HEIGHT + bar + 8)


def _swatch(row: int) -> QIcon:
    picture = QPixmap(*SWATCH)
    picture.fill(Qt.GlobalColor.transparent)
    painter = QPainter(picture)
    painter.setPen(pen(*STYLES[row], width=2))
    painter.drawLine(0, SWATCH[1] // 2, SWATCH[0], SWATCH[1] // 2)
    painter.end()
    icon = QIcon()
    for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected):
        icon.addPixmap(picture, mode)
    return icon


def _best(
    values: list[float | None], column: int, choose: Callable[[list[float]], float]
) -> set[tuple[int, int]]:
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return set()
    return {(row, column) for row, value in enumerate(values) if value == choose(known)}


def _number(value: float | None, write: Any) -> str:
    return "–" if value is None else str(write(value))
