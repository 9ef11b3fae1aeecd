"""The memory card: live, honest about what it does not know, and it makes a job fit."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QCoreApplication, Qt
from PySide6.QtWidgets import QApplication, QDialog, QLabel, QPushButton
from pytestqt.qtbot import QtBot

from app import background
from app.desks import memory_estimator
from app.desks.memory_estimator import Estimated, MemoryEstimator
from app.desks.probe_controller import ProbeController
from app.draft import JobDraft
from app.helper_client import HelperClient
from app.run_controller import RunController
from app.widgets.settings.fit_dialog import FitDialog
from app.widgets.settings.memory_card import MemoryCard
from app.widgets.settings.memory_dialog import MemoryDialog
from tests.gui.settling import settle
from training_backend import vram
from training_backend.computer.devices import Device, this_device
from training_backend.job import TrainingJob
from training_backend.memory import make_fit

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
CARD = Device("cuda", "NVIDIA GeForce RTX 4090", 24 * 2**30, 2**30)


@pytest.fixture(autouse=True)
def on_a_card(lorasmith_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a computer with a card; the estimate needs nothing else of it."""
    monkeypatch.setattr(memory_estimator, "this_device", lambda: CARD)


@pytest.fixture
def draft(qapp: QApplication) -> JobDraft:
    draft = JobDraft()
    draft.set_values({"model.id": LLAMA, "quantization.load_in_4bit": True})
    return draft


@pytest.fixture
def card(qtbot: QtBot, draft: JobDraft, helper_client: HelperClient) -> Iterator[MemoryCard]:
    training = RunController()
    probe = ProbeController(training)
    estimator = MemoryEstimator(draft, helper_client)
    made = MemoryCard(draft, estimator, probe)
    estimator.setParent(made)
    qtbot.addWidget(made)
    made.resize(1024, 170)
    made.show()
    qtbot.waitUntil(lambda: "GB free" in verdict(made))
    yield made
    probe.shutdown()
    training.shutdown()


def verdict(card: MemoryCard) -> str:
    return text(card, "memoryVerdict")


def text(card: MemoryCard, name: str) -> str:
    label = card.findChild(QLabel, name)
    assert label is not None
    return label.text()


def button(card: MemoryCard, name: str) -> QPushButton:
    found = card.findChild(QPushButton, name)
    assert found is not None
    return found


def test_the_verdict_follows_the_settings(qtbot: QtBot, card: MemoryCard, draft: JobDraft) -> None:
    assert verdict(card).startswith("Fits comfortably")
    assert text(card, "memoryDevice") == CARD.name
    expected = vram.estimate_job(draft.job(), CARD)
    assert f"{expected.total_bytes / 2**30:.1f} of 23.0 GB" in verdict(card)
    draft.set_values(
        {"training.per_device_train_batch_size": 16, "training.max_length": 4096,
         "training.activation_checkpointing": False}
    )  # fmt: skip
    qtbot.waitUntil(lambda: verdict(card).startswith("Does not fit"))
    assert button(card, "makeItFitButton").text() == "Make it fit"


def test_every_part_is_told_with_its_size_its_formula_and_its_source(
    qtbot: QtBot, card: MemoryCard
) -> None:
    legend = [one.text().strip() for one in card._buttons]
    assert [text.rpartition(" ")[0].rpartition(" ")[0] for text in legend] == [
        "Model", "Adapter and optimizer", "Activations", "Overhead", "Other programs", "Free",
    ]  # fmt: skip
    for one in card._buttons:
        assert one.focusPolicy() & Qt.FocusPolicy.TabFocus and one.accessibleName()
    card._buttons[2].click()
    dialog = card.findChild(MemoryDialog)
    texts = "\n".join(label.text() for label in dialog.findChildren(QLabel))
    estimate = card._estimator.current.estimate
    for part in estimate.parts:
        assert part.formula in texts and part.source in texts
    assert "Disk for the merged model" in texts
    dialog.accept()


