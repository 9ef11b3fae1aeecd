"""The form says of every setting what job.py says, and shows every mistake in its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import QApplication, QCheckBox, QComboBox, QLabel, QPlainTextEdit, QWidget
from pytestqt.qtbot import QtBot

from app.desks.memory_estimator import MemoryEstimator
from app.desks.probe_controller import ProbeController
from app.draft import JobDraft
from app.forms import specs
from app.helper_client import HelperClient
from app.pages.settings import SettingsPage
from app.run_controller import RunController
from app.widgets.inputs import NumberEdit
from app.widgets.settings import setting_words
from training_backend.job import TrainingJob


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
    yield page
    helper.shutdown()  # the advanced settings ask it about the model


def shown_fields() -> list[tuple[str, str, Any, dict[str, Any]]]:
    found = []
    for section, info in TrainingJob.model_fields.items():
        for key, field in getattr(info.annotation, "model_fields", {}).items():
            extra = field.json_schema_extra or {}
            if extra["form"]:
                found.append((section, key, field, extra))
    return found


@pytest.mark.parametrize(("section", "key", "field", "extra"), shown_fields())
def test_every_field_is_in_the_form(
    page: SettingsPage, section: str, key: str, field: Any, extra: dict[str, Any]
) -> None:
    page._draft.set_value("training.max_steps", -1)  # which would stand in place of a help
    widget = page.findChild(QWidget, f"field_{section}_{key}")
    error = page.findChild(QLabel, f"error_{section}_{key}")
    assert widget is not None
    assert error is not None
    assert error.isHidden()
    assert widget.accessibleName() == field.title
    assert widget.accessibleDescription() == field.description
    assert widget.focusPolicy() & Qt.FocusPolicy.TabFocus
    texts = {label.text() for label in page.findChildren(QLabel)}
    assert field.title in texts
    assert any(text.startswith(field.description) for text in texts)
    if extra["unit"]:
        assert extra["unit"] in texts
    bounds = {
        name: getattr(bound, name)
        for bound in field.metadata
        for name in ("ge", "gt", "le")
        if hasattr(bound, name)
    }
    if isinstance(widget, NumberEdit):
        assert widget.minimum() == bounds.get("ge", bounds.get("gt"))
        assert widget.maximum() == bounds["le"]
        assert widget.lineEdit().placeholderText() == extra["special"]
    assert widget.isVisibleTo(page) != extra["advanced"]


def test_specs_hold_no_field_twice() -> None:
    fields = [spec.field for spec in specs()]
    assert len(fields) == len(set(fields)) == len(shown_fields())


def test_all_mistakes_show_at_once_beside_their_fields(
    qtbot: QtBot, page: SettingsPage, draft: JobDraft
) -> None:
    number(page, "field_lora_r").lineEdit().setText("0")
    number(page, "field_training_learning_rate").lineEdit().setText("fast")
    number(page, "field_training_seed").lineEdit().setText("-5")  # an advanced one
    number(page, "field_training_max_length").lineEdit().setText("")
    names = ["lora_r", "training_learning_rate", "training_seed", "training_max_length"]
    qtbot.waitUntil(lambda: all(error(page, name) for name in names))
    assert error(page, "lora_r") == "Give a whole number from 1 to 1,024."
    assert error(page, "training_learning_rate") == "Give a number above 0 and up to 1."
    assert page.findChild(QWidget, "field_training_seed").isVisible()  # unfolded by itself
    assert error(page, "lora_lora_alpha") == ""
    assert number(page, "field_lora_r").lineEdit().text() == "0"  # what was typed stays

    number(page, "field_lora_r").setValue(32)
    qtbot.waitUntil(lambda: error(page, "lora_r") == "")
    assert error(page, "training_seed")
    assert draft.value("lora.r") == 32


def test_problems_of_the_checks_before_a_run_go_with_the_next_change(
    qtbot: QtBot, page: SettingsPage, draft: JobDraft
) -> None:
    page.show_problem("training.save_steps", "there is no room for that many checkpoints")
    assert error(page, "training_save_steps") == "There is no room for that many checkpoints."
    draft.set_value("training.save_steps", 100)
    qtbot.waitUntil(lambda: error(page, "training_save_steps") == "")


def test_inputs_and_draft_follow_each_other(page: SettingsPage, draft: JobDraft) -> None:
    four_bit = page.findChild(QCheckBox, "field_quantization_load_in_4bit")
    four_bit.click()
    assert draft.value("quantization.load_in_4bit") is False
    kind = page.findChild(QComboBox, "field_quantization_bnb_4bit_quant_type")
    assert not kind.isEnabled()  # without 4-bit it has no effect
    every = page.findChild(NumberEdit, "field_training_activation_checkpointing_every_n_layers")
    assert every.isEnabled() == draft.value("training.activation_checkpointing")
    draft.set_value("training.activation_checkpointing", not every.isEnabled())
    assert every.isEnabled() == draft.value("training.activation_checkpointing")
    draft.undo()
    draft.undo()
    assert four_bit.isChecked()
    kind.setCurrentIndex(kind.findData("fp4"))
    assert draft.value("quantization.bnb_4bit_quant_type") == "fp4"
    prompts = page.findChild(QPlainTextEdit, "field_evaluation_prompts")
    prompts.setPlainText("one\n\n two \n")
    assert draft.value("evaluation.prompts") == ["one", "two"]
    layers: Any = page.findChild(QWidget, "field_lora_target_modules")
    layers.setText("q_proj, v_proj")
    assert draft.job().lora.target_modules == ("q_proj", "v_proj")
    layers.setText("all-linear")
    assert draft.job().lora.target_modules == "all-linear"


def test_blocks_are_written_as_numbers_and_ranges(
    qtbot: QtBot, page: SettingsPage, draft: JobDraft
) -> None:
    blocks: Any = page.findChild(QWidget, "field_lora_layers_to_transform")
    blocks.setText("0, 8-10")
    assert draft.job().lora.layers_to_transform == (0, 8, 9, 10)
    blocks.setText("all")
    assert draft.job().lora.layers_to_transform == "all"
    draft.set_value("lora.layers_to_transform", [4, 5])
    assert blocks.text() == "4, 5"
    blocks.setText("the upper half")
    qtbot.waitUntil(lambda: bool(error(page, "lora_layers_to_transform")))
    blocks.setText("0-999999")  # a slip; the form must not choke on it
    assert len(draft.value("lora.layers_to_transform")) <= 10_001


def test_a_combination_that_cannot_work_says_so_beside_its_field(
    qtbot: QtBot, page: SettingsPage, draft: JobDraft
) -> None:
    draft.set_values({"lora.init_lora_weights": "pissa", "quantization.load_in_4bit": True})
    qtbot.waitUntil(lambda: "4 bits" in error(page, "lora_init_lora_weights"))
    draft.set_value("quantization.load_in_4bit", False)
    qtbot.waitUntil(lambda: error(page, "lora_init_lora_weights") == "")


def test_settings_of_another_method_are_out_of_reach(page: SettingsPage, draft: JobDraft) -> None:
    rank = page.findChild(NumberEdit, "field_lora_r")
    beta = page.findChild(NumberEdit, "field_training_beta")
    assert rank is not None and rank.isEnabled() and beta is not None and not beta.isEnabled()
    draft.set_values({"training.method": "full", "training.objective": "dpo"})
    assert not rank.isEnabled() and beta.isEnabled()
    draft.undo()
    assert rank.isEnabled() and not beta.isEnabled()


def test_an_empty_field_stands_for_its_special_value(page: SettingsPage, draft: JobDraft) -> None:
    steps = number(page, "field_training_max_steps")
    steps.lineEdit().setText("")
    assert draft.value("training.max_steps") == -1
    draft.set_value("training.max_steps", 12)
    assert steps.lineEdit().text() == "12"
    draft.set_value("training.max_steps", -1)
    assert steps.lineEdit().text() == ""


def test_effective_batch_is_the_product(page: SettingsPage, draft: JobDraft) -> None:
    beside = page._form.rows["training.per_device_train_batch_size"].help
    assert beside.text().endswith(" 4 × 1 = 4 rows a step.")
    draft.set_value("training.gradient_accumulation_steps", 600)
    assert beside.text().endswith(" 4 × 600 = 2,400 rows a step.")
    draft.set_value("training.per_device_train_batch_size", "")
    assert beside.text().endswith("The main lever for memory.")


def test_all_basic_settings_are_in_sight_in_a_window_of_720_pixels(
    qtbot: QtBot, page: SettingsPage
) -> None:
    page.resize(1280 - 208, 720)
    page.show()
    qtbot.wait(50)
    for field, row in page._form.rows.items():
        if not row.spec.advanced:
            bottom = row.input.mapTo(page, row.input.rect().bottomLeft()).y()
            assert bottom < page.height(), field


def test_reset_and_name(qtbot: QtBot, page: SettingsPage, draft: JobDraft) -> None:
    name: Any = page.findChild(QWidget, "field_name")
    name.setText("")
    qtbot.waitUntil(lambda: page.findChild(QLabel, "error_name").isVisible())
    name.setText("a good name")
    assert draft.value("name") == "a good name"
    draft.reset([spec.field for spec in specs()])
    assert draft.value("training.max_steps") == -1
    assert draft.value("name") == "a good name"


@pytest.mark.parametrize("focused", [True, False])
def test_wheel_turns_only_what_has_the_focus(
    qtbot: QtBot, page: SettingsPage, draft: JobDraft, focused: bool
) -> None:
    rank = number(page, "field_lora_r")
    other = number(page, "field_lora_lora_alpha")
    qtbot.waitExposed(page)
    page.activateWindow()
    (rank if focused else other).setFocus()
    turn = QWheelEvent(
        QPointF(5, 5),
        rank.mapToGlobal(QPointF(5, 5)),
        QPoint(),
        QPoint(0, 120),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(rank, turn)
    assert draft.value("lora.r") == (17 if focused else 16)


@pytest.mark.parametrize(
    ("start", "steps", "end"),
    [(2e-4, 1, 3e-4), (1e-3, -1, 9e-4), (9e-4, 1, 1e-3), (0.0, 1, 0.01), (1.0, 1, 1.0)],
)
def test_stepping_a_number(qtbot: QtBot, start: float, steps: int, end: float) -> None:
    edit = NumberEdit(whole=False, minimum=0.0, maximum=1.0)
    qtbot.addWidget(edit)
    edit.setValue(start)
    edit.stepBy(steps)
    assert edit.value() == pytest.approx(end)


def number(page: SettingsPage, name: str) -> NumberEdit:
    found = page.findChild(NumberEdit, name)
    assert found is not None, name
    return found


def error(page: SettingsPage, name: str) -> str:
    label = page.findChild(QLabel, f"error_{name}")
    assert label is not None
    return "" if label.isHidden() else label.text()


def test_every_choice_is_told_in_words() -> None:
    for spec in specs():
        for choice in spec.choices if spec.kind == "choice" else ():
            words = setting_words.choice(spec.field, choice)
            assert "_" not in words and words[0] == words[0].upper(), f"{spec.field}: {words}"
            assert setting_words.value(choice, spec.field) == words
    assert setting_words.value("lora", "name") == "lora"  # a run may be called so
