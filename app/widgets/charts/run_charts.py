"""All charts of a run: loss and memory large, the other numbers of each step below."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from app.models.run_curves import JournalPart
from app.models.run_marks import Mark
from app.widgets import figures
from app.widgets.card import CARD_GAP
from app.widgets.charts.memory_chart import MemoryChart
from app.widgets.charts.metric_chart import LossChart, MetricChart
from training_backend.protocol import EvaluationLogged, MemorySampled, MetricsLogged

LEAST_HEIGHT = 440  # loss and memory are whole in a window of 1280 x 720
LOSS_SHARE = 0.58
SMALL_HEIGHT = 200


class RunCharts(QWidget):
    """Takes events one by one or a journal's parts."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.loss = LossChart()
        self.memory = MemoryChart()
        self.rate = MetricChart(
            "learning_rate",
            self.tr("Learning rate"),
            "",
            self.tr("How far each step goes."),
            figures.scientific,
            write_axis=lambda value, _: figures.scientific(value),
        )
        self.gradient = MetricChart(
            "grad_norm",
            self.tr("Gradient norm"),
            "",
            self.tr("How strongly each step pulls; spikes mean trouble."),
            figures.short,
            self.loss.smoothing,
        )
        self.speed = MetricChart(
            "tokens_per_second",
            self.tr("Tokens a second"),
            "1/s",
            self.tr("How fast the training is."),
            figures.short,
            self.loss.smoothing,
        )
        self.margin = MetricChart(
            "reward_margin",
            self.tr("Preference for the chosen answer"),
            "",
            self.tr("How much more the chosen answers are preferred; it should rise."),
            figures.short,
            self.loss.smoothing,
        )
        self.margin.hide()  # until there is any: only preference tuning has it
        self._per_step = (self.loss, self.rate, self.gradient, self.speed)
        small = QHBoxLayout()
        small.setSpacing(CARD_GAP)
        for chart in (self.margin, self.rate, self.gradient, self.speed):
            chart.setFixedHeight(SMALL_HEIGHT)
            small.addWidget(chart, 1)
        # A page that is higher than it needs to be leaves no gaps between the charts.
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(CARD_GAP)
        column.addWidget(self.loss)
        column.addWidget(self.memory)
        column.addLayout(small)

    def clear(self) -> None:
        for chart in (*self._per_step, self.margin, self.memory):
            chart.clear()
        self.margin.hide()
        self.show_marks(())

    def set_room(self, height: int) -> None:
        """Let loss and memory fill this height; the rest is below it."""
        room = max(height - CARD_GAP, LEAST_HEIGHT)
        self.loss.setFixedHeight(round(room * LOSS_SHARE))
        self.memory.setFixedHeight(room - round(room * LOSS_SHARE))

    def schedule(self) -> None:
        """Draw soon."""
        for chart in (*self._per_step, self.margin, self.memory):
            chart.plot.schedule()

    def begin_attempt(self) -> None:
        self.memory.begin_attempt()

    def show_marks(self, marks: Sequence[Mark]) -> None:
        """Mark the steps that warnings speak of, where they show."""
        self.loss.marks.show(marks)
        self.speed.marks.show(marks)

    def add_metrics(self, event: MetricsLogged) -> None:
        for chart in self._per_step:
            chart.add_metrics(event)
        if event.reward_margin is not None:
            self.margin.add_metrics(event)
            self.margin.show()

    def add_sample(self, event: MemorySampled) -> None:
        self.memory.add_sample(event)

    def add_evaluation(self, event: EvaluationLogged) -> None:
        self.loss.add_evaluation(event)

    def add_part(self, part: JournalPart) -> None:
        """The steps and samples of a part of the journal; its events come one by one.

        Drawn once all is read: painting while a thread reads would take turns with it, and long.
        """
        if part.metrics is not None:
            for chart in self._per_step:
                chart.add_block(part.metrics)
            if part.metrics.last.reward_margin is not None:
                self.margin.add_block(part.metrics)
                self.margin.show()
        if part.memory is not None:
            self.memory.add_block(part.memory)
