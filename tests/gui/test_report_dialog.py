"""All that a report holds is shown before it is saved."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from PySide6.QtWidgets import QFileDialog, QLabel, QListWidget, QPlainTextEdit, QPushButton
from pytestqt.qtbot import QtBot

from app.dialogs.report_dialog import ReportDialog
from training_backend import runs
from training_backend.job import parse_job
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import RunFailed, RunStarted
from training_backend.runs import Run


@pytest.fixture
def run(home: Path) -> Run:
    made = runs.create(parse_job({"model": {"id": "demo"}, "dataset": {"path": "demo"}}))
    writer = JournalWriter(made.folder)
    writer.append(RunStarted(run_id=made.id, folder=str(made.folder), pid=1))
    writer.append(RunFailed(code="out_of_vram", message="The card ran out of memory."))
    writer.close()
    made.log_path.write_text("<b>what a library printed</b>\n")
    return made


@pytest.fixture
def dialog(qtbot: QtBot, run: Run) -> ReportDialog:
    made = ReportDialog(run)
    qtbot.addWidget(made)
    made.show()
    save = made.findChild(QPushButton, "reportSave")
    assert not save.isEnabled()  # nothing is saved that was not shown
    qtbot.waitUntil(save.isEnabled)
    return made


def test_what_is_saved_is_what_was_shown(
    qtbot: QtBot, dialog: ReportDialog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = dialog.findChild(QListWidget, "reportFiles")
    text = dialog.findChild(QPlainTextEdit, "reportText")
    shown = {}
    for row in range(names.count()):
        names.setCurrentRow(row)
        shown[names.item(row).text()] = text.toPlainText()
    assert "The card ran out of memory." in shown["summary.txt"]
    assert shown["worker.log"] == "<1 line left out>\n"

    out = tmp_path / "report.zip"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(out), ""))
    dialog.findChild(QPushButton, "reportSave").click()
    qtbot.waitUntil(out.exists)
    with zipfile.ZipFile(out) as file:
        saved = {Path(name).name: file.read(name).decode() for name in file.namelist()}
    assert saved == shown
    status = dialog.findChild(QLabel, "reportStatus")
    qtbot.waitUntil(lambda: status.text() == "Saved as report.zip.")


def test_a_place_that_cannot_be_written_is_said_and_another_can_be_chosen(
    qtbot: QtBot, dialog: ReportDialog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "no folder" / "report.zip")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (out, ""))
    save = dialog.findChild(QPushButton, "reportSave")
    save.click()
    assert not save.isEnabled()  # one after the other: the line below names the last
    problem = dialog.findChild(QLabel, "reportProblem")
    qtbot.waitUntil(problem.isVisible)
    assert "cannot be written" in problem.text()
    assert save.isEnabled()


def test_thinking_better_of_it_writes_nothing(
    dialog: ReportDialog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: ("", ""))
    dialog.findChild(QPushButton, "reportSave").click()
    assert not list(tmp_path.rglob("*.zip"))
