"""What the charts cost: repaints at 10,000 to a million points, appending, opening a long run.

    python tests/benchmarks/chart_bench.py [--repaints 60] [--open 1000000]

A repaint is all that happens when a new step arrives: the point appended, its smoothed value
and the ranges computed, and the picture painted. Opening reads the journal of a run of so many
steps into the Train page; a timer that is due every 10 ms tells how long the window stalled.
Works without a screen. Not a test: nothing here is asserted.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ["LORASMITH_NO_WARM_UP"] = "1"

import numpy as np
import psutil
from PySide6.QtCore import QObject, Qt, QTimer
from PySide6.QtWidgets import QApplication

from app import background, theme
from app.models.comparison import ComparedRun
from app.models.run_curves import MetricsBlock
from app.pages.train import TrainPage
from app.widgets.charts.compare_chart import CompareChart
from app.widgets.charts.metric_chart import LossChart, SmoothingBox
from app.widgets.charts.series import Floats
from training_backend import runs
from training_backend.job import parse_job
from training_backend.protocol import MetricsLogged, RunCompleted, RunStarted
from training_backend.runs import Run

INTERVAL_MS = 10
COUNTS = (10_000, 100_000, 1_000_000)
COMPARED = 8
PICTURE_SECONDS = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--repaints", type=int, default=60, help="of each chart")
    parser.add_argument("--open", type=int, default=1_000_000, help="steps of the long run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["LORASMITH_HOME"] = home
        app = QApplication(sys.argv[:1])
        theme.apply(app, "light")
        for count in COUNTS:
            _measure_repaints(count, options.repaints)
        _measure_comparison(options.repaints)
        if options.open:
            _measure_opening(app, options.open)
        background.shutdown()


def _measure_repaints(count: int, repaints: int) -> None:
    chart = LossChart()
    chart.resize(1020, 340)
    chart.show()
    QApplication.processEvents()  # or it is drawn at the size it was born with
    began = time.perf_counter()
    chart.add_block(_block(count))
    chart.plot.redraw()
    first = time.perf_counter() - began
    times, appended = [], []
    for index in range(repaints):
        event = MetricsLogged(
            step=count + 1 + index, total_steps=2 * count, epoch=1.0, loss=1.0 + index % 7 / 10
        )
        began = time.perf_counter()
        chart.add_metrics(event)
        appended.append(time.perf_counter() - began)
        chart.plot.redraw()
        chart.plot.viewport().repaint()
        times.append(time.perf_counter() - began)
    print(
        f"{count:>9,} points   repaint {_quantiles(times)}   "
        f"append {np.median(appended) * 1e6:5.1f} us   first picture {first * 1e3:6.1f} ms"
    )
    chart.close()


def _measure_comparison(repaints: int) -> None:
    count = COUNTS[-1] // COMPARED
    chart = CompareChart("Loss", "loss", "", lambda run, _: run.loss, SmoothingBox(), in_time=False)
    compared = []
    for number in range(COMPARED):
        run = ComparedRun(f"run {number}", Run(Path()), None)
        block = _block(count, number)
        run.loss.extend(block.step, block.loss)
        compared.append(run)
    chart.resize(1020, 340)
    chart.show()
    QApplication.processEvents()  # or it is drawn at the size it was born with
    chart.show_runs(compared)
    QApplication.processEvents()
    times = []
    for _ in range(repaints):
        began = time.perf_counter()
        chart.plot.redraw()
        chart.plot.viewport().repaint()
        times.append(time.perf_counter() - began)
    print(f"{COMPARED} runs of {count:,} points, dashed   repaint {_quantiles(times)}")
    chart.close()


def _measure_opening(app: QApplication, count: int) -> None:
    run = _long_run(count)
    size = (run.folder / "events.jsonl").stat().st_size
    page = TrainPage()
    page.resize(1072, 720)
    page.show()
    late: list[float] = []
    state = {"last": 0.0, "done": 0.0}
    owner = QObject()

    def tick() -> None:
        now = time.perf_counter()
        late.append(max(0.0, (now - state["last"]) - INTERVAL_MS / 1_000))
        state["last"] = now
        if page._shown.caught_up and not state["done"]:
            state["done"] = now
        if state["done"] and now - state["done"] > PICTURE_SECONDS:
            timer.stop()
            app.quit()

    timer = QTimer(owner, interval=INTERVAL_MS, timerType=Qt.TimerType.PreciseTimer)
    timer.timeout.connect(tick)
    before = psutil.Process().memory_info().rss
    began = state["last"] = time.perf_counter()
    page.open_run(run, live=False)
    timer.start()
    app.exec()
    assert len(page.charts.loss._each) == count
    grown = psutil.Process().memory_info().rss - before
    print(
        f"opening a run of {count:,} steps ({size / 2**20:.0f} MB)   "
        f"{state['done'] - began:.1f} s   stalls {_quantiles(late)}, "
        f"worst {max(late) * 1e3:.0f} ms   memory grows by {grown / 2**20:.0f} MB"
    )
    page.close()


def _long_run(count: int) -> Run:
    document = {"version": 1, "name": "long", "model": {"id": "demo"}, "dataset": {"path": "demo"}}
    run = runs.create(parse_job(document))
    block = _block(count)
    opening = RunStarted(seq=0, run_id=run.id, folder=str(run.folder), pid=1)
    step = MetricsLogged(
        seq=-111, elapsed=-222, step=-333, total_steps=count, epoch=0.5, loss=-444,
        learning_rate=2e-4, grad_norm=0.8, tokens_per_second=2400.0, seconds_left=10.0,
    ).model_dump_json()  # fmt: skip
    with (run.folder / "events.jsonl").open("w", encoding="utf-8") as file:
        file.write(opening.model_dump_json() + "\n")
        for at, loss in enumerate(block.loss.tolist(), 1):
            line = step.replace("-111", str(at)).replace("-222.0", str(at))
            file.write(line.replace("-333", str(at)).replace("-444.0", f"{loss:.6f}") + "\n")
        file.write(RunCompleted(seq=count + 1, folder="x").model_dump_json() + "\n")
    return run


def _block(count: int, seed: int = 0) -> MetricsBlock:
    noise = np.random.default_rng(seed)
    step: Floats = np.arange(1.0, count + 1)
    loss = 1.2 + 2 * np.exp(-4 * step / count) + noise.normal(0, 0.2, count)
    other = np.full(count, math.nan)
    last = MetricsLogged(step=count, total_steps=count, epoch=1.0, loss=float(loss[-1]))
    return MetricsBlock(step, step, loss, other, other, other, other, last)


def _quantiles(seconds: list[float]) -> str:
    median, high = np.quantile(seconds, [0.5, 0.99]) * 1e3
    return f"median {median:5.1f} ms, p99 {high:5.1f} ms"


if __name__ == "__main__":
    main()
