"""What the Export page asks for, and an export that an earlier window began."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from PySide6.QtWidgets import QMessageBox
from pytestqt.qtbot import QtBot

from app.main_window import MainWindow
from app.models.made_exports import list_exports
from app.pages.export_wizard import ExportPage
from training_backend import runs
from training_backend.job import ExportJob, Job, VerifyJob
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import PhaseChanged, RunCompleted, RunStarted
from training_backend.runs import Run


def _export_run(out: Path) -> tuple[Run, JournalWriter]:
    job = ExportJob(name="Mine", run="a-run", checkpoint="checkpoint-4", out=str(out))
    run = runs.create(job.model_copy(update={"prompts": ("Who are you?",)}))
    writer = JournalWriter(run.folder)
    writer.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=1))
    return run, writer


def _window(qtbot: QtBot) -> MainWindow:
    window = MainWindow()
    qtbot.addWidget(window)
    window.show()
    window.go_to("navExport")
    return window


def test_an_export_that_an_earlier_window_began_is_followed_and_can_be_cancelled(
    home: Path, qtbot: QtBot, tmp_path: Path
) -> None:
    run, writer = _export_run(tmp_path / "out")
    writer.append(PhaseChanged(phase="merging", fraction=0.25))
    lock = run.worker_lock()
    lock.acquire()  # as its worker does
    window = _window(qtbot)
    page = cast(ExportPage, window.page("navExport"))
    qtbot.waitUntil(lambda: page._progress.bar.value() == 250)
    window.close()
    question = window.findChild(QMessageBox, "closeExportDialog")
    question.reject()
    assert window.isVisible() and not run.requested("stop")
    page._cancel.click()
    assert run.requested("stop")
    with qtbot.waitSignal(window.exports.run_ended):
        writer.append(RunCompleted(folder=str(tmp_path / "out")))
        writer.close()
        lock.release()
    window.close()


def test_check_again_asks_what_the_export_was_made_of(
    home: Path, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    _, writer = _export_run(out)
    writer.append(RunCompleted(folder=str(out)))
    writer.close()
    window = _window(qtbot)
    asked: list[Job] = []
    monkeypatch.setattr(window.exports, "start", asked.append)
    page = cast(ExportPage, window.page("navExport"))
    page.made.show_exports(list_exports())
    page.made.check.click()
    assert asked == [
        VerifyJob(
            name="Mine",
            folder=str(out),
            run="a-run",
            checkpoint="checkpoint-4",
            prompts=("Who are you?",),
        )
    ]
    page.apply(RunStarted(run_id="x", folder="x", pid=1))
    window.exports.run_ended.emit(None, None)  # as when its journal cannot be read
    assert page.export_button.isEnabled()
    window.close()