def test_a_plan_is_applied_with_one_press_and_one_undo(
    qtbot: QtBot, card: MemoryCard, draft: JobDraft
) -> None:
    draft.set_values(
        {"training.per_device_train_batch_size": 8, "training.gradient_accumulation_steps": 1,
         "training.max_length": 4096, "training.activation_checkpointing": False,
         "quantization.load_in_4bit": False}
    )  # fmt: skip
    before = draft.document()
    qtbot.waitUntil(lambda: verdict(card).startswith("Does not fit"))
    button(card, "makeItFitButton").click()
    qtbot.waitUntil(lambda: card.findChild(FitDialog) is not None)
    dialog = card.findChild(FitDialog)
    dialog.findChild(QPushButton, "fitPlanButton").click()
    qtbot.waitUntil(lambda: "GB free" in verdict(card))
    training = draft.job().training
    assert training.per_device_train_batch_size * training.gradient_accumulation_steps == 8
    draft.undo()
    assert draft.document() == before


def test_free_memory_is_offered_for_speed(qtbot: QtBot, card: MemoryCard) -> None:
    assert button(card, "makeItFitButton").text() == "Use the free memory"
    button(card, "makeItFitButton").click()
    qtbot.waitUntil(lambda: card.findChild(FitDialog) is not None)
    dialog = card.findChild(QDialog, "fitDialog")
    assert dialog.findChild(QPushButton, "fitPlanButton") is None
    dialog.reject()


