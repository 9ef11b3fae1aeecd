"""The Runs page against a real run store."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from PySide6.QtCore import QFile, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QMessageBox, QTableView
from pytestqt.qtbot import QtBot

from app.models.runs_model import LOSS, MODEL, NAME, STATE, STEPS
from app.pages.runs import RunsPage
from training_backend import runs
from training_backend.job import parse_job
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import (
    AnswersScored,
    EvaluationLogged,
    MemorySampled,
    MetricsLogged,
    RunCompleted,
    RunFailed,
    RunStarted,
    RunStopped,
    Score,
    Terminal,
)
from training_backend.queueing import run_queue
from training_backend.runs import Run
from training_backend.starting_points.demo import demo_job


def _run(name: str, terminal: Terminal, loss: float, checkpoint: bool = False) -> Run:
    document = {"version": 1, "name": name, "model": {"id": "demo"}, "dataset": {"path": "demo"}}
    run = runs.create(parse_job(document))
    writer = JournalWriter(run.folder)
    writer.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=1))
    writer.append(MetricsLogged(step=5, total_steps=10, epoch=0.5, loss=loss))
    writer.append(terminal)
    writer.close()
    if checkpoint:
        (run.checkpoints / "checkpoint-5").mkdir(parents=True)
    return run


@pytest.fixture
def page(qtbot: QtBot, home: Path) -> RunsPage:
    made = RunsPage()
    qtbot.addWidget(made)
    made.resize(1072, 720)
    return made


def _show(page: RunsPage, qtbot: QtBot, count: int) -> QTableView:
    page.show()
    table: QTableView = page.findChild(QTableView, "runsTable")
    qtbot.waitUntil(lambda: table.model().rowCount() == count)
    return table


def _column(table: QTableView, column: int) -> list[str]:
    model = table.model()
    return [model.index(row, column).data() for row in range(model.rowCount())]


def _select(page: RunsPage, name: str) -> None:
    page.table.selectRow(_column(page.table, NAME).index(name))


def test_empty_it_leads_on(page: RunsPage, qtbot: QtBot) -> None:
    page.show()
    assert page._empty.isVisible()
    assert not page.open_button.isVisible()


def test_lists_and_sorts(page: RunsPage, qtbot: QtBot) -> None:
    _run("beta <b>", RunCompleted(folder="x"), 0.5)
    _run("Alpha", RunFailed(code="x", message="m"), 12.0)
    table = _show(page, qtbot, 2)
    assert set(_column(table, STATE)) == {"completed", "failed"}
    assert set(_column(table, STEPS)) == {"5 of 10"}
    table.sortByColumn(NAME, Qt.SortOrder.AscendingOrder)
    assert _column(table, NAME) == ["Alpha", "beta <b>"]
    table.sortByColumn(LOSS, Qt.SortOrder.AscendingOrder)
    assert _column(table, LOSS) == ["0.500", "12.000"]


def test_a_run_that_waits_in_the_queue_stands_there_and_not_here_too(
    page: RunsPage, qtbot: QtBot
) -> None:
    _run("done", RunCompleted(folder="x"), 1.0)
    waits, begun = run_queue.add([demo_job(), demo_job().model_copy(update={"name": "begun"})])
    writer = JournalWriter(begun.folder)
    writer.append(RunStarted(run_id=begun.id, folder=str(begun.folder), pid=1))
    writer.append(RunCompleted(folder="x"))
    writer.close()
    table = _show(page, qtbot, 2)
    assert set(_column(table, NAME)) == {"done", "begun"}
    assert [entry.run for entry in run_queue.entries()] == [waits]


@pytest.mark.parametrize("window", [1040, 1280])
def test_the_names_have_room_in_any_window(page: RunsPage, qtbot: QtBot, window: int) -> None:
    _run("done", RunCompleted(folder="x"), 1.0)
    page.resize(window - 208, 720)  # less the sidebar
    table = _show(page, qtbot, 1)
    widths = [table.columnWidth(column) for column in range(7)]
    assert widths[NAME] >= 190
    assert sum(widths) <= table.viewport().width()  # nothing is out of sight
    assert table.columnWidth(MODEL) == (150 if window == 1280 else 105)


def test_opens_by_return_and_double_click(page: RunsPage, qtbot: QtBot) -> None:
    run = _run("one", RunCompleted(folder="x"), 0.5)
    table = _show(page, qtbot, 1)
    table.setFocus()
    page.activateWindow()
    with qtbot.waitSignal(page.open_requested) as opened:
        QTest.keyClick(table, Qt.Key.Key_Return)
    assert opened.args == [run]
    with qtbot.waitSignal(page.open_requested):
        table.doubleClicked.emit(table.model().index(0, 0))


def test_offers_only_what_makes_sense(page: RunsPage, qtbot: QtBot) -> None:
    _run("done", RunCompleted(folder="x"), 0.5, checkpoint=True)
    _run("stopped", RunStopped(step=5, checkpoint="c"), 0.5, checkpoint=True)
    _run("hopeless", RunFailed(code="x", message="m"), 0.5)
    live = _run("live", RunStopped(step=5), 0.5)
    (live.folder / "events.jsonl").unlink()
    with live.worker_lock().acquire():
        _show(page, qtbot, 4)
        offers = {}
        for name in ("done", "stopped", "hopeless", "live"):
            _select(page, name)
            buttons = (page.resume_button, page.export_button, page.delete_button)
            offers[name] = tuple(button.isEnabled() for button in buttons)
    assert offers == {
        "done": (False, True, True),
        "stopped": (True, True, True),
        "hopeless": (False, False, True),
        "live": (False, False, False),
    }


def test_several_runs_are_deleted_at_once_and_stay_selected_while_the_list_is_read_again(
    page: RunsPage, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [_run(f"run {number}", RunCompleted(folder="x"), 0.5) for number in range(3)]
    _show(page, qtbot, 3)
    monkeypatch.setattr(QFile, "moveToTrash", lambda path: False)
    _select(page, "run 0")
    down = (Qt.Key.Key_Down, Qt.KeyboardModifier.ShiftModifier)
    page.table.sortByColumn(NAME, Qt.SortOrder.AscendingOrder)
    page.table.setFocus()
    QTest.keyClick(page.table, *down)
    QTest.keyClick(page.table, Qt.Key.Key_Escape)  # lets go of Shift
    _run("run 3", RunCompleted(folder="x"), 0.5)
    page.refresh()
    qtbot.waitUntil(lambda: page.table.runs.rowCount() == 4)
    assert [summary.name for summary in page.table.selected()] == ["run 0", "run 1"]
    assert not page.open_button.isEnabled()
    assert not page.resume_button.isEnabled()
    page.delete_button.click()
    box = page.findChild(QMessageBox, "deleteRunDialog")
    assert "2 runs" in box.text()
    box.buttons()[0].click()
    qtbot.waitUntil(lambda: page.table.runs.rowCount() == 2)
    assert not made[0].folder.exists()
    assert not made[1].folder.exists()
    assert made[2].folder.exists()


def test_deleting_asks_first_and_moves_to_the_trash(
    page: RunsPage, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    run = _run("one", RunCompleted(folder="x"), 0.5)
    _show(page, qtbot, 1)
    monkeypatch.setattr(QFile, "moveToTrash", lambda path: False)  # a drive without a trash
    page.delete_button.click()
    box = page.findChild(QMessageBox, "deleteRunDialog")
    assert box.textFormat() == Qt.TextFormat.PlainText
    assert run.folder.exists()
    box.buttons()[0].click()
    qtbot.waitUntil(lambda: not run.folder.exists())
    assert (home / "deleted-runs" / run.id / "job.json").is_file()
    qtbot.waitUntil(lambda: page.table.runs.rowCount() == 0)
    assert page._empty.isVisible()


def test_after_a_deletion_the_next_row_is_selected(page: RunsPage, qtbot: QtBot) -> None:
    made = [_run(f"run {number}", RunCompleted(folder="x"), 0.5) for number in range(3)]
    table = _show(page, qtbot, 3)
    table.sortByColumn(NAME, Qt.SortOrder.DescendingOrder)
    _select(page, "run 1")
    shutil.rmtree(made[1].folder)
    page.refresh()
    qtbot.waitUntil(lambda: page.table.runs.rowCount() == 2)
    selected = page.selected()
    assert selected is not None
    assert selected.name == "run 0"


def test_stays_where_it_was_scrolled_to_when_a_run_goes_on(page: RunsPage, qtbot: QtBot) -> None:
    made = [_run(f"run {number}", RunCompleted(folder="x"), 0.5) for number in range(40)]
    table = _show(page, qtbot, 40)
    bar = table.verticalScrollBar()
    qtbot.waitUntil(lambda: bar.maximum() > 200)
    bar.setValue(200)
    writer = JournalWriter(made[0].folder)
    writer.append(MetricsLogged(step=6, total_steps=10, epoch=0.6, loss=0.4))
    writer.close()
    before = table.model().index(0, NAME).data()
    page._show_runs(runs.list_runs())
    assert "6 of 10" in _column(table, STEPS)
    assert table.model().index(0, NAME).data() == before
    assert bar.value() == 200


def test_keeps_the_selection_when_a_run_comes_in(page: RunsPage, qtbot: QtBot) -> None:
    _run("one", RunCompleted(folder="x"), 0.5)
    _show(page, qtbot, 1)
    time.sleep(0.01)
    _run("two", RunCompleted(folder="x"), 0.5)
    page.refresh()
    qtbot.waitUntil(lambda: page.table.runs.rowCount() == 2)
    selected = page.selected()
    assert selected is not None
    assert selected.name == "one"


def _learned(
    name: str, rank: int, losses: list[float], held_out: float | None, f1: float | None = None
) -> Run:
    document = {
        "version": 1,
        "name": name,
        "model": {"id": "demo"},
        "dataset": {"path": "demo"},
        "lora": {"r": rank},
    }
    run = runs.create(parse_job(document))
    writer = JournalWriter(run.folder)
    writer.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=1))
    for step, loss in enumerate(losses, 1):
        writer.append(MetricsLogged(step=step, total_steps=9, epoch=0.1, loss=loss))
    if held_out is not None:
        writer.append(EvaluationLogged(step=len(losses), epoch=0.5, loss=held_out))
    if f1 is not None:
        score = Score(name="f1", before=0.1, after=f1)
        writer.append(AnswersScored(step=len(losses), rows=20, scores=(score,)))
    writer.append(
        MemorySampled(
            device="cpu", process_bytes=2**30, device_used_bytes=2**31, device_total_bytes=2**34
        )
    )
    writer.append(RunCompleted(folder="x"))
    writer.close()
    return run


def _compare(page: RunsPage, qtbot: QtBot, count: int) -> dict[str, list[str]]:
    """What the comparison's table says, by column."""
    page.table.sortByColumn(NAME, Qt.SortOrder.AscendingOrder)
    page.table.selectAll()
    page.compare_button.click()
    qtbot.waitUntil(lambda: len(page.comparison.runs_shown()) == count)
    model = page.comparison.table.model()
    side = Qt.Orientation.Horizontal
    titles = [model.headerData(column, side) for column in range(model.columnCount())]
    return {
        title: [model.index(row, column).data() for row in range(model.rowCount())]
        for column, title in enumerate(titles)
    }


