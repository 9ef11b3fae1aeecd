"""Sweeps in the window: planned in a dialog, compared on the Runs page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QTableView
from pytestqt.qtbot import QtBot

from app import background
from app.main_window import MainWindow
from app.pages.runs import RunsPage
from app.widgets.settings.sweep_dialog import SweepDialog
from training_backend import runs
from training_backend.computer.devices import Device
from training_backend.job import TrainingJob, parse_job
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import EvaluationLogged, MetricsLogged, RunCompleted, RunStarted
from training_backend.queueing import run_queue, sweeps
from training_backend.queueing.sweeps import Axis
from training_backend.runs import Run

CARD = Device("cuda", "A card", 24 * 2**30)


def _job(name: str = "try", **lora: object) -> TrainingJob:
    job = parse_job(
        {
            "version": 1,
            "name": name,
            "model": {"id": "demo"},
            "dataset": {"path": "demo"},
            "lora": {"r": 16, **lora},
        }
    )
    assert isinstance(job, TrainingJob)
    return job


def _finish(run: Run, loss: float, held_out: float, seconds: float = 100.0) -> None:
    writer = JournalWriter(run.folder)
    writer.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=1))
    writer.append(MetricsLogged(step=1, total_steps=1, epoch=1.0, loss=loss))
    writer.append(EvaluationLogged(step=1, epoch=1.0, loss=held_out))
    writer.append(RunCompleted(folder="x"))
    writer.close()


@pytest.fixture
def dialog(qtbot: QtBot) -> Iterator[SweepDialog]:
    made = SweepDialog(_job(), CARD)
    made.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
    qtbot.addWidget(made)
    made.show()
    yield made
    background.shutdown()


def _column(dialog: SweepDialog, column: int) -> list[str]:
    model = dialog.findChild(QTableView, "sweepPlan").model()
    return [model.index(row, column).data() for row in range(model.rowCount())]


def test_begins_with_three_ranks_and_says_what_each_takes(
    qtbot: QtBot, dialog: SweepDialog
) -> None:
    assert _column(dialog, 0) == ["rank 8", "rank 16", "rank 32"]
    assert dialog._start.text() == "Start 3 runs"
    qtbot.waitUntil(lambda: all("GB free" in text for text in _column(dialog, 1)))
    assert "known after the first run" in dialog._total.text()
    assert "Alpha follows the rank" in dialog._notes.text()


def test_says_how_long_all_take_by_a_run_of_the_same_work(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training_backend.summaries import run_facts
    from training_backend.summaries.run_facts import RunFacts

    done = runs.create(_job("before", r=64, lora_alpha=128))
    _finish(done, 1.0, 1.0)
    monkeypatch.setattr(
        run_facts, "read", lambda run, name="": RunFacts(run, name, "completed", seconds=600.0)
    )
    made = SweepDialog(_job(), CARD)
    qtbot.addWidget(made)
    made.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
    qtbot.waitUntil(lambda: "About 30 min in all" in made._total.text())


def test_a_wrong_value_is_told_beside_its_setting_and_nothing_can_start(
    qtbot: QtBot, dialog: SweepDialog
) -> None:
    axis = dialog._axes[0]
    axis.line.setText("8, 99999, eight")
    qtbot.waitUntil(lambda: "99999" in axis._error.text())
    assert "eight" in axis._error.text()
    assert not dialog._start.isEnabled()
    axis.line.setText("8")
    qtbot.waitUntil(lambda: "two values" in dialog._errors.text())
    assert axis._error.text() == ""
    axis.line.setText(", ".join(str(rank) for rank in range(1, 31)))
    qtbot.waitUntil(lambda: "30 runs" in dialog._errors.text())
    axis.line.setText("4 8;16")
    qtbot.waitUntil(lambda: dialog._start.isEnabled())
    assert _column(dialog, 0) == ["rank 4", "rank 8", "rank 16"]


def test_a_second_setting_makes_every_combination(qtbot: QtBot, dialog: SweepDialog) -> None:
    dialog._more.click()
    second = dialog._axes[1]
    second.setting.setCurrentIndex(second.setting.findData("quantization.load_in_4bit"))
    dialog._axes[0].line.setText("8, 16")
    qtbot.waitUntil(lambda: len(_column(dialog, 0)) == 4)
    assert _column(dialog, 0)[1] == "rank 8, 16-bit"
    second._boxes[0][0].setChecked(False)
    qtbot.waitUntil(lambda: _column(dialog, 0) == ["rank 8, 16-bit", "rank 16, 16-bit"])
    second.remove.click()
    qtbot.waitUntil(lambda: _column(dialog, 0) == ["rank 8", "rank 16"])


def test_the_runs_of_a_sweep_go_into_the_queue_and_the_first_starts(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = MainWindow()
    qtbot.addWidget(window)
    begun: list[Run] = []
    monkeypatch.setattr(window.training, "resume", begun.append)
    monkeypatch.setattr(run_queue.preflight, "check", lambda job: None)  # no demo model here
    window.show()
    qtbot.waitUntil(lambda: window.is_built("navRuns"))
    window.desk.try_values()
    dialog = window.findChild(SweepDialog)
    dialog._start.click()
    qtbot.waitUntil(lambda: len(begun) == 1)
    assert begun[0].training_job().lora.r == 8
    qtbot.waitUntil(lambda: len(window.queue.state.entries) == 2)
    assert [entry.job.lora.r for entry in window.queue.state.entries if entry.job] == [16, 32]
    assert len({entry.sweep for entry in window.queue.state.entries}) == 1
    assert window.page("navRuns").isVisible()
    window.close()


def test_a_sweep_is_compared_from_any_of_its_runs_with_the_best_value_named(
    qtbot: QtBot, home: Path
) -> None:
    sweep = sweeps.start(_job("which rank"), [Axis(field="lora.r", values=(8, 16, 32))])
    for run, held_out in zip(sweep.runs(), (1.50, 1.42, 1.43), strict=True):
        _finish(run, 1.0, held_out)
    page = RunsPage()
    qtbot.addWidget(page)
    page.show()
    qtbot.waitUntil(lambda: page.table.runs.rowCount() == 3)
    page.table.selectRow(0)
    assert page.compare_button.text() == "Compare this sweep"
    page.compare_button.click()
    qtbot.waitUntil(lambda: len(page.comparison.runs_shown()) == 3)
    verdict = page.findChild(QLabel, "sweepVerdict")
    qtbot.waitUntil(lambda: "Rank 16 gave the lowest held-out loss, 1.420" in verdict.text())
    assert page.header.subtitle.text() == "which rank"
    page.back_button.click()
    page.table.selectAll()
    assert page.compare_button.text() == "Compare"
    page.compare_button.click()
    assert not cast(QLabel, verdict).isVisible()


def test_of_a_sweep_under_way_what_has_begun_is_compared(qtbot: QtBot) -> None:
    sweep = sweeps.start(_job("which rank"), [Axis(field="lora.r", values=(8, 16, 32))])
    first = sweep.runs()[0]
    _finish(first, 1.0, 1.5)
    page = RunsPage()
    qtbot.addWidget(page)
    page.show()
    page.compare_sweep(sweep.id)
    qtbot.waitUntil(lambda: len(page.comparison.runs_shown()) == 1)
    verdict = page.findChild(QLabel, "sweepVerdict")
    qtbot.waitUntil(lambda: verdict.text().startswith("2 of 3 runs have not begun."))
