"""The Model page and a Hub: search, download with pause, access, token, no network, offline.

The helper is a real process, and the Hub one on the loopback address.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from PySide6.QtWidgets import QAbstractButton, QComboBox, QLabel, QLineEdit, QMessageBox, QWidget
from pytestqt.qtbot import QtBot

from app.desks.model_places import move_models
from app.dialogs.token_dialog import TokenDialog
from app.draft import JobDraft
from app.helper_client import HelperClient
from app.main_window import MainWindow
from app.models.models_model import MODEL, STATE
from app.pages.model import ModelPage
from app.pages.train import TrainPage
from app.settings import Settings
from app.widgets.model.model_table import ModelTable
from tests.hub_server import HubServer
from tests.model_files import model_files
from training_backend import preferences
from training_backend.errors import UserError
from training_backend.hub import downloads

ID = "acme/tiny-llama"
WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def _answers_end(hub: HubServer) -> Iterator[None]:
    """The Hub's threads notice only after a while that nobody listens any more."""
    yield
    for thread in threading.enumerate():
        if "process_request" in thread.name:
            thread.join(60)


@pytest.fixture
def helper(qapp: object, hub: HubServer) -> Iterator[HelperClient]:
    client = HelperClient()
    yield client
    client.shutdown()


@pytest.fixture
def page(qtbot: QtBot, helper: HelperClient) -> ModelPage:
    page = ModelPage(JobDraft(), Settings(), helper)
    qtbot.addWidget(page)
    page.resize(1000, 760)
    page.show()
    qtbot.waitUntil(lambda: page.findChild(ModelTable).model().rowCount() > 0)
    return page


def combo(page: QWidget) -> QComboBox:
    return page.findChild(QComboBox, "modelCombo")


def button(page: QWidget, name: str) -> QAbstractButton:
    return page.findChild(QAbstractButton, name)


def press(page: QWidget, name: str) -> None:
    assert button(page, name).isVisibleTo(page), name
    assert button(page, name).isEnabled(), name
    button(page, name).click()


def text(page: QWidget, name: str) -> str:
    return page.findChild(QLabel, name).text()


def rows(page: QWidget) -> dict[str, str]:
    """State by title of what is listed."""
    model = page.findChild(ModelTable).model()
    return {
        model.index(row, MODEL).data(): model.index(row, STATE).data()
        for row in range(model.rowCount())
    }


def choose(qtbot: QtBot, page: ModelPage, id: str = ID) -> None:
    """Type a model's name and wait until the Hub has told its size."""
    combo(page).setEditText(id)
    qtbot.waitUntil(lambda: "kB to download" in text(page, "downloadText"))


def begin_slowly(qtbot: QtBot, page: ModelPage, hub: HubServer) -> None:
    """Download, and be in the middle of it."""
    hub.fault(WEIGHTS, held_at=300_000, pause=0.1)
    choose(qtbot, page)
    press(page, "downloadButton")
    qtbot.waitUntil(lambda: "a second" in text(page, "downloadText"))


def test_the_hub_is_searched_while_typing_and_what_it_has_can_be_chosen(
    qtbot: QtBot, page: ModelPage, hub: HubServer
) -> None:
    hub.add(ID, model_files())
    hub.add("acme/tiny-llama-GPTQ", model_files(quantization_config={"quant_method": "gptq"}))
    combo(page).setEditText("tiny-l")
    qtbot.waitUntil(lambda: ID in rows(page))
    assert rows(page) == {ID: "to be downloaded"}
    assert "The Hub has 1 more that cannot be trained." in text(page, "modelStatus")
    table = page.findChild(ModelTable)
    table.setCurrentIndex(table.model().index(0, 0))
    qtbot.waitUntil(lambda: "kB to download" in text(page, "downloadText"))
    assert combo(page).currentText() == "tiny-l"
    assert page.findChild(QLabel, "error_model_id").isHidden()