def test_compared_runs_stand_beside_the_settings_in_which_they_differ(
    page: RunsPage, qtbot: QtBot
) -> None:
    _learned("a <b>small</b> one", 8, [3.0, 2.0, 2.0], 2.5)
    _learned("large", 64, [3.0, 1.0], None)
    _show(page, qtbot, 2)
    said = _compare(page, qtbot, 2)
    assert said["Run"] == ["1 a <b>small</b> one", "2 large"]
    assert said["Rank"] == ["8", "64"]
    assert "Alpha" not in said  # the same in both
    assert said["Loss"] == ["2.333", "2.000"]
    assert said["Held-out"] == ["2.500", "–"]
    assert "F1" not in said  # neither was scored
    assert said["Memory at most"] == ["1.0 GB", "1.0 GB"]


def test_of_a_run_that_keeps_its_best_model_the_lowest_held_out_loss_counts(
    page: RunsPage, qtbot: QtBot
) -> None:
    for name, keep_best in (("best", True), ("last", False)):
        job = parse_job(
            {
                "name": name,
                "model": {"id": "demo"},
                "dataset": {"path": "demo"},
                "evaluation": {"held_out_fraction": 0.1, "keep_best": keep_best},
            }
        )
        run = runs.create(job)
        writer = JournalWriter(run.folder)
        writer.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=1))
        for step, loss in enumerate([3.0, 2.0, 2.5], 1):
            writer.append(EvaluationLogged(step=step, epoch=0.5, loss=loss))
        writer.append(RunCompleted(folder="x"))
        writer.close()
    _show(page, qtbot, 2)
    said = _compare(page, qtbot, 2)
    assert said["Held-out"] == ["2.000", "2.500"]
    assert said["Perplexity"] == ["7.39", "12.2"]
    assert said["Keep the best"] == ["yes", "no"]