def test_what_was_worked_out_for_other_settings_is_not_offered(
    qtbot: QtBot, card: MemoryCard, draft: JobDraft, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, may_answer, faster = threading.Event(), threading.Event(), make_fit.faster

    def slow(job: TrainingJob, device: Device) -> list[make_fit.Suggestion]:
        asked.set()
        may_answer.wait(30)
        return faster(job, device)

    monkeypatch.setattr(make_fit, "faster", slow)
    button(card, "makeItFitButton").click()
    qtbot.waitUntil(asked.is_set)
    draft.set_value("lora.r", 4)
    may_answer.set()
    background.shutdown()
    QCoreApplication.processEvents()
    assert card.findChild(FitDialog) is None
    assert button(card, "makeItFitButton").isEnabled()


def test_a_mistake_in_the_settings_greys_the_last_estimate(
    qtbot: QtBot, card: MemoryCard, draft: JobDraft
) -> None:
    draft.set_value("lora.r", -3)
    qtbot.waitUntil(lambda: "need a look" in text(card, "memoryUnknown"))
    assert not button(card, "makeItFitButton").isEnabled()
    draft.undo()
    qtbot.waitUntil(lambda: "GB free" in verdict(card))


def test_mistakes_that_memory_does_not_depend_on_do_not_matter(
    qtbot: QtBot, card: MemoryCard, draft: JobDraft
) -> None:
    draft.set_values({"dataset.path": "", "name": "", "training.max_length": 512})
    expected = f"{512 * 1}"
    qtbot.waitUntil(
        lambda: (
            card._estimator.current is not None
            and str(card._estimator.current.job.training.max_length) == expected
        ),
    )
    assert "GB free" in verdict(card)


def test_a_model_that_was_never_seen_is_looked_at_first(
    qtbot: QtBot,
    card: MemoryCard,
    draft: JobDraft,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory_estimator, "this_device", this_device)  # as the helper sees it
    card._estimator.forget_device()
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 96,
        "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 999, "torch_dtype": "bfloat16",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    draft.set_value("model.id", str(tmp_path))
    qtbot.waitUntil(lambda: "Looking at this model" in verdict(card))
    qtbot.waitUntil(lambda: "Looking" not in verdict(card))
    assert "GB free" in verdict(card), text(card, "memoryUnknown")
    assert card._estimator.current.job.model.id == str(tmp_path)


def test_what_our_own_trial_takes_is_not_taken_for_other_programs(
    qtbot: QtBot, card: MemoryCard, draft: JobDraft, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Device(CARD.kind, CARD.name, CARD.total_bytes, 23 * 2**30)
    card._estimator.hold(True)
    monkeypatch.setattr(memory_estimator, "DEVICE_SECONDS", 0.0)
    monkeypatch.setattr(memory_estimator, "this_device", lambda: full)
    draft.set_value("training.max_length", 512)
    qtbot.waitUntil(lambda: card._estimator.current.job.training.max_length == 512)
    assert card._estimator.current.estimate.device == CARD
    card._estimator.hold(False)
    qtbot.waitUntil(lambda: verdict(card).startswith("Does not fit"))


def test_a_damaged_model_is_never_said_to_fit(
    qtbot: QtBot, card: MemoryCard, draft: JobDraft, tmp_path: Path
) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "vocab_size": 999,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    draft.set_value("model.id", str(tmp_path))
    qtbot.waitUntil(lambda: text(card, "memoryUnknown") != "")
    assert "fits" not in verdict(card).lower()
    assert str(tmp_path) in text(card, "memoryUnknown")


def test_a_model_that_nobody_knows_is_said_in_place(
    qtbot: QtBot, card: MemoryCard, draft: JobDraft
) -> None:
    draft.set_value("model.id", "/no/such/folder")
    qtbot.waitUntil(lambda: "No model folder" in text(card, "memoryUnknown"))
    assert card.findChild(QLabel, "memoryUnknown").isVisible()
    assert not button(card, "memoryDetails").isEnabled()


def test_why_a_model_could_not_be_looked_at_is_said_however_long_that_took(
    qtbot: QtBot, card: MemoryCard, draft: JobDraft
) -> None:
    card._estimator._again.setInterval(100)  # looks again many times before the helper answers
    draft.set_values({"model.id": "demo", "lora.target_modules": ["no_such_layer"]})
    qtbot.waitUntil(lambda: text(card, "memoryUnknown") != "")
    said = text(card, "memoryUnknown")
    assert "no_such_layer" in said
    qtbot.wait(500)
    settle(qtbot)
    assert text(card, "memoryUnknown") == said
    assert not card._estimator.helper.is_asked("trace")  # once is enough


def test_what_is_read_in_the_details_stays_in_place_while_numbers_come_anew(
    qtbot: QtBot, card: MemoryCard, draft: JobDraft
) -> None:
    card._buttons[3].click()
    dialog = card.findChild(MemoryDialog)
    row = dialog._parts["overhead"]
    assert row.property("chosen")
    with qtbot.waitSignal(card._estimator.estimated):
        card._estimator.refresh()
    assert dialog._parts["overhead"] is row
    draft.set_value("training.max_length", 64)
    qtbot.waitUntil(lambda: dialog._parts["overhead"] is not row)
    assert dialog._parts["overhead"].property("chosen")
    dialog.accept()


@pytest.mark.parametrize("fit", ["comfortable", "tight", "does_not_fit"])
def test_the_card_is_whole_in_the_narrowest_window(
    qtbot: QtBot, card: MemoryCard, monkeypatch: pytest.MonkeyPatch, fit: str
) -> None:
    shown = card._estimator.current
    assert shown is not None
    total = {"comfortable": 40, "tight": 25, "does_not_fit": 12}[fit] * 2**28
    name = "NVIDIA RTX 6000 Ada Generation Laptop GPU"
    device = Device("cuda", name, total + 2**30, 2**30)
    estimate = vram.estimate_job(shown.job, device)
    card._estimator.estimated.emit(Estimated(shown.job, estimate))
    card.resize(784, 200)
    assert card.width() == 784  # and not more, for the want of room
    assert text(card, "memoryDevice") == name


def test_a_card_left_again_is_not_what_the_next_estimate_is_of(
    qtbot: QtBot, card: MemoryCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Device("cuda", "Another card", 8 * 2**30, 2**30)
    may_answer, looked = threading.Event(), list[Device]()

    def slow_for_the_first() -> Device:
        looked.append(other if looked else CARD)
        found = looked[-1]
        if found == CARD:
            may_answer.wait(30)
        return found

    monkeypatch.setattr(memory_estimator, "this_device", slow_for_the_first)
    estimator = card._estimator
    for _ in range(2):
        estimator.forget_device()
        estimator.refresh()
        qtbot.waitUntil(lambda: bool(looked))
    qtbot.waitUntil(lambda: text(card, "memoryDevice") == other.name)
    may_answer.set()
    background.shutdown()  # waits for the late answer
    QCoreApplication.processEvents()
    estimator.refresh()  # goes by what was found, it is so young
    background.shutdown()
    QCoreApplication.processEvents()
    assert text(card, "memoryDevice") == other.name
