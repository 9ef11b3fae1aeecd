"""The chart of preference tuning is there when there is something to show, and only then."""

from __future__ import annotations

from pytestqt.qtbot import QtBot

from app.models.run_curves import JournalPart, read_parts
from app.widgets.charts.run_charts import RunCharts
from training_backend import runs
from training_backend.job import parse_job
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import MetricsLogged


def metrics(step: int, margin: float | None) -> MetricsLogged:
    return MetricsLogged(step=step, total_steps=9, epoch=0.1, loss=0.6, reward_margin=margin)


def part(*written: MetricsLogged) -> JournalPart:
    """What a run that wrote these reads as."""
    document = {"version": 1, "model": {"id": "demo"}, "dataset": {"path": "demo"}}
    run = runs.create(parse_job(document))
    writer = JournalWriter(run.folder)
    for event in written:
        writer.append(event)
    writer.close()
    (found,) = read_parts(run)
    return found


def test_the_margin_has_a_chart_once_a_step_tells_of_it(qtbot: QtBot) -> None:
    charts = RunCharts()
    qtbot.addWidget(charts)
    charts.show()
    charts.add_metrics(metrics(1, None))
    assert not charts.margin.isVisible()
    charts.add_metrics(metrics(2, 0.4))
    assert charts.margin.isVisible()
    charts.clear()
    assert not charts.margin.isVisible()
    charts.add_part(part(metrics(1, None), metrics(2, None)))
    assert not charts.margin.isVisible()
    charts.add_part(part(metrics(3, 0.1), metrics(4, 0.8)))
    assert charts.margin.isVisible()
    readout = charts.margin._readout(4)
    assert readout is not None and readout[0] == 4 and "0.8" in readout[1]
