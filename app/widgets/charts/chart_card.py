"""A card with one chart and its menu: scales, zoom, and saving what is seen."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QFileDialog, QMenu, QWidget

from app.background import run_in_background
from app.error_dialog import show_error
from app.widgets.card import Card, QuietButton
from app.widgets.charts import chart_export
from app.widgets.charts.explorable_plot import ExplorablePlot
from app.widgets.charts.legend import LegendEntry


class ChartCard(Card):
    """Title, legend, the chart, and a menu that the right mouse button and the menu key open too.

    `x_name` is what a table of the chart's values calls the x, with its unit.
    """

    def __init__(self, title: str, x_name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.set_title(title)
        self.x_name = x_name
        self.legend: list[LegendEntry] = []

    def add_entry(self, entry: LegendEntry) -> LegendEntry:
        """Show an entry in the title row, and in saved pictures."""
        self.legend.append(entry)
        self.add_legend(entry)
        return entry

    def set_plot(self, plot: ExplorablePlot, *, scales: bool = True, log_x: bool = True) -> None:
        """Show the chart. `scales`: its range along y follows the values."""
        self.plot = plot
        self.body.addWidget(plot, 1)
        self.menu = QMenu(self)
        self.log_y = self._switch(self.tr("Logarithmic y axis"), plot.set_log_y)
        self.log_y.setVisible(scales)
        self.log_x = self._switch(self.tr("Logarithmic x axis"), plot.set_log_x)
        self.log_x.setVisible(log_x)
        self.clip = self._switch(self.tr("Cut off outliers"), plot.set_clip)
        self.clip.setVisible(scales)
        self.clip.setChecked(True)
        self._all = self.menu.addAction(self.tr("Show all"), plot.reset_zoom)
        self.menu.addSeparator()
        self._saving = [
            self.menu.addAction(self.tr("Save as PNG…"), partial(self._ask_where, "png")),
            self.menu.addAction(self.tr("Save as SVG…"), partial(self._ask_where, "svg")),
            self.menu.addAction(self.tr("Save values as CSV…"), partial(self._ask_where, "csv")),
        ]
        self.menu.aboutToShow.connect(self._offer)
        plot.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        plot.customContextMenuRequested.connect(
            lambda at: self.menu.popup(plot.viewport().mapToGlobal(at))
        )

    def add_menu_button(self) -> None:
        """The last thing in the title row."""
        self.menu_button = QuietButton("⋯")
        self.menu_button.setAccessibleName(
            self.tr("Menu of the chart {title}").format(title=self.title.text())
        )
        self.menu_button.setToolTip(self.tr("Scales, zoom, save"))
        self.menu_button.clicked.connect(self._open_menu)
        self.add_right(self.menu_button)

    def save(self, path: Path) -> None:
        """Write the chart as the file's ending says: .png, .svg or .csv."""
        match path.suffix.lower():
            case ".csv":
                table = chart_export.values(self.plot, self.x_name)
                write = partial(chart_export.write_csv, path, table)
            case ".svg":
                write = partial(chart_export.write_bytes, path, chart_export.svg(self))
            case _:
                write = partial(chart_export.write_bytes, path, chart_export.png(self))
        run_in_background(
            write,
            lambda _: None,
            lambda error: show_error(self.window(), self.tr("The chart was not saved"), error),
            self,
        )

    def _switch(self, text: str, act: object) -> QAction:
        action = self.menu.addAction(text)
        action.setCheckable(True)
        action.toggled.connect(act)
        return action

    def _offer(self) -> None:
        self._all.setEnabled(self.plot.window_x.is_zoomed)
        for action in self._saving:
            action.setEnabled(not self.plot.is_empty())

    def _open_menu(self) -> None:
        button = self.menu_button
        right = button.mapToGlobal(QPoint(button.width(), button.height()))
        self.menu.popup(right - QPoint(self.menu.sizeHint().width(), 0))

    def _ask_where(self, kind: str) -> None:
        dialog = QFileDialog(self.window(), self.tr("Save the chart"))
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setNameFilter(f"{kind.upper()} (*.{kind})")
        dialog.setDefaultSuffix(kind)
        dialog.selectFile(f"{self.title.text().lower().replace(' ', '-')}.{kind}")
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(lambda path: self.save(Path(path)))
        dialog.open()
