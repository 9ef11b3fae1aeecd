"""The two live charts of a run: its loss over the steps, its memory over time."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import QCheckBox, QDoubleSpinBox, QWidget

from app.widgets import figures
from app.widgets.card import Card, secondary_label
from app.widgets.plot import LegendEntry, Plot
from app.widgets.plot_axes import NumberAxis, TimeAxis, round_up, write_number
from app.widgets.series import Floats, Series
from training_backend.protocol import EvaluationLogged, MemorySampled, MetricsLogged

DEFAULT_SMOOTHING = 0.9
FEWEST_STEPS = 10.0
SHORTEST_SECONDS = 30.0


class LossChart(Card):
    """Loss of each step, its smoothed course and the loss on held-out rows."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.set_title(self.tr("Loss"))
        self._each = Series()
        self._held_out = Series()
        self.plot = Plot(
            NumberAxis(
                "bottom",
                pixels_apart=90,
                write=lambda value, _: figures.count(round(value)),
                whole=True,
            ),
            NumberAxis("left", pixels_apart=42, write=write_number),
            empty_text=self.tr(
                "The loss of every step appears here: how far the model's answers still are "
                "from those in the data. It should fall."
            ),
            drawing=self._draw,
            readout=self._readout,
        )
        self.plot.setObjectName("lossChart")
        self.plot.setAccessibleName(self.tr("Loss over the steps"))
        self.plot.setMinimumHeight(180)
        self.body.addWidget(self.plot, 1)
        self._each_line = self.plot.add_line("chart_raw", label=False)
        self._smoothed_line = self.plot.add_line("chart_smoothed")
        self._held_out_line = self.plot.add_line("chart_held_out", dots=True)
        self.add_legend(LegendEntry("chart_raw", self.tr("each step")))
        self.add_legend(LegendEntry("chart_smoothed", self.tr("smoothed")))
        self._held_out_legend = LegendEntry("chart_held_out", self.tr("held-out"))
        self.add_legend(self._held_out_legend)
        self.smoothing = _SmoothingBox()
        self.smoothing.setAccessibleName(self.tr("Smoothing"))
        self.smoothing.setToolTip(
            self.tr("How much of the smoothed line comes from earlier steps. 0 is not smoothed.")
        )
        self.smoothing.setPrefix(self.tr("smoothing "))
        self.smoothing.valueChanged.connect(self.plot.schedule)
        self.add_right(self.smoothing)
        self.log_scale = QCheckBox(self.tr("log scale"))
        self.log_scale.setAccessibleName(self.tr("Logarithmic scale"))
        self.log_scale.toggled.connect(self.plot.set_log)
        self.add_right(self.log_scale)
        self.clear()

    def clear(self) -> None:
        self._each.clear()
        self._held_out.clear()
        self.plot.schedule()

    def add_metrics(self, event: MetricsLogged) -> None:
        self._each.append(event.step, event.loss)
        self.plot.schedule()

    def add_evaluation(self, event: EvaluationLogged) -> None:
        self._held_out.append(event.step, event.loss)
        self.plot.schedule()

    def _draw(self) -> None:
        each, held_out = self._each, self._held_out
        smoothed = each.smoothed(self.smoothing.value())
        self.plot.set_line(self._each_line, each.xs, each.ys)
        self.plot.set_line(self._smoothed_line, each.xs, smoothed, _last_loss(smoothed))
        self.plot.set_line(self._held_out_line, held_out.xs, held_out.ys, _last_loss(held_out.ys))
        self._held_out_legend.setVisible(len(held_out) > 0)
        values = np.concatenate([each.ys, held_out.ys])
        values = values[np.isfinite(values)]
        if not len(values):
            return
        low, high = float(values.min()), float(values.max())
        last = max(float(xs[-1]) for xs in (each.xs, held_out.xs) if len(xs))
        first = min(float(xs[0]) for xs in (each.xs, held_out.xs) if len(xs))
        if self.log_scale.isChecked():
            low, high = max(low, 1e-9) / 1.08, high * 1.08
        else:
            step = round_up(max(high - low, 0.05) / 6)
            low, high = float(np.floor(low / step)) * step, float(np.ceil(high / step)) * step
        self.plot.fit(min(first, 1.0) - 0.5, max(last, FEWEST_STEPS), low, max(high, low + 1e-9))
        self.plot.setAccessibleDescription(
            self.tr("Step {step}, smoothed loss {loss}").format(
                step=figures.count(int(last)), loss=_last_loss(smoothed)
            )
        )

    def _readout(self, x: float) -> tuple[float, str] | None:
        if not len(self._each):
            return None
        index = self._each.nearest(x)
        step = float(self._each.xs[index])
        smoothed = self._each.smoothed(self.smoothing.value())
        lines = [
            self.tr("step {step}").format(step=figures.count(int(step))),
            self.tr("each step {loss}").format(loss=figures.loss(float(self._each.ys[index]))),
            self.tr("smoothed {loss}").format(loss=figures.loss(float(smoothed[index]))),
        ]
        if len(self._held_out):
            near = self._held_out.nearest(step)
            lines.append(
                self.tr("held-out {loss} (step {step})").format(
                    loss=figures.loss(float(self._held_out.ys[near])),
                    step=figures.count(int(self._held_out.xs[near])),
                )
            )
        return step, "\n".join(lines)


