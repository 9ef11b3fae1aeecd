"""How many layers are adapted and how many numbers trained, while settings are chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QObject
from PySide6.QtWidgets import QApplication, QLabel
from pytestqt.qtbot import QtBot

from app.desks.layer_count import LayerCount
from app.draft import JobDraft
from app.helper_client import HelperClient


class Shown:
    def __init__(self, qtbot: QtBot, helper: Any) -> None:
        self.draft = JobDraft()
        self.label = QLabel()
        qtbot.addWidget(self.label)
        self.count = LayerCount(self.draft, helper, self.label)
        self.problems: list[tuple[str, str]] = []
        self.count.problem.connect(lambda field, words: self.problems.append((field, words)))


class Answering(QObject):
    """A helper that knows one model, at once."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def ask(
        self, kind: str, document: dict[str, Any], on_done: Callable[[dict[str, Any]], None],
        on_error: Callable[[Exception], None], owner: QObject,
    ) -> None:  # fmt: skip
        self.asked.append(document["job"]["model"]["id"])
        names = [f"model.layers.{n}.self_attn.{part}_proj" for n in range(3) for part in "qv"]
        on_done({"layers": [{"name": name, "rows": 10, "columns": 20} for name in names]})


@pytest.fixture
def helper(qapp: QApplication) -> Answering:
    return Answering()


def test_the_count_follows_the_settings_and_the_model_is_looked_at_once(
    qtbot: QtBot, helper: Answering
) -> None:
    shown = Shown(qtbot, helper)
    shown.draft.set_value("lora.r", 2)
    assert helper.asked == []  # nobody looks yet
    shown.count.watch(True)
    assert shown.label.text() == "6 of 6 layers, 360 trained numbers"
    shown.draft.set_value("lora.target_modules", ["v_proj"])
    assert shown.label.text() == "3 of 6 layers, 180 trained numbers"
    shown.draft.set_value("lora.layers_to_transform", [2])
    assert shown.label.text() == "1 of 6 layers, 60 trained numbers"
    shown.draft.set_value("lora.use_dora", True)
    assert shown.label.text() == "1 of 6 layers, 70 trained numbers"
    assert len(helper.asked) == 1


def test_a_name_that_the_model_does_not_have_is_a_problem_of_its_field(
    qtbot: QtBot, helper: Answering
) -> None:
    shown = Shown(qtbot, helper)
    shown.count.watch(True)
    shown.draft.set_value("lora.target_modules", ["w_qkv"])
    ((field, words),) = shown.problems
    assert field == "lora.target_modules" and "w_qkv" in words
    assert shown.label.text() == "–"
    shown.draft.set_value("lora.target_modules", ["q_proj"])
    assert shown.label.text().startswith("3 of 6")


def test_the_real_helper_names_the_layers_of_the_demo_model(
    qtbot: QtBot, lorasmith_home: Path, helper_client: HelperClient
) -> None:
    shown = Shown(qtbot, helper_client)
    shown.draft.set_values({"model.id": "demo", "lora.r": 16})
    shown.count.watch(True)
    # Seven layers in each of 30 blocks; as the worker counts them.
    expected = "210 of 210 layers, 4,884,480 trained numbers"
    qtbot.waitUntil(lambda: shown.label.text() == expected)
    shown.draft.set_value("lora.target_modules", "attention")
    assert shown.label.text().startswith("120 of 210 layers")
