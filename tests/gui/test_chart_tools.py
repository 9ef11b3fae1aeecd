"""Looking into a chart: zoom, scales, outliers, and what is saved of it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QImage, QWheelEvent
from PySide6.QtSvg import QSvgRenderer
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QFileDialog, QMessageBox
from pytestqt.qtbot import QtBot

from app.widgets.charts.metric_chart import LossChart, MetricChart
from app.widgets.charts.plot_window import Window, value_range
from app.widgets.charts.run_charts import RunCharts
from app.widgets.charts.series import MOST_POINTS, Floats, Series, in_view, peaks
from tests.gui.settling import settle
from training_backend.protocol import EvaluationLogged, MetricsLogged

STEPS = 200


@pytest.fixture
def chart(qtbot: QtBot) -> LossChart:
    made = LossChart()
    qtbot.addWidget(made)
    made.resize(900, 320)
    made.show()
    for step in range(1, STEPS + 1):
        made.add_metrics(_step(step, 2.0 - step / 200))
    made.add_evaluation(EvaluationLogged(step=100, epoch=1.0, loss=1.7))
    made.plot.redraw()
    return made


def _step(step: int, loss: float) -> MetricsLogged:
    return MetricsLogged(step=step, total_steps=STEPS, epoch=1.0, loss=loss)


def _pixel(chart: LossChart, x: float) -> QPoint:
    at = chart.plot.plotItem.vb.mapViewToScene(QPointF(x, 1.5))
    return QPoint(round(at.x()), round(at.y()))


def _shown(chart: LossChart) -> tuple[float, float, float, float]:
    return chart.plot._extent


def _textbook(values: Floats, weight: float) -> Floats:
    found, total, count = [], 0.0, 0
    for value in values:
        if np.isfinite(value):
            total, count = weight * total + (1 - weight) * value, count + 1
            found.append(total / (1 - weight**count))
        else:
            found.append(np.nan)
    return np.array(found)


class TestManyPoints:
    @pytest.mark.parametrize("weight", [0.0, 0.6, 0.99])
    def test_smoothing_many_at_once_is_the_textbook_average(self, weight: float) -> None:
        values = np.random.default_rng(0).normal(2, 1, 1_000)
        values[[3, 500]] = np.nan, np.inf
        series = Series()
        for at, value in enumerate(values):  # NaN itself has no place in a block
            series.append(at, value)
            if at in (7, 700):
                series.smoothed(weight)
        assert np.allclose(series.smoothed(weight), _textbook(values, weight), equal_nan=True)

    def test_a_picture_of_many_points_keeps_every_peak(self) -> None:
        xs = np.arange(1_000_000.0)
        ys = np.zeros(1_000_000)
        ys[123_457], ys[999_999] = 9.0, -3.0
        drawn_xs, drawn_ys = peaks(xs, ys, in_view(xs, -1, 2_000_000), 1_000)
        assert len(drawn_xs) == len(drawn_ys) <= 2_100
        assert (drawn_ys.max(), drawn_ys.min()) == (9.0, -3.0)
        assert abs(drawn_xs[drawn_ys.argmax()] - 123_457) < 1_024
        assert (np.diff(drawn_xs) >= 0).all()

    def test_a_line_does_not_flicker_while_it_grows(self) -> None:
        xs, ys = np.arange(10_000.0), np.random.default_rng(1).normal(size=10_000)
        before = peaks(xs[:9_000], ys[:9_000], slice(0, 9_000), 500)
        after = peaks(xs, ys, slice(0, 10_000), 500)
        kept = len(before[0]) - 3  # but for the group that was not whole yet
        assert np.array_equal(before[1][:kept], after[1][:kept])

    def test_what_a_very_long_run_holds_is_bounded_and_keeps_its_peaks(self) -> None:
        series = Series()
        ys = np.ones(MOST_POINTS)
        ys[77_777] = 50.0
        series.extend(np.arange(float(MOST_POINTS)), ys)
        assert len(series) == MOST_POINTS
        series.append(float(MOST_POINTS), 3.0)
        assert len(series) == MOST_POINTS // 2 + 1
        assert series.ys.max() == 50.0
        assert (np.diff(series.xs) > 0).all()
        assert series.ys[-1] == 3.0

    def test_points_that_come_together_supersede_like_single_ones(self) -> None:
        together, single = Series(), Series()
        for series in (together, single):
            for step in range(20):
                series.append(step, 1.0)
        together.extend(np.array([10.0, 11.0]), np.array([2.0, np.nan]))
        single.append(10, 2.0)
        assert np.array_equal(together.xs, single.xs)
        assert np.array_equal(together.ys, single.ys)


class TestZoom:
    def test_dragging_over_a_range_shows_it_with_its_own_height(
        self, chart: LossChart, qtbot: QtBot
    ) -> None:
        plot = chart.plot
        QTest.mousePress(plot.viewport(), Qt.MouseButton.LeftButton, pos=_pixel(chart, 150))
        QTest.mouseMove(plot.viewport(), _pixel(chart, 180))
        QTest.mouseRelease(plot.viewport(), Qt.MouseButton.LeftButton, pos=_pixel(chart, 180))
        low, high, _, y_high = _shown(chart)
        assert (low, high) == pytest.approx((150, 180), abs=1)
        assert y_high < 1.8  # of the held-out line that leads through
        assert plot.reset_button.isVisible()
        chart.add_metrics(_step(STEPS + 1, 0.5))
        plot.redraw()
        assert _shown(chart)[:2] == (low, high)  # new steps do not move what is looked at
        QTest.mouseDClick(plot.viewport(), Qt.MouseButton.LeftButton, pos=_pixel(chart, 160))
        assert _shown(chart)[1] == STEPS + 1
        assert not plot.reset_button.isVisible()

    def test_the_wheel_zooms_with_ctrl_and_else_belongs_to_the_page(self, chart: LossChart) -> None:
        def turn(modifier: Qt.KeyboardModifier) -> bool:
            at = QPointF(_pixel(chart, 100))
            event = QWheelEvent(
                at, at, QPoint(), QPoint(0, 120), Qt.MouseButton.NoButton, modifier,
                Qt.ScrollPhase.NoScrollPhase, False,
            )  # fmt: skip
            QApplication.sendEvent(chart.plot.viewport(), event)
            return event.isAccepted()

        before = _shown(chart)
        assert not turn(Qt.KeyboardModifier.NoModifier)
        assert _shown(chart) == before
        assert turn(Qt.KeyboardModifier.ControlModifier)
        low, high, *_ = _shown(chart)
        assert high - low == pytest.approx(0.8 * (before[1] - before[0]))

    def test_keys_zoom_about_the_readout_and_take_it_back(self, chart: LossChart) -> None:
        plot = chart.plot
        plot.setFocus(Qt.FocusReason.TabFocusReason)
        plot._cursor_x = 100.0
        QTest.keyClick(plot, Qt.Key.Key_Plus)
        low, high, *_ = _shown(chart)
        assert low > 40 and high < 160 and low < 100 < high
        plot._cursor_x = float(int(high))
        for _ in range(20):
            QTest.keyClick(plot, Qt.Key.Key_Right)
        assert _shown(chart)[1] > high  # the part follows the readout
        QTest.keyClick(plot, Qt.Key.Key_Escape)
        assert not plot.window_x.is_zoomed

    def test_a_zoom_beyond_the_whole_is_the_whole(self) -> None:
        window = Window()
        window.whole = (0.0, 100.0)
        window.zoom_to(80, 120)
        assert window.shown == (60, 100)
        window.zoom_about(80, 10)
        assert not window.is_zoomed

    def test_another_run_begins_unzoomed(self, chart: LossChart) -> None:
        chart.plot.zoom_to(10, 20)
        chart.clear()
        assert not chart.plot.window_x.is_zoomed


class TestOutliers:
    def test_spikes_do_not_flatten_the_rest_and_are_told_of(self, chart: LossChart) -> None:
        for step in (50, 150):
            chart._each.ys[step - 1] = 97.1
        chart.plot.redraw()
        assert _shown(chart)[3] < 4
        assert chart.plot.cut_note.text() == "spikes up to 97.1 are cut off"
        chart.clip.trigger()
        chart.plot.redraw()
        assert _shown(chart)[3] > 97
        assert not chart.plot.cut_note.isVisible()

    def test_a_steady_fall_is_shown_whole(self) -> None:
        falling = np.linspace(5.0, 1.0, 500)
        assert value_range([(falling, True)], True) == (1.0, 5.0)

    def test_one_spike_among_thirty_values_is_cut(self) -> None:
        values = np.linspace(2.0, 1.8, 30)
        values[12] = 100.0
        shown = value_range([(values, True)], True)
        assert shown is not None and shown[1] < 3.0

    def test_held_out_values_are_never_cut(self) -> None:
        values = np.linspace(2.0, 1.8, 30)
        shown = value_range([(values, True), (np.array([9.0]), False)], True)
        assert shown is not None and shown[1] == 9.0

    def test_what_is_not_a_number_has_no_part_in_the_range(self) -> None:
        assert value_range([(np.array([1.0, np.nan, np.inf, 2.0]), True)], True) == (1.0, 2.0)
        assert value_range([(np.array([np.nan]), True)], True) is None


def test_both_axes_can_be_logarithmic(chart: LossChart) -> None:
    chart.log_x.trigger()
    chart.log_scale.click()
    assert chart.log_y.isChecked()
    xs, ys = chart.plot.listDataItems()[0].getData()
    assert np.allclose(xs, np.log10(np.arange(1, STEPS + 1)))
    assert ys[0] == pytest.approx(np.log10(1.995))
    low, high, y_low, y_high = _shown(chart)
    assert low < 0 and high == pytest.approx(np.log10(STEPS))
    assert y_low < 0.0 < y_high
    chart.plot.grab()  # its axes are written in these ranges
    chart.plot.zoom_to(10, 100)
    assert _shown(chart)[:2] == pytest.approx((1.0, 2.0))


def test_every_number_of_a_step_has_a_chart(qtbot: QtBot) -> None:
    charts = RunCharts()
    qtbot.addWidget(charts)
    for step in range(1, 4):
        charts.add_metrics(
            MetricsLogged(
                step=step, total_steps=9, epoch=0.1, loss=1.0, learning_rate=2e-4,
                grad_norm=0.5, tokens_per_second=400.0 + step,
            )
        )  # fmt: skip
    charts.add_metrics(MetricsLogged(step=4, total_steps=9, epoch=0.1, loss=1.0))
    drawn = {}
    for chart in charts.findChildren(MetricChart):
        chart.plot.redraw()
        drawn[chart.plot.objectName()] = list(chart.plot.lines[0].xs)
    assert drawn["learning_rateChart"] == [1, 2, 3]
    assert drawn["grad_normChart"] == [1, 2, 3]
    assert drawn["tokens_per_secondChart"] == [1, 2, 3]
    assert charts.speed.plot.lines[0].ys[-1] == 403.0


class TestSaving:
    def _save(self, chart: LossChart, qtbot: QtBot, path: Path) -> Path:
        chart.save(path)
        settle(qtbot)  # it is there before all of it is written
        return path

    def test_a_table_holds_the_raw_values_with_their_units(
        self, chart: LossChart, qtbot: QtBot, tmp_path: Path
    ) -> None:
        chart.log_scale.click()
        chart.plot.zoom_to(10, 20)
        path = self._save(chart, qtbot, tmp_path / "loss.csv")
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        assert rows[0] == ["step", "loss (nats per token)", "held-out loss (nats per token)"]
        assert len(rows) == STEPS + 1
        assert rows[1] == ["1", "1.995", ""]
        assert rows[100] == ["100", "1.5", "1.7"]

    def test_a_table_of_preference_tuning_names_its_own_loss(
        self, chart: LossChart, qtbot: QtBot, tmp_path: Path
    ) -> None:
        chart.set_objective("dpo")
        assert chart.title.text() == "DPO loss"
        path = self._save(chart, qtbot, tmp_path / "loss.csv")
        head = path.read_text(encoding="utf-8").splitlines()[0]
        assert head == "step,DPO loss (nats per pair),held-out DPO loss (nats per pair)"

    def test_a_picture_is_twice_as_fine_as_the_screen(
        self, chart: LossChart, qtbot: QtBot, tmp_path: Path
    ) -> None:
        image = QImage(str(self._save(chart, qtbot, tmp_path / "loss.png")))
        assert image.width() == 2 * (chart.plot.width() + 32)
        assert len({image.pixel(x, image.height() // 2) for x in range(image.width())}) > 3

    def test_an_svg_holds_lines_and_texts_within_its_frame(
        self, chart: LossChart, qtbot: QtBot, tmp_path: Path
    ) -> None:
        chart._each.ys[99] = 97.1
        path = self._save(chart, qtbot, tmp_path / "loss.svg")
        text = path.read_text(encoding="utf-8")
        assert QSvgRenderer(str(path)).isValid()
        assert "<image" not in text
        for words in ("Loss", "held-out", "spikes up to 97.1 are cut off"):
            assert f">{words}</text>" in text
        line = chart.plot.lines[0].item
        assert line.yData.max() > chart.plot._extent[3]  # on the screen it goes on

    def test_what_cannot_be_written_is_told(
        self, chart: LossChart, qtbot: QtBot, tmp_path: Path
    ) -> None:
        chart.save(tmp_path / "no such folder" / "loss.csv")

        def box() -> QMessageBox | None:
            return chart.window().findChild(QMessageBox, "errorDialog")

        qtbot.waitUntil(lambda: box() is not None)
        found = box()
        assert found is not None
        assert "no such folder" in found.informativeText()
        found.close()

    def test_the_menu_is_reached_by_keyboard_and_asks_where(
        self, chart: LossChart, qtbot: QtBot
    ) -> None:
        chart.menu_button.setFocus()
        QTest.keyClick(chart.menu_button, Qt.Key.Key_Space)
        qtbot.waitUntil(chart.menu.isVisible)
        texts = [action.text() for action in chart.menu.actions() if action.isVisible()]
        assert "Save values as CSV…" in texts
        chart.menu.close()
        chart._ask_where("csv")
        dialog = chart.window().findChild(QFileDialog)
        assert dialog is not None
        assert dialog.defaultSuffix() == "csv"
        dialog.close()

    def test_an_empty_chart_has_nothing_to_save(self, qtbot: QtBot) -> None:
        chart = LossChart()
        qtbot.addWidget(chart)
        chart._offer()
        assert not any(action.isEnabled() for action in chart._saving)