def test_the_highest_scores_of_compared_runs_stand_out(page: RunsPage, qtbot: QtBot) -> None:
    _learned("one", 8, [3.0], None, f1=0.414)
    _learned("three", 8, [3.0], None)
    _learned("two", 8, [3.0], None, f1=0.52)
    _show(page, qtbot, 3)
    said = _compare(page, qtbot, 3)
    assert said["F1"] == ["41 %", "–", "52 %"]
    assert "ROUGE-L" not in said
    model, column = page.comparison.table.model(), list(said).index("F1")
    tips = [model.index(row, column).data(Qt.ItemDataRole.ToolTipRole) for row in range(3)]
    assert ["best" in tip for tip in tips] == [False, False, True]


def test_overlaid_lines_differ_in_dashes_not_in_colour_alone(page: RunsPage, qtbot: QtBot) -> None:
    for number in range(8):
        _learned(f"run {number}", 2**number, [2.0, 1.0 + number], None)
    _show(page, qtbot, 8)
    _compare(page, qtbot, 8)
    pens = [item.opts["pen"] for item in page.comparison._charts[0][0].plot.listDataItems()]
    assert len(pens) == 8
    assert {pen.width() for pen in pens} == {1}
    assert len({tuple(pen.dashPattern()) for pen in pens}) == 8
    assert len({pen.color().name() for pen in pens}) == 8
    labels = [line.label.toPlainText() for line in page.comparison._charts[0][0].plot.lines]
    assert labels == [str(number) for number in range(1, 9)]