def test_a_name_that_the_hub_does_not_have_is_told_beside_the_field(
    qtbot: QtBot, page: ModelPage, hub: HubServer
) -> None:
    combo(page).setEditText("acme/nothing")
    qtbot.waitUntil(lambda: "no public model acme/nothing" in text(page, "error_model_id"))
    assert button(page, "downloadButton").isHidden()
    assert button(page, "downloadToken").isVisible()  # it may be a private one
    assert rows(page) == {}  # nobody knows of it


def test_a_download_pauses_goes_on_and_arrives(
    qtbot: QtBot, page: ModelPage, hub: HubServer
) -> None:
    hub.add(ID, model_files())
    begin_slowly(qtbot, page, hub)
    assert rows(page)[ID] == "downloading"
    assert "left" in text(page, "downloadText")
    press(page, "downloadButton")  # Pause
    assert "is paused at" in text(page, "downloadText")
    qtbot.waitUntil(lambda: rows(page)[ID] == "download paused")
    assert button(page, "downloadButton").text() == "Continue download"
    with qtbot.waitSignal(page.model_arrived) as arrived:
        press(page, "downloadButton")
    assert arrived.args == [ID]
    assert hub.downloads(WEIGHTS)[-1].range  # went on, and did not begin anew
    qtbot.waitUntil(lambda: rows(page).get(ID) == "on this computer")
    qtbot.waitUntil(lambda: page.findChild(QWidget, "downloadCard").isHidden())
    assert downloads.whole_model(ID) is not None


def test_cancel_asks_and_leaves_nothing(
    qtbot: QtBot, page: ModelPage, hub: HubServer, tmp_path: Path
) -> None:
    hub.add(ID, model_files())
    begin_slowly(qtbot, page, hub)
    press(page, "downloadCancel")
    dialog = page.findChild(QMessageBox, "discardDialog")
    assert ID in dialog.text()
    next(one for one in dialog.buttons() if one.text() == "Remove").click()
    qtbot.waitUntil(lambda: page.download.state == "idle")
    assert not list((tmp_path / "hf").rglob("*.incomplete"))
    assert downloads.unfinished() == {}
    qtbot.waitUntil(lambda: rows(page).get(ID) == "to be downloaded")


def test_what_goes_wrong_is_told_in_place_and_can_be_tried_again(
    qtbot: QtBot, page: ModelPage, hub: HubServer
) -> None:
    hub.add(ID, model_files())
    hub.fault(WEIGHTS, wrong=True)
    choose(qtbot, page)
    press(page, "downloadButton")
    qtbot.waitUntil(lambda: "checksum differs" in text(page, "error_download"))
    assert button(page, "downloadButton").text() == "Try again"
    with qtbot.waitSignal(page.model_arrived):
        press(page, "downloadButton")


def test_a_gated_model_explains_access_and_opens_with_a_token(
    qtbot: QtBot, page: ModelPage, hub: HubServer, home: Path
) -> None:
    hub.add(ID, model_files(), gated=True)
    choose(qtbot, page)
    assert rows(page)[ID] == "needs access"
    press(page, "downloadButton")
    qtbot.waitUntil(lambda: "agreed to its licence" in text(page, "error_download"))
    assert button(page, "downloadLicence").isVisible()
    press(page, "downloadToken")
    dialog = page.findChild(TokenDialog, "tokenDialog")
    edit = dialog.findChild(QLineEdit, "tokenEdit")
    assert edit.echoMode() == QLineEdit.EchoMode.Password
    qtbot.waitUntil(lambda: text(dialog, "tokenPlace").startswith("No token is kept"))
    edit.setText("hf_wrong")
    press(dialog, "tokenSave")
    qtbot.waitUntil(lambda: "does not accept" in text(dialog, "error_token"))
    edit.setText(hub.token)
    press(dialog, "tokenSave")
    assert edit.text() == ""
    qtbot.waitUntil(lambda: "knows it as tester" in text(dialog, "tokenPlace"))
    assert "only you can read" in text(dialog, "tokenPlace")  # there is no keyring in tests
    holders = [path for path in home.rglob("*") if path.is_file() and holds(path, hub.token)]
    assert holders == [home / "hub-token"]
    if os.name == "posix":
        assert stat.S_IMODE(holders[0].stat().st_mode) == 0o600
    dialog.accept()
    with qtbot.waitSignal(page.model_arrived):
        press(page, "downloadButton")


