"""In the real window: a queued run that is short of memory halves its batch and goes on."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from PySide6.QtWidgets import QLabel
from pytestqt.qtbot import QtBot

from app.main_window import MainWindow
from app.pages.train import TrainPage
from tests.e2e.test_window import LONG
from tests.e2e.test_window import window as window
from tests.short_of_memory import plant
from training_backend import runs
from training_backend.protocol import Event, RunCompleted, RunFailed, RunStarted


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_queued_run_goes_on_by_itself_and_says_so(
    window: MainWindow, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path / "site", monkeypatch, rows=1, from_call=2)
    for field, value in {
        "training.max_steps": 3,
        "training.per_device_train_batch_size": 2,
        "training.halve_batch_when_out_of_memory": True,
    }.items():
        window.draft.set_value(field, value)
    window.go_to("navTrain")
    page = cast(TrainPage, window.findChild(TrainPage))
    told: list[Event] = []
    ended: list[object] = []
    shown: list[bool] = []  # whether the card of an outcome was, when the batch was halved

    def look(event: Event) -> None:
        told.append(event)
        page.render_now()
        if isinstance(event, RunFailed):
            shown.append(page.outcome.isVisible() or page.buttons.resume.isVisible())
            assert page.buttons.stop.isVisible() and window.training.is_busy()

    window.training.event_arrived.connect(look)
    window.training.run_ended.connect(lambda *end: ended.append(end))
    window.queue.add([window.draft.job()])
    qtbot.waitUntil(lambda: bool(window.queue.state.entries))
    with qtbot.waitSignal(window.queue.drained, timeout=LONG):
        window.queue.start()
    assert [type(event) for event in told if isinstance(event, RunFailed | RunCompleted)] == [
        RunFailed, RunCompleted,
    ]  # fmt: skip
    assert shown == [False] and len(ended) == 1
    assert [e.resumed_from_step for e in told if isinstance(e, RunStarted)] == [None, 1]
    page.render_now()
    notice = page.findChild(QLabel, "trainNotice")
    assert isinstance(notice, QLabel) and "with 1 instead of 2 rows at once" in notice.text()
    (summary,) = runs.list_runs()
    assert summary.state == "completed" and summary.step == 3
