"""The charts: what is drawn from which events, and how it reads."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app import theme
from app.widgets.charts.memory_chart import MemoryChart
from app.widgets.charts.metric_chart import LossChart
from app.widgets.charts.plot_axes import round_up, write_number
from app.widgets.charts.series import Series
from training_backend.protocol import EvaluationLogged, MemorySampled, MetricsLogged

GIB = 2**30


def _metrics(step: int, loss: float) -> MetricsLogged:
    return MetricsLogged(step=step, total_steps=100, epoch=1.0, loss=loss)


def _sample(second: float, used: int = 3, device: str = "cuda:0") -> MemorySampled:
    return MemorySampled(
        elapsed=second,
        device=device,
        process_bytes=2 * GIB,
        device_used_bytes=used * GIB,
        device_total_bytes=24 * GIB,
    )


class TestSeries:
    def test_smoothing_has_no_bias_at_the_start(self) -> None:
        series = Series()
        for step in range(50):
            series.append(step, 3.0)
        assert np.allclose(series.smoothed(0.9), 3.0)

    def test_smoothing_is_the_textbook_average(self) -> None:
        series = Series()
        values = [3.0, 1.0, 2.0, 5.0]
        expected, total = [], 0.0
        for step, value in enumerate(values):
            series.append(step, value)
            series.smoothed(0.6)  # the running sums carry over from call to call
            total = 0.6 * total + 0.4 * value
            expected.append(total / (1 - 0.6 ** (step + 1)))
        assert np.allclose(series.smoothed(0.6), expected)
        assert np.allclose(series.smoothed(0.0), values)

    def test_a_later_attempt_supersedes_the_same_and_later_steps(self) -> None:
        series = Series()
        for step in range(1, 21):
            series.append(step, 1.0)
        series.smoothed(0.9)
        series.append(11, 5.0)
        assert list(series.xs) == list(range(1, 12))
        assert series.ys[-1] == 5.0
        fresh = Series()
        for step in range(1, 11):
            fresh.append(step, 1.0)
        fresh.append(11, 5.0)
        assert np.allclose(series.smoothed(0.9), fresh.smoothed(0.9))

    def test_grows(self) -> None:
        series = Series()
        for step in range(5_000):
            series.append(step, float(step))
        assert len(series) == 5_000
        assert series.ys[-1] == 4_999
        assert series.nearest(17.4) == 17


class TestLossChart:
    def test_draws_raw_smoothed_and_held_out(self, qtbot: QtBot) -> None:
        chart = LossChart()
        qtbot.addWidget(chart)
        for step in range(1, 31):
            chart.add_metrics(_metrics(step, 3.0 - step / 20))
        chart.add_evaluation(EvaluationLogged(step=20, epoch=1.0, loss=2.2))
        chart.plot.redraw()
        raw, smoothed, held_out = chart.plot.listDataItems()
        assert len(raw.xData) == len(smoothed.xData) == 30
        assert list(held_out.xData) == [20]
        assert not chart.plot.is_empty()

    def test_redraws_come_together(self, qtbot: QtBot) -> None:
        chart = LossChart()
        qtbot.addWidget(chart)
        qtbot.wait(150)  # what clearing asked for
        drawn: list[None] = []
        chart.plot.redrawn.connect(lambda: drawn.append(None))
        for step in range(1, 1_001):
            chart.add_metrics(_metrics(step, 1.0))
        qtbot.waitUntil(lambda: bool(drawn))
        assert len(drawn) == 1

    def test_log_scale_reads_and_draws_in_logarithms(self, qtbot: QtBot) -> None:
        chart = LossChart()
        qtbot.addWidget(chart)
        for step, loss in enumerate((10.0, 1.0, 0.1), start=1):
            chart.add_metrics(_metrics(step, loss))
        chart.log_scale.setChecked(True)
        chart.plot.redraw()
        _, drawn = chart.plot.listDataItems()[0].getData()
        assert np.allclose(drawn, [1.0, 0.0, -1.0])
        low, high = chart.plot.getViewBox().viewRange()[1]
        assert low < -1.0
        assert high > 1.0

    def test_keys_move_the_readout(self, qtbot: QtBot) -> None:
        chart = LossChart()
        qtbot.addWidget(chart)
        chart.resize(800, 300)
        chart.show()
        for step in range(1, 31):
            chart.add_metrics(_metrics(step, 1.0 + step))
        chart.plot.redraw()
        QTest.keyClick(chart.plot, Qt.Key.Key_End)
        assert chart.plot._readout.text().startswith("step 30")
        QTest.keyClick(chart.plot, Qt.Key.Key_Left)
        assert "each step 30.000" in chart.plot._readout.text()

    def test_pens_have_width_one_and_follow_the_theme(self, qtbot: QtBot) -> None:
        chart = LossChart()
        qtbot.addWidget(chart)
        app = QApplication.instance()
        assert isinstance(app, QApplication)
        theme.apply(app, "dark")
        pens = [item.opts["pen"] for item in chart.plot.listDataItems()]
        assert [pen.width() for pen in pens] == [1, 1, 1]
        assert pens[1].color() == theme.DARK.color("chart_smoothed")
        assert chart.plot.backgroundBrush().color() == theme.DARK.color("panel")

    def test_empty_says_what_will_appear_and_a_wheel_scrolls_the_page(self, qtbot: QtBot) -> None:
        chart = LossChart()
        qtbot.addWidget(chart)
        chart.show()
        assert "every step" in chart.plot._empty.text()
        assert chart.plot._empty.isVisible()
        assert chart.plot.objectName() == "lossChart"
        assert not chart.plot.getViewBox().menuEnabled()


class TestMemoryChart:
    def test_draws_the_limit_and_names_its_size(self, qtbot: QtBot) -> None:
        chart = MemoryChart()
        qtbot.addWidget(chart)
        for second in range(10):
            chart.add_sample(_sample(second))
        chart.plot.redraw()
        assert chart.plot._limit.value() == 24.0
        assert chart.plot._limit.pen.dashPattern()
        assert chart._limit_legend.label.text() == "the card, 24.0 GB"
        assert chart.plot._limit_label.toPlainText() == "24.0 GB"
        assert chart.plot.objectName() == "vramChart"

    def test_without_a_card_it_speaks_of_the_computer(self, qtbot: QtBot) -> None:
        chart = MemoryChart()
        qtbot.addWidget(chart)
        chart.add_sample(_sample(1, device="cpu"))
        chart.plot.redraw()
        assert chart._limit_legend.label.text().startswith("the computer, ")

    def test_a_resumed_run_goes_on_after_its_first_attempt(self, qtbot: QtBot) -> None:
        chart = MemoryChart()
        qtbot.addWidget(chart)
        for second in range(5):
            chart.add_sample(_sample(second))
        chart.begin_attempt()
        chart.add_sample(_sample(0.5))
        chart.plot.redraw()
        xs = chart.plot.listDataItems()[0].xData
        assert len(xs) == 6
        assert xs[-1] == pytest.approx(5.5)


def test_numbers_on_axes_are_round() -> None:
    assert [round_up(value) for value in (0.03, 0.2, 3.0, 70.0)] == [0.05, 0.2, 5.0, 100.0]
    assert write_number(2.5, 0.5) == "2.5"
    assert write_number(0.02, 0.0) == "0.02"
    assert math.isclose(round_up(0.0), 1.0)
