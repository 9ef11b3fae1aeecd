"""The memory of a run over time."""

from __future__ import annotations

from PySide6.QtWidgets import QWidget

from app.models.run_curves import MemoryBlock
from app.widgets import figures
from app.widgets.card import secondary_label
from app.widgets.charts.chart_card import ChartCard
from app.widgets.charts.explorable_plot import ExplorablePlot
from app.widgets.charts.legend import LIMIT_DASHES, LegendEntry
from app.widgets.charts.plot_axes import NumberAxis, TimeAxis, write_number
from app.widgets.charts.series import Series
from training_backend.protocol import MemorySampled

SHORTEST_SECONDS = 30.0
LIMIT_ROOM = 20.0  # pixels


class MemoryChart(ChartCard):
    """What the run and everything else hold of the card's, or the computer's, memory."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("", "time (s)", parent)
        self.set_title(self.tr("Memory"))
        self._run = Series()
        self._everything = Series()
        self._limit: float | None = None
        self._offset = 0.0
        self._on_card = False
        plot = ExplorablePlot(
            TimeAxis("bottom"),
            NumberAxis("left", pixels_apart=36, write=write_number),
            empty_text=self.tr(
                "The memory in use appears here, once a second, with the most that there is."
            ),
            drawing=self._draw,
            readout=self._readout,
        )
        plot.setObjectName("vramChart")
        plot.setAccessibleName(self.tr("Memory over time"))
        plot.setMinimumHeight(126)
        self.set_plot(plot, scales=False, log_x=False)
        self._everything_line = plot.add_line("chart_raw", name="everything (GiB)")
        self._run_line = plot.add_line("chart_smoothed", name="this run (GiB)")
        self._run_legend = LegendEntry("chart_smoothed", self.tr("this run"))
        self._limit_legend = LegendEntry("bad", self.tr("the limit"), dashes=LIMIT_DASHES)
        everything_legend = LegendEntry("chart_raw", self.tr("all programs"))
        for entry in (self._run_legend, everything_legend, self._limit_legend):
            self.add_entry(entry)
        self._peak = secondary_label()
        self.add_right(self._peak)
        self.add_menu_button()
        self.clear()

    def clear(self) -> None:
        self._run.clear()
        self._everything.clear()
        self._limit = None
        self._offset = 0.0
        self._peak.setText("")
        self._limit_legend.setVisible(False)
        self.plot.reset_zoom()
        self.plot.schedule()

    def begin_attempt(self) -> None:
        """A resumed run counts its seconds from zero again: its points come after the others."""
        if len(self._everything):
            self._offset = float(self._everything.xs[-1]) + 1.0

    def add_sample(self, event: MemorySampled) -> None:
        seconds = self._offset + event.elapsed
        if event.process_bytes is not None:
            self._run.append(seconds, event.process_bytes / figures.GIGABYTE)
        self._everything.append(seconds, event.device_used_bytes / figures.GIGABYTE)
        self._limit = event.device_total_bytes / figures.GIGABYTE
        self._on_card = event.device != "cpu"
        self.plot.schedule()

    def add_block(self, block: MemoryBlock) -> None:
        """Many samples at once, all of one attempt; drawn at the next `plot.schedule`."""
        seconds = self._offset + block.elapsed
        self._run.extend(seconds, block.process_bytes / figures.GIGABYTE)
        self._everything.extend(seconds, block.device_used_bytes / figures.GIGABYTE)
        self._limit = block.device_total_bytes / figures.GIGABYTE
        self._on_card = block.device != "cpu"

    def _draw(self) -> None:
        run, everything = self._run, self._everything
        self.plot.set_line(
            self._everything_line, everything.xs, everything.ys, _last_size(everything)
        )
        self.plot.set_line(self._run_line, run.xs, run.ys, _last_size(run))
        if self._limit is None:
            self.plot.set_limit(None)
            return
        self._name_what_is_measured(self._limit)
        last = max(float(everything.xs[-1]), SHORTEST_SECONDS)
        height = max(float(self.plot.plotItem.vb.height()), 2 * LIMIT_ROOM)
        top = self._limit * height / (height - LIMIT_ROOM)  # its label stands above the line
        self.plot.fit(0.0, last, y=(0.0, max(top, 0.1)))
        if len(run):
            peak = figures.decimal(float(run.ys.max()), 1)
            self._peak.setText(self.tr("this run at most {size} GB").format(size=peak))
            self.plot.setAccessibleDescription(self._peak.text())

    def _name_what_is_measured(self, limit: float) -> None:
        size = figures.decimal(limit, 1)
        limit_name = (
            self.tr("the card, {size} GB") if self._on_card else self.tr("the computer, {size} GB")
        )
        self._limit_legend.label.setText(limit_name.format(size=size))
        self._limit_legend.setVisible(True)
        self.plot.set_limit(limit, self.tr("{size} GB").format(size=size))

    def _readout(self, x: float) -> tuple[float, str] | None:
        if not len(self._everything):
            return None
        index = self._everything.nearest(x)
        seconds = float(self._everything.xs[index])
        minutes, rest = divmod(round(seconds), 60)
        lines = [self.tr("after {minutes}:{seconds}").format(minutes=minutes, seconds=f"{rest:02}")]
        if len(self._run):
            near = float(self._run.ys[self._run.nearest(seconds)])
            lines.append(self.tr("this run {size} GB").format(size=figures.decimal(near, 2)))
        used = figures.decimal(float(self._everything.ys[index]), 2)
        lines.append(self.tr("everything {size} GB").format(size=used))
        return seconds, "\n".join(lines)


def _last_size(series: Series) -> str:
    return figures.decimal(float(series.ys[-1]), 1) if len(series) else ""