class MemoryChart(Card):
    """What the run and everything else hold of the card's, or the computer's, memory."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.set_title(self.tr("Memory"))
        self._run = Series()
        self._everything = Series()
        self._limit: float | None = None
        self._offset = 0.0
        self._on_card = False
        self.plot = Plot(
            TimeAxis("bottom"),
            NumberAxis("left", pixels_apart=36, write=write_number),
            empty_text=self.tr(
                "The memory in use appears here, once a second, with the most that there is."
            ),
            drawing=self._draw,
            readout=self._readout,
        )
        self.plot.setObjectName("vramChart")
        self.plot.setAccessibleName(self.tr("Memory over time"))
        self.plot.setMinimumHeight(130)
        self.body.addWidget(self.plot, 1)
        self._everything_line = self.plot.add_line("chart_raw")
        self._run_line = self.plot.add_line("chart_smoothed")
        self._run_legend = LegendEntry("chart_smoothed", self.tr("this run"))
        self._everything_legend = LegendEntry("chart_raw", self.tr("everything"))
        self._limit_legend = LegendEntry("bad", self.tr("the limit"), dashed=True)
        for entry in (self._run_legend, self._everything_legend, self._limit_legend):
            self.add_legend(entry)
        self._peak = secondary_label()
        self.add_right(self._peak)
        self.clear()

    def clear(self) -> None:
        self._run.clear()
        self._everything.clear()
        self._limit = None
        self._offset = 0.0
        self._peak.setText("")
        self._limit_legend.setVisible(False)
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
        self.plot.fit(0.0, last, 0.0, max(self._limit * 1.15, 0.1))
        if len(run):
            peak = figures.decimal(float(run.ys.max()), 1)
            self._peak.setText(self.tr("this run at most {size} GB").format(size=peak))
            self.plot.setAccessibleDescription(self._peak.text())

    def _name_what_is_measured(self, limit: float) -> None:
        size = figures.decimal(limit, 1)
        if self._on_card:
            everything = self.tr("everything on the card")
            limit_name = self.tr("the card's limit, {size} GB")
        else:
            everything = self.tr("everything on the computer")
            limit_name = self.tr("the computer's memory, {size} GB")
        self._everything_legend.label.setText(everything)
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


class _SmoothingBox(QDoubleSpinBox):
    """Changes on the wheel only when it was chosen first."""

    def __init__(self) -> None:
        super().__init__()
        self.setRange(0.0, 0.99)
        self.setSingleStep(0.05)
        self.setDecimals(2)
        self.setValue(DEFAULT_SMOOTHING)
        self.setFixedHeight(32)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setFixedWidth(140)
        self.lineEdit().setTextMargins(8, 0, 0, 0)

    def wheelEvent(self, event: QWheelEvent) -> None:
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


def _last_loss(values: Floats) -> str:
    return figures.loss(float(values[-1])) if len(values) else ""


def _last_size(series: Series) -> str:
    return figures.decimal(float(series.ys[-1]), 1) if len(series) else ""