def test_runs_are_compared_by_time_as_well(page: RunsPage, qtbot: QtBot) -> None:
    _learned("one", 8, [3.0, 2.0], 2.5)
    _learned("two", 16, [3.0, 2.0], 2.5)
    _show(page, qtbot, 2)
    _compare(page, qtbot, 2)
    by_step, by_time = page.comparison._charts
    assert by_step[0].isVisible() and by_step[1].isVisible()
    page.comparison.along.setCurrentIndex(1)
    assert by_time[0].isVisible() and not by_step[0].isVisible()
    seconds = by_time[0].plot.lines[0].xs
    assert 0 <= seconds[0] <= seconds[1] < 60


def test_only_2_to_8_runs_can_be_compared_and_back_leads_to_the_list(
    page: RunsPage, qtbot: QtBot
) -> None:
    for number in range(9):
        _learned(f"run {number}", 8, [2.0], None)
    _show(page, qtbot, 9)
    assert not page.compare_button.isEnabled()  # one is selected
    page.table.selectAll()
    assert not page.compare_button.isEnabled()
    page.table.sortByColumn(NAME, Qt.SortOrder.AscendingOrder)
    _select(page, "run 0")
    page.table.setFocus()
    QTest.keyClick(page.table, Qt.Key.Key_Down, Qt.KeyboardModifier.ShiftModifier)
    QTest.keyClick(page.table, Qt.Key.Key_Escape)  # lets go of Shift
    assert page.compare_button.isEnabled()
    page.compare_button.click()
    assert page.comparison.isVisible() and not page.table.isVisible()
    qtbot.waitUntil(lambda: len(page.comparison.runs_shown()) == 2)
    page.back_button.click()
    assert page.table.isVisible() and not page.comparison.isVisible()


def test_a_run_that_cannot_be_read_leaves_the_others_to_compare(
    page: RunsPage, qtbot: QtBot
) -> None:
    whole = _learned("whole", 8, [2.0], None)
    broken = _learned("broken", 8, [2.0], None)
    _show(page, qtbot, 2)
    (broken.folder / "job.json").write_text("{", encoding="utf-8")
    (whole.folder / "events.jsonl").write_bytes(
        (whole.folder / "events.jsonl").read_bytes() + b"nonsense\n"
    )
    said = _compare(page, qtbot, 2)
    assert said["Loss"] == ["2.000", "2.000"]
