"""One curve of each of several runs in one chart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PySide6.QtWidgets import QWidget

from app.models.comparison import ComparedRun
from app.widgets import figures
from app.widgets.charts.chart_card import ChartCard
from app.widgets.charts.explorable_plot import ExplorablePlot
from app.widgets.charts.legend import LegendEntry
from app.widgets.charts.metric_chart import FEWEST_STEPS, SmoothingBox, loss_unit, step_axis
from app.widgets.charts.plot import Line
from app.widgets.charts.plot_axes import NumberAxis, TimeAxis, write_number
from app.widgets.charts.series import Floats, Series

# Each run has its own colour, its own dashes (lengths in pixels) and its number at the line's end.
STYLES: tuple[tuple[str, tuple[float, ...]], ...] = (
    ("run_1", ()),
    ("run_2", (9, 4)),
    ("run_3", (2, 3)),
    ("run_4", (9, 3, 2, 3)),
    ("run_5", (18, 5)),
    ("run_6", (4, 3, 4, 8)),
    ("run_7", (2, 7)),
    ("run_8", (16, 3, 2, 3, 2, 3)),
)
LONGEST_NAME = 28


class CompareChart(ChartCard):
    """Args: curve: of a run, by steps or (True) by seconds. smoothing: None shows dots."""

    def __init__(
        self,
        title: str,
        name: str,
        empty_text: str,
        curve: Callable[[ComparedRun, bool], Series],
        smoothing: SmoothingBox | None,
        *,
        in_time: bool,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(title, "time (s)" if in_time else "step", parent)
        self._name = name
        self._curve = curve
        self._smoothing = smoothing
        self._in_time = in_time
        self._runs: list[ComparedRun] = []
        self._lines: list[Line] = []
        plot = ExplorablePlot(
            TimeAxis("bottom") if in_time else step_axis(),
            NumberAxis("left", pixels_apart=42, write=write_number),
            empty_text=empty_text,
            drawing=self._draw,
            readout=self._readout,
        )
        plot.labels_at_ends = True
        plot.setAccessibleName(title)
        plot.setMinimumHeight(120)
        self.set_plot(plot, log_x=not in_time)
        if smoothing is not None:
            smoothing.valueChanged.connect(plot.schedule)
        self.add_menu_button()

    def show_runs(self, compared: list[ComparedRun]) -> None:
        """Draw these, at most as many as there are styles; the first keeps the first style."""
        self._runs = compared
        self.plot.remove_lines()
        self._lines = [
            self.plot.add_line(
                role,
                name=f"{number} {run.name}: {self._name} ({_unit(run)})",
                dashes=dashes,
                dots=self._smoothing is None,
            )
            for number, (run, (role, dashes)) in enumerate(zip(compared, STYLES, strict=False), 1)
        ]
        self.legend = [
            LegendEntry(role, f"{number} {_short(run.name)}", dashes=dashes)
            for number, (run, (role, dashes)) in enumerate(zip(compared, STYLES, strict=False), 1)
        ]
        self.plot.redraw()

    def _points(self, run: ComparedRun) -> tuple[Floats, Floats]:
        series = self._curve(run, self._in_time)
        if self._smoothing is None:
            return series.xs, series.ys
        return series.xs, series.smoothed(self._smoothing.value())

    def _draw(self) -> None:
        last = FEWEST_STEPS
        for number, (run, line) in enumerate(zip(self._runs, self._lines, strict=True), 1):
            xs, ys = self._points(run)
            self.plot.set_line(line, xs, ys, str(number))
            if len(xs):
                last = max(last, float(xs[-1]))
        self.plot.fit(0.0 if self._in_time else 0.9, last, least_y=0.05)

    def _readout(self, x: float) -> tuple[float, str] | None:
        x = max(0.0, round(x))
        if self._in_time:
            words = [self.tr("after {time}").format(time=figures.duration(x))]
        else:
            words = [self.tr("step {step}").format(step=figures.count(int(x)))]
        for number, run in enumerate(self._runs, 1):
            xs, ys = self._points(run)
            if len(xs) and xs[0] <= x <= xs[-1]:
                value = float(np.interp(x, xs, ys))
                words.append(f"{number} {_short(run.name)}  {figures.loss(value)}")
        return (x, "\n".join(words)) if len(words) > 1 else None


def _unit(run: ComparedRun) -> str:
    return loss_unit(run.job.training.objective if run.job else "sft")


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