def holds(path: Path, secret: str) -> bool:
    return secret.encode() in path.read_bytes()


def test_a_token_can_be_removed(qtbot: QtBot, helper: HelperClient, home: Path) -> None:
    (home / "hub-token").parent.mkdir(exist_ok=True)
    (home / "hub-token").write_text("hf_some")
    dialog = TokenDialog(helper)
    qtbot.addWidget(dialog)
    dialog.show()
    qtbot.waitUntil(lambda: button(dialog, "tokenRemove").isVisible())
    press(dialog, "tokenRemove")
    qtbot.waitUntil(lambda: text(dialog, "tokenPlace").startswith("No token is kept"))
    assert not (home / "hub-token").exists()


def test_no_network_is_one_calm_line(
    qtbot: QtBot, page: ModelPage, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    combo(page).setEditText("qwen")
    line = "No connection: showing what is here and the catalogue."
    qtbot.waitUntil(lambda: line in text(page, "modelStatus"))
    assert len(rows(page)) > 5
    assert page.findChild(QLabel, "error_model_id").isHidden()


def test_working_offline_stops_the_download_and_asks_nothing_more(
    qtbot: QtBot, page: ModelPage, hub: HubServer, helper: HelperClient
) -> None:
    hub.add(ID, model_files())
    begin_slowly(qtbot, page, hub)
    with qtbot.waitSignal(page.offline_changed):
        press(page, "workOffline")
    assert preferences.load().work_offline
    assert page.download.state == "paused"
    assert "“work offline” is switched on" in text(page, "downloadText")
    assert not button(page, "downloadButton").isEnabled()
    qtbot.wait(500)  # until the helper has let go
    asked = len(hub.asked)
    combo(page).setEditText("tiny")
    qtbot.waitUntil(lambda: "Working offline" in text(page, "modelStatus"))
    combo(page).setEditText("acme/other")
    qtbot.wait(1500)
    answers: list[object] = []
    helper.ask("check_token", {}, answers.append, answers.append, page)
    qtbot.waitUntil(lambda: bool(answers))  # so it had time for all that came before
    assert len(hub.asked) == asked
    with qtbot.waitSignal(page.offline_changed):
        press(page, "workOffline")
    assert not preferences.load().work_offline


def test_a_download_outlives_its_window(qtbot: QtBot, hub: HubServer) -> None:
    hub.add(ID, model_files())
    window = MainWindow(Settings())
    qtbot.addWidget(window)
    window.show()
    begin_slowly(qtbot, window.page("navModel"), hub)
    summary = cast(TrainPage, window.page("navTrain")).header.subtitle
    assert "downloads the model first" in summary.text()
    window.close()
    again = MainWindow(Settings())
    qtbot.addWidget(again)
    again.show()
    page = again.page("navModel")
    qtbot.waitUntil(lambda: text(page, "downloadText").startswith("Paused at"))
    assert button(page, "downloadButton").text() == "Continue download"
    with qtbot.waitSignal(page.model_arrived):
        press(page, "downloadButton")
    again.close()


def test_models_go_to_the_folder_that_was_chosen(
    qtbot: QtBot, page: ModelPage, hub: HubServer, tmp_path: Path
) -> None:
    move_models(tmp_path / "other drive")
    assert preferences.load().models_folder == str(tmp_path / "other drive")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        move_models(tmp_path / "file")
    assert caught.value.code == "folder_not_writable"
    assert preferences.load().models_folder == str(tmp_path / "other drive")
