"""Presets, suggested settings and undo on the Settings page."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from PySide6.QtCore import QCoreApplication, Qt
from PySide6.QtWidgets import QApplication, QCheckBox, QComboBox, QPushButton, QRadioButton
from pytestqt.qtbot import QtBot

from app import background
from app.desks.memory_estimator import MemoryEstimator
from app.desks.probe_controller import ProbeController
from app.draft import JobDraft
from app.helper_client import HelperClient
from app.pages.settings import SettingsPage
from app.run_controller import RunController
from app.widgets.settings.advisor_dialog import AdvisorDialog, Situation
from training_backend.starting_points.advisor import Advice, Goal


@pytest.fixture
def draft(qapp: QApplication) -> JobDraft:
    return JobDraft()


@pytest.fixture
def page(qtbot: QtBot, draft: JobDraft) -> Iterator[SettingsPage]:
    helper, training = HelperClient(), RunController()
    estimator, probe = MemoryEstimator(draft, helper), ProbeController(training)
    page = SettingsPage(draft, estimator, probe)
    for owned in (helper, training, estimator, probe):
        owned.setParent(page)
    qtbot.addWidget(page)
    page.resize(1072, 800)
    page.show()
    qtbot.waitUntil(lambda: estimator.current is not None)
    yield page
    helper.shutdown()  # the advanced settings ask it about the model


def preset(page: SettingsPage) -> QComboBox:
    found = page.findChild(QComboBox, "presetCombo")
    assert found is not None
    return found


def choose(page: SettingsPage, title: str) -> None:
    index = preset(page).findText(title)
    preset(page).setCurrentIndex(index)
    preset(page).activated.emit(index)


def test_each_basic_setting_is_explained_in_one_line(page: SettingsPage) -> None:
    rows = [row for row in page._form.rows.values() if not row.spec.advanced]
    assert len(rows) == 8
    for row in rows:
        line = row.help.fontMetrics().horizontalAdvance(row.help.text())
        assert 0 < line <= row.help.width(), row.spec.field


def test_epochs_say_that_a_number_of_steps_goes_before_them(
    page: SettingsPage, draft: JobDraft
) -> None:
    help_label = page._form.rows["training.num_train_epochs"].help
    draft.set_value("training.max_steps", 1200)
    assert "1,200 steps" in help_label.text()
    draft.set_value("training.max_steps", -1)
    assert help_label.text() == "How often the whole data is gone through."


def test_a_preset_is_chosen_and_taken_back_in_one_step(page: SettingsPage, draft: JobDraft) -> None:
    assert preset(page).currentText() == "Quick demo"  # as the program starts
    before = draft.document()
    choose(page, "Maximum quality")
    assert draft.value("lora.r") == 64
    assert draft.value("quantization.load_in_4bit") is False
    assert draft.value("dataset.path") == before["dataset"]["path"]
    draft.set_value("lora.r", 48)
    assert preset(page).currentText() == "Maximum quality, changed"
    draft.undo()
    assert preset(page).currentText() == "Maximum quality"
    draft.undo()
    assert draft.document() == before
    assert preset(page).currentText() == "Quick demo"


def test_suggested_settings_are_applied_as_ticked_and_taken_back_in_one_step(
    qtbot: QtBot, page: SettingsPage, draft: JobDraft
) -> None:
    before = draft.document()
    button = page.findChild(QPushButton, "suggestButton")
    assert button is not None
    button.click()
    dialog = page.findChild(AdvisorDialog)
    dialog.findChild(QRadioButton, "goal_reasoning").click()
    qtbot.waitUntil(lambda: any(a.field == "lora.r" for a in dialog._boxes.values()))
    for box, advice in dialog._boxes.items():
        if advice.field == "training.learning_rate":
            box.setChecked(False)
    apply = dialog.findChild(QPushButton, "advisorApply")
    assert apply.text() == f"Apply {len(dialog._boxes) - 1}"
    apply.click()
    assert draft.value("lora.r") == 32
    assert draft.value("training.learning_rate") == before["training"]["learning_rate"]
    draft.undo()
    assert draft.document() == before


def test_advice_for_a_goal_left_again_does_not_replace_that_for_the_goal_chosen(
    qtbot: QtBot, page: SettingsPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_answer, answered = threading.Event(), threading.Event()
    advise = Situation.advise

    def slow_for_a_style(self: Situation, goal: Goal) -> tuple[list[Advice], list[str]]:
        if goal != "style":
            return advise(self, goal)
        may_answer.wait(60)
        answered.set()
        return advise(self, goal)

    monkeypatch.setattr(Situation, "advise", slow_for_a_style)
    page._suggest()  # asks for a style first
    dialog = page.findChild(AdvisorDialog)
    dialog.findChild(QRadioButton, "goal_reasoning").click()
    qtbot.waitUntil(lambda: bool(dialog._boxes))
    chosen = dict(dialog._boxes)
    may_answer.set()
    assert answered.wait(30)
    background.shutdown()  # waits for the late answer
    QCoreApplication.processEvents()
    assert dialog._boxes == chosen
    assert any(advice.field == "lora.r" for advice in chosen.values())
    dialog.reject()


def test_what_is_so_already_is_not_ticked(
    qtbot: QtBot, page: SettingsPage, draft: JobDraft
) -> None:
    page._suggest()
    dialog = page.findChild(AdvisorDialog)
    qtbot.waitUntil(lambda: bool(dialog._boxes))
    dialog._choose()
    page._suggest()
    again = [found for found in page.findChildren(AdvisorDialog) if found is not dialog][-1]
    qtbot.waitUntil(
        lambda: again.findChild(QPushButton, "advisorApply").text() == "Nothing to change"
    )
    assert again.findChildren(QCheckBox) == []
    again.reject()


def test_undo_here_takes_back_settings_only_and_says_which(
    page: SettingsPage, draft: JobDraft
) -> None:
    draft.set_value("model.id", "owner/name")
    assert not page._undo.isEnabled()
    assert "another page" in page._undo.toolTip()
    draft.set_value("lora.r", 8)
    assert page._undo.isEnabled()
    assert "Rank: 8 → 16" in page._undo.toolTip()
    page._undo.click()
    assert draft.value("lora.r") == 16
    assert draft.value("model.id") == "owner/name"
    assert not page._undo.isEnabled()


def test_a_preset_says_what_it_would_change(page: SettingsPage, draft: JobDraft) -> None:
    choose(page, "Balanced")
    preset(page).showPopup()
    tips = {
        preset(page).itemText(index): preset(page).itemData(index, Qt.ItemDataRole.ToolTipRole)
        for index in range(1, preset(page).count())
    }
    preset(page).hidePopup()
    assert "Rank: 16 → 64" in tips["Maximum quality"]
    assert "Load in 4-bit (QLoRA): on → off" in tips["Maximum quality"]
    assert "→" not in tips["Balanced"]
    draft.set_value("lora.r", 24)
    assert "Rank: 24 → 16" in preset(page).toolTip()


def test_settings_are_suggested_only_when_it_is_known_what_fits(
    qtbot: QtBot, page: SettingsPage, draft: JobDraft
) -> None:
    button = page.findChild(QPushButton, "suggestButton")
    qtbot.waitUntil(button.isEnabled)
    draft.set_value("lora.r", 0)
    qtbot.waitUntil(lambda: not button.isEnabled())
    assert "need a look" in button.toolTip()
    draft.undo()
    qtbot.waitUntil(button.isEnabled)
