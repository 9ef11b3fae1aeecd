"""The charts of a run over its steps: loss, learning rate, gradient norm, speed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from PySide6.QtCore import Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import QCheckBox, QDoubleSpinBox, QWidget

from app.models.run_curves import MetricsBlock
from app.widgets import figures
from app.widgets.charts.chart_card import ChartCard
from app.widgets.charts.explorable_plot import ExplorablePlot
from app.widgets.charts.legend import LegendEntry
from app.widgets.charts.plot_axes import NumberAxis, write_number
from app.widgets.charts.plot_marks import PlotMarks
from app.widgets.charts.series import Floats, Series
from training_backend.protocol import EvaluationLogged, MetricsLogged
from training_backend.summaries.losses import perplexity

DEFAULT_SMOOTHING = 0.9
FEWEST_STEPS = 10.0
Objective = Literal["sft", "dpo"]
Metric = Literal["learning_rate", "grad_norm", "tokens_per_second", "reward_margin"]


def loss_unit(objective: Objective) -> str:
    """What a loss is counted in, as a table of values calls it.

    DPO's is of a pair: minus the logarithm of how surely the chosen answer is preferred.
    """
    return "nats per pair" if objective == "dpo" else "nats per token"


class LossChart(ChartCard):
    """Loss of each step, its smoothed course and the loss on held-out rows."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("", "step", parent)
        self._each = Series()
        self._held_out = Series()
        self._of_tokens = False  # whether a perplexity can be told
        plot = ExplorablePlot(
            step_axis(),
            NumberAxis("left", pixels_apart=42, write=write_number),
            empty_text=self.tr(
                "The loss of every step appears here: how far the model's answers still are "
                "from those in the data. It should fall."
            ),
            drawing=self._draw,
            readout=self._readout,
        )
        plot.setObjectName("lossChart")
        plot.setAccessibleName(self.tr("Loss over the steps"))
        plot.setMinimumHeight(180)
        self.set_plot(plot)
        self.marks = PlotMarks(plot)
        self._each_line = plot.add_line("chart_raw", name="loss", label=False)
        self._smoothed_line = plot.add_line("chart_smoothed", follows=True)
        self._held_out_line = plot.add_line("chart_held_out", name="held-out", dots=True)
        self.set_objective("sft")
        self.add_entry(LegendEntry("chart_raw", self.tr("each step")))
        self.add_entry(LegendEntry("chart_smoothed", self.tr("smoothed")))
        self._held_out_legend = self.add_entry(LegendEntry("chart_held_out", self.tr("held-out")))
        self.smoothing = SmoothingBox()
        self.smoothing.valueChanged.connect(plot.schedule)
        self.add_right(self.smoothing)
        self.log_scale = QCheckBox(self.tr("log scale"))
        self.log_scale.setAccessibleName(self.tr("Logarithmic scale"))
        self.log_scale.toggled.connect(self.log_y.setChecked)
        self.log_y.toggled.connect(self.log_scale.setChecked)
        self.add_right(self.log_scale)
        self.add_menu_button()
        self.clear()

    def set_objective(self, objective: Objective) -> None:
        """Say which loss it is."""
        name = "DPO loss" if objective == "dpo" else "loss"
        self._each_line.name = f"{name} ({loss_unit(objective)})"
        self._held_out_line.name = f"held-out {self._each_line.name}"
        self.set_title(self.tr("DPO loss") if objective == "dpo" else self.tr("Loss"))

    def clear(self) -> None:
        self._each.clear()
        self._held_out.clear()
        self.plot.reset_zoom()
        self.plot.schedule()

    def add_metrics(self, event: MetricsLogged) -> None:
        self._each.append(event.step, event.loss)
        self.plot.schedule()

    def add_block(self, block: MetricsBlock) -> None:
        """Many steps at once; drawn at the next `plot.schedule`."""
        self._each.extend(block.step, block.loss)
        self._each.smoothed(self.smoothing.value())  # bit by bit, not a million at once

    def add_evaluation(self, event: EvaluationLogged) -> None:
        self._held_out.append(event.step, event.loss)
        self._of_tokens = event.perplexity is not None
        self.plot.schedule()

    def _draw(self) -> None:
        each, held_out = self._each, self._held_out
        smoothed = each.smoothed(self.smoothing.value())
        self.plot.set_line(self._each_line, each.xs, each.ys)
        self.plot.set_line(self._smoothed_line, each.xs, smoothed, _last_loss(smoothed))
        self.plot.set_line(self._held_out_line, held_out.xs, held_out.ys, _last_loss(held_out.ys))
        self._held_out_legend.setVisible(len(held_out) > 0)
        ends = [float(xs[-1]) for xs in (each.xs, held_out.xs) if len(xs)]
        starts = [float(xs[0]) for xs in (each.xs, held_out.xs) if len(xs)]
        if not ends:
            return
        self.plot.fit(min(*starts, 1.0) - 0.1, max(*ends, FEWEST_STEPS), least_y=0.05)
        self.plot.setAccessibleDescription(
            self.tr("Step {step}, smoothed loss {loss}").format(
                step=figures.count(int(max(ends))), loss=_last_loss(smoothed)
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
            loss = float(self._held_out.ys[near])
            lines.append(
                self.tr("held-out {loss} (step {step})").format(
                    loss=figures.loss(loss),
                    step=figures.count(int(self._held_out.xs[near])),
                )
            )
            if self._of_tokens:
                lines.append(
                    self.tr("perplexity {number}").format(number=figures.short(perplexity(loss)))
                )
        return step, "\n".join([*lines, *self.marks.words_at(step)])


class MetricChart(ChartCard):
    """One more number of every step, small; a restless one also smoothed."""

    def __init__(
        self,
        metric: Metric,
        title: str,
        unit: str,
        empty_text: str,
        write: Callable[[float], str],
        smoothing: SmoothingBox | None = None,
        write_axis: Callable[[float, float], str] = write_number,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(title, "step", parent)
        self._metric: Metric = metric
        self._write = write
        self._smoothing = smoothing
        self._points = Series()
        plot = ExplorablePlot(
            step_axis(pixels_apart=54),
            NumberAxis("left", pixels_apart=28, write=write_axis),
            empty_text=empty_text,
            drawing=self._draw,
            readout=self._readout,
        )
        plot.setObjectName(f"{metric}Chart")
        plot.setAccessibleName(self.tr("{title} over the steps").format(title=title))
        plot.setMinimumHeight(110)
        self.set_plot(plot)
        self.marks = PlotMarks(plot, texts=False)  # it is small
        named = f"{metric} ({unit})" if unit else metric
        role = "chart_smoothed" if smoothing is None else "chart_raw"
        self._line = plot.add_line(role, name=named, label=smoothing is None)
        self._smoothed_line = (
            None if smoothing is None else plot.add_line("chart_smoothed", follows=True)
        )
        if smoothing is not None:
            smoothing.valueChanged.connect(plot.schedule)
        self.add_menu_button()
        self.clear()

    def clear(self) -> None:
        self._points.clear()
        self.plot.reset_zoom()
        self.plot.schedule()

    def add_metrics(self, event: MetricsLogged) -> None:
        value = getattr(event, self._metric)
        if value is not None:
            self._points.append(event.step, value)
            self.plot.schedule()

    def add_block(self, block: MetricsBlock) -> None:
        """Many steps at once; drawn at the next `plot.schedule`."""
        self._points.extend(block.step, getattr(block, self._metric))
        if self._smoothing is not None:
            self._smoothed()

    def _draw(self) -> None:
        xs, ys = self._points.xs, self._points.ys
        self.plot.set_line(self._line, xs, ys, self._last(ys))
        if self._smoothed_line is not None:
            smoothed = self._smoothed()
            self.plot.set_line(self._smoothed_line, xs, smoothed, self._last(smoothed))
        if len(xs):
            self.plot.fit(min(float(xs[0]), 1.0) - 0.1, max(float(xs[-1]), FEWEST_STEPS))

    def _smoothed(self) -> Floats:
        assert self._smoothing is not None
        return self._points.smoothed(self._smoothing.value())

    def _last(self, ys: Floats) -> str:
        return self._write(float(ys[-1])) if len(ys) else ""

    def _readout(self, x: float) -> tuple[float, str] | None:
        if not len(self._points):
            return None
        index = self._points.nearest(x)
        step = float(self._points.xs[index])
        lines = [
            self.tr("step {step}").format(step=figures.count(int(step))),
            self._write(float(self._points.ys[index])),
        ]
        if self._smoothing is not None:
            lines.append(
                self.tr("smoothed {value}").format(
                    value=self._write(float(self._smoothed()[index]))
                )
            )
        return step, "\n".join([*lines, *self.marks.words_at(step)])


class SmoothingBox(QDoubleSpinBox):
    """How much of a smoothed line comes from what was before.

    Changes on the wheel only when it was chosen first.
    """

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
        self.setAccessibleName(self.tr("Smoothing"))
        self.setToolTip(
            self.tr("How much of the smoothed line comes from earlier steps. 0 is not smoothed.")
        )
        self.setPrefix(self.tr("smoothing "))

    def wheelEvent(self, event: QWheelEvent) -> None:
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


def step_axis(pixels_apart: int = 90) -> NumberAxis:
    """Whole steps along the bottom."""
    return NumberAxis(
        "bottom",
        pixels_apart=pixels_apart,
        write=lambda value, _: figures.count(round(value)),
        whole=True,
    )


def _last_loss(values: Floats) -> str:
    return figures.loss(float(values[-1])) if len(values) else ""
