"""The computer behind one click: what it has, copied as text, and the card that trains."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QComboBox, QLabel, QPushButton
from pytestqt.qtbot import QtBot

from app.dialogs import hardware_dialog
from app.dialogs.hardware_dialog import HardwareDialog
from app.main_window import MainWindow
from app.widgets import sidebar
from app.widgets.sidebar import Sidebar
from tests.fake_nvml import GIB, FakeCard, FakeNvml
from training_backend import preferences
from training_backend.computer import doctor
from training_backend.errors import UserError

pytestmark = pytest.mark.usefixtures("lorasmith_home")


@pytest.fixture(autouse=True)
def _no_choice_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def opened(qtbot: QtBot) -> HardwareDialog:
    dialog = HardwareDialog()
    qtbot.addWidget(dialog)
    dialog.show()
    qtbot.waitUntil(lambda: copy_button(dialog).isEnabled() and len(texts(dialog)) > 20)
    return dialog


def copy_button(dialog: HardwareDialog) -> QPushButton:
    return dialog.findChild(QPushButton, "hardwareCopy")


def texts(dialog: HardwareDialog) -> list[str]:
    return [label.text() for label in dialog.findChildren(QLabel) if label.isVisibleTo(dialog)]


def test_the_same_rows_as_doctor_and_all_of_them_copied(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, lorasmith_home: Path
) -> None:
    monkeypatch.setattr(hardware_dialog, "COPIED_FOR_MS", 20)
    FakeNvml(monkeypatch, FakeCard())
    dialog = opened(qtbot)
    assert any("RTX 4090: 20.0 GiB of 24.0 GiB free" in text for text in texts(dialog))
    assert any(str(lorasmith_home) in text for text in texts(dialog))
    assert dialog.findChild(QComboBox, "cardCombo") is None  # there is nothing to choose
    qtbot.mouseClick(copy_button(dialog), Qt.MouseButton.LeftButton)
    copied = QGuiApplication.clipboard().text()
    for text in texts(dialog):
        assert text in copied or text == "", text
    assert copy_button(dialog).text() == "Copied"
    qtbot.waitUntil(lambda: copy_button(dialog).text() == "Copy")


def test_the_card_chosen_there_trains_from_now_on(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = FakeCard("GPU-old", "GT 710", 2 * GIB, 0, (3, 5))
    FakeNvml(monkeypatch, FakeCard("GPU-a"), old, FakeCard("GPU-b", "NVIDIA RTX A6000", 48 * GIB))
    dialog = opened(qtbot)
    choice = dialog.findChild(QComboBox, "cardCombo")
    titles = [choice.itemText(row) for row in range(choice.count())]
    assert titles == ["GPU 0: NVIDIA GeForce RTX 4090", "GPU 2: NVIDIA RTX A6000"]
    assert choice.currentData() == "GPU-a"
    with qtbot.waitSignal(dialog.card_chosen):
        choice.setFocus()
        qtbot.keyClick(choice, Qt.Key.Key_Down)
    assert preferences.load().gpu == "GPU-b"
    qtbot.waitUntil(
        lambda: any("A6000" in text and "takes this one" in text for text in texts(dialog))
    )


def test_a_failed_look_is_said_and_can_be_repeated(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [UserError("folder_not_writable", "The folder <b>/x</b> cannot be made."), None]
    real = doctor.report

    def report() -> dict[str, object]:
        error = answers.pop(0)
        if error:
            raise error
        return real()

    monkeypatch.setattr(doctor, "report", report)
    dialog = HardwareDialog()
    qtbot.addWidget(dialog)
    dialog.show()
    qtbot.waitUntil(lambda: any("<b>/x</b>" in text for text in texts(dialog)))
    assert not copy_button(dialog).isEnabled()
    dialog.look()
    qtbot.waitUntil(lambda: copy_button(dialog).isEnabled() and len(texts(dialog)) > 20)


def test_the_memory_at_the_foot_and_the_button_above_it_ask_for_it(qtbot: QtBot) -> None:
    foot = Sidebar()
    qtbot.addWidget(foot)
    foot.show()
    with qtbot.waitSignal(foot.hardware_requested):
        qtbot.mouseClick(foot.memory, Qt.MouseButton.LeftButton)
    with qtbot.waitSignal(foot.hardware_requested):
        qtbot.keyClick(foot.findChild(QPushButton, "hardwareButton"), Qt.Key.Key_Space)


def test_the_window_opens_it_and_shows_the_chosen_card_at_the_foot(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sidebar, "READ_EVERY_MS", 20)
    FakeNvml(monkeypatch, FakeCard("GPU-a", "First card"), FakeCard("GPU-b", "Second card"))
    window = MainWindow()
    qtbot.addWidget(window)
    window.show()
    foot = window.sidebar.memory.findChildren(QLabel)[0]
    qtbot.waitUntil(lambda: foot.text() == "First card")
    qtbot.mouseClick(window.sidebar.memory, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: window.findChild(QComboBox, "cardCombo") is not None)
    choice = window.findChild(QComboBox, "cardCombo")
    choice.setFocus()
    qtbot.keyClick(choice, Qt.Key.Key_Down)
    qtbot.waitUntil(lambda: foot.text() == "Second card")
    window.findChild(HardwareDialog).accept()
