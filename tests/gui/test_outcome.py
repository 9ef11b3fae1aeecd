"""What the card at a run's end says of its result."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from app.widgets.training.outcome import OutcomeCard
from training_backend.protocol import RunCompleted
from training_backend.runs import Run


@pytest.mark.parametrize(("result", "other"), [("adapter", "model"), ("model", "adapter")])
def test_what_was_saved_is_named(qtbot: QtBot, tmp_path: Path, result: str, other: str) -> None:
    card = OutcomeCard()
    qtbot.addWidget(card)
    card.show_outcome(Run(tmp_path), RunCompleted(folder=str(tmp_path / result)), 60.0)
    assert f"The {result} is saved" in card.text()
    assert f"The {other} is saved" not in card.text()
