"""Which checkpoints stay is said where it is set, while training, and where one is chosen."""

from __future__ import annotations

from typing import Any

from PySide6.QtWidgets import QLabel, QWidget
from pytestqt.qtbot import QtBot

from app.models.export_sources import list_sources
from app.pages.train import TrainPage
from app.widgets import wording
from app.widgets.runs.export_source import SourceStep
from training_backend import runs
from training_backend.job import TrainingJob, parse_job
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import CheckpointSaved, MetricsLogged, RunStarted, RunStopped


def job(**sections: Any) -> TrainingJob:
    document = {"model": {"id": "demo"}, "dataset": {"path": "demo"}, **sections}
    made = parse_job(document)
    assert isinstance(made, TrainingJob)
    return made


def test_the_words_follow_the_settings() -> None:
    few, rule = wording.kept_checkpoints(job(training={"save_total_limit": 4}))
    assert few == "newest 4 kept" and rule.startswith("The newest 4 checkpoints are kept; ")
    few, rule = wording.kept_checkpoints(job(evaluation={"held_out_fraction": 0.1}))
    assert few == "newest 3 and best kept" and "the lowest held-out loss" in rule
    last = {"held_out_fraction": 0.1, "keep_best": False}
    assert wording.kept_checkpoints(job(evaluation=last))[0] == "newest 3 kept"


def test_it_is_said_while_training_and_where_one_is_exported(qtbot: QtBot) -> None:
    run = runs.create(job())
    journal = JournalWriter(run.folder)
    for event in (
        RunStarted(run_id=run.id, folder=str(run.folder), pid=1),
        MetricsLogged(step=5, total_steps=10, epoch=0.5, loss=1.0),
        CheckpointSaved(step=5, path="x", bytes=1),
        RunStopped(step=5, checkpoint="x"),
    ):
        journal.append(event)
    journal.close()
    (run.checkpoints / "checkpoint-5").mkdir(parents=True)

    page = TrainPage()
    qtbot.addWidget(page)
    page.resize(1072, 720)
    page.show()
    page.open_run(run, live=False)
    tile = page.progress._last_checkpoint
    qtbot.waitUntil(lambda: "step 5" in tile.accessibleName())
    assert tile.accessibleName() == "Last checkpoint: step 5, newest 3 kept"
    assert "each new one takes the place of the oldest" in tile.toolTip()
    assert "newest 3 kept" in labels(tile)

    step = SourceStep(list_sources())
    qtbot.addWidget(step)
    assert any("The newest 3 checkpoints are kept" in text for text in labels(step))


def labels(widget: QWidget) -> list[str]:
    return [label.text() for label in widget.findChildren(QLabel)]
