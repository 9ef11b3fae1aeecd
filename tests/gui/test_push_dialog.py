"""The push dialog: what it shows before, while it sends, and when the Hub says no."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QObject, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QApplication, QLabel, QMessageBox, QPushButton, QWidget
from pytestqt.qtbot import QtBot

from app.dialogs.push_dialog import PushDialog
from app.helper_client import HelperClient
from app.main_window import MainWindow
from app.widgets.runs.card_view import CardView
from tests.gui.plain_text import HOSTILE, Found
from training_backend.errors import UserError
from training_backend.summaries import loss_picture
from training_backend.summaries.model_card import OURS

FOLDER = Path("/exports/mine")
CARD = f"""---
license: mit
---

{OURS}

# mine

A model made from [owner/base](https://huggingface.co/owner/base).

```python
load("{{repo}}")
```

- 40 steps.

![Loss over the steps](loss.png)

| Measure | Base | This |
| --- | ---: | ---: |
| F1 | 19.6% | 34.2% |
"""


class RecordingHelper(HelperClient):
    """Keeps what it is asked, and starts no process; the test answers."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[str, tuple[Any, ...]] = {}
        self.asked: list[tuple[str, Any]] = []
        self.cancelled: list[str] = []

    def ask(
        self, kind: str, document: Any, on_done: Any, on_error: Any, owner: Any,
        on_progress: Any = None,
    ) -> None:  # fmt: skip
        self.asked.append((kind, document))
        self.waiting[kind] = (on_done, on_error, on_progress)

    def cancel(self, kind: str, owner: QObject) -> None:
        self.cancelled.append(kind)

    def last(self, kind: str) -> Any:
        return [document for asked, document in self.asked if asked == kind][-1]


@pytest.fixture
def helper(qapp: object) -> RecordingHelper:
    return RecordingHelper()


@pytest.fixture
def window(qtbot: QtBot) -> QWidget:
    window = QWidget()
    qtbot.addWidget(window)
    window.show()
    return window


@pytest.fixture
def dialog(window: QWidget, helper: RecordingHelper) -> PushDialog:
    dialog = PushDialog(helper, FOLDER, window)
    dialog.open()
    return dialog


def draft(helper: RecordingHelper, **changed: Any) -> None:
    repo = helper.last("push_draft")["repo"] or "mine"
    picture = loss_picture.png([(1, 2.0), (2, 1.0)], [])
    answer = {
        "repo": repo, "form": "safetensors", "left_out": ["optimizer.pt"], "picture": picture,
        "files": [{"name": "model.safetensors", "bytes": 270_000_000}],
        "card": CARD.replace("{repo}", repo), "is_own": False, "verdict": "alike",
    }  # fmt: skip
    helper.waiting["push_draft"][0]({**answer, **changed})


def account(helper: RecordingHelper, may_write: bool = True) -> None:
    helper.waiting["push_account"][0](
        {"name": "tester", "owners": ["tester"], "may_write": may_write}
    )


def fail(helper: RecordingHelper, kind: str, code: str, field: str) -> None:
    helper.waiting[kind][1](UserError(code, "It says no.", "Do this.", field=field))


def ready(helper: RecordingHelper) -> None:
    account(helper)
    draft(helper)
    draft(helper)  # once more, with the account's name


def shown(dialog: PushDialog, name: str) -> str:
    label = dialog.findChild(QLabel, name)
    return label.text() if label.isVisible() else ""


def press(qtbot: QtBot, button: QPushButton) -> None:
    assert button.isVisible() and button.isEnabled()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def texts(view: CardView) -> list[str]:
    QApplication.processEvents()  # parts are shown once the layout has placed them
    return [label.text() for label in view.findChildren(QLabel) if label.isVisible()]


def test_it_shows_what_would_be_sent_before_anything_is(
    qtbot: QtBot, dialog: PushDialog, helper: RecordingHelper
) -> None:
    assert not dialog.start.isEnabled()
    ready(helper)
    assert {kind for kind, _ in helper.asked} == {"push_draft", "push_account"}
    assert dialog.repo.text() == "tester/mine" and dialog.start.isEnabled()
    assert dialog.visibility.currentText() == "Only you (private)"
    assert shown(dialog, "pushChecked") == "✓ Answers alike"
    lines = [label.toolTip() or label.text() for label in dialog._files.findChildren(QLabel)]
    assert {"model.safetensors", "270.0 MB", "Stays here: optimizer.pt"} <= set(lines)
    card = texts(dialog.card.view)
    assert 'load("tester/mine")' in card and "F1" in card and "•  40 steps." in card
    assert "A model made from owner/base." in card
    assert not any("<!--" in text or "license" in text for text in card)
    labels = [label for label in dialog.card.view.findChildren(QLabel) if label.isVisible()]
    assert sum(not label.pixmap().isNull() for label in labels) == 1


def test_an_export_that_answers_differently_is_told_before_it_is_shared(
    dialog: PushDialog, helper: RecordingHelper
) -> None:
    draft(helper, verdict="different")
    assert shown(dialog, "pushChecked") == (
        "✕ Answers differently. Find out why before you share it."
    )
    assert dialog._checked.property("role") == "bad"


def test_a_name_alone_is_completed_before_the_card_names_it(
    qtbot: QtBot, dialog: PushDialog, helper: RecordingHelper
) -> None:
    ready(helper)
    dialog.repo.selectAll()
    qtbot.keyClicks(dialog.repo, "other")
    dialog.repo.editingFinished.emit()
    assert dialog.repo.text() == "tester/other" == helper.last("push_draft")["repo"]
    assert not dialog.start.isEnabled()  # until the card names it, too
    draft(helper)
    assert 'load("tester/other")' in texts(dialog.card.view) and dialog.start.isEnabled()


def test_a_push_is_private_unless_chosen_otherwise(
    qtbot: QtBot, dialog: PushDialog, helper: RecordingHelper
) -> None:
    ready(helper)
    press(qtbot, dialog.start)
    asked = helper.last("push")
    assert (asked["repo"], asked["private"], asked["renew"]) == ("tester/mine", True, False)
    assert asked["card"].startswith("---\nlicense: mit") and asked["picture"]
    assert OURS in asked["card"]  # nobody changed it: it may be written anew another time
    fail(helper, "push", "hub_unavailable", "push.repo")
    dialog.visibility.setCurrentIndex(1)
    press(qtbot, dialog.start)
    assert helper.last("push")["private"] is False


def test_a_card_that_was_changed_is_sent_as_it_is_and_not_written_anew(
    qtbot: QtBot, dialog: PushDialog, helper: RecordingHelper
) -> None:
    ready(helper)
    dialog.findChild(QPushButton, "pushCardText").click()
    dialog.card.text.appendPlainText("My own words.")
    asked = len(helper.asked)
    dialog.repo.setText("tester/other")
    dialog.repo.editingFinished.emit()
    assert len(helper.asked) == asked
    dialog.findChild(QPushButton, "pushCardView").click()
    assert "My own words." in texts(dialog.card.view)
    press(qtbot, dialog.start)
    sent = helper.last("push")
    assert sent["card"].endswith("My own words.") and OURS not in sent["card"]
    assert sent["repo"] == "tester/other"


def test_progress_is_told_and_a_pause_goes_on(
    qtbot: QtBot, dialog: PushDialog, helper: RecordingHelper
) -> None:
    ready(helper)
    press(qtbot, dialog.start)
    assert not dialog.start.isVisible() and not dialog.repo.isEnabled()
    told = {"phase": "uploading", "done_bytes": 100_000_000, "total_bytes": 270_000_000,
            "seconds_left": 130.0, "file": "model.safetensors"}  # fmt: skip
    helper.waiting["push"][2](told)
    assert dialog._status.text() == "100.0 MB of 270.0 MB sent, 2 min left"
    assert dialog._bar.value() == 370
    helper.waiting["push"][2]({**told, "phase": "waiting"})
    assert "Waiting" in dialog._status.text()
    press(qtbot, dialog.pause)
    assert helper.cancelled[-1] == "push" and dialog.start.text() == "Go on"
    assert "kept" in dialog._status.text()
    press(qtbot, dialog.start)
    assert [kind for kind, _ in helper.asked].count("push") == 2


def test_closing_while_it_sends_asks_first(
    qtbot: QtBot, dialog: PushDialog, helper: RecordingHelper
) -> None:
    ready(helper)
    press(qtbot, dialog.start)
    qtbot.keyClick(dialog, Qt.Key.Key_Escape)
    assert dialog.isVisible()
    question = dialog.findChild(QMessageBox, "stopPushDialog")
    leave = next(b for b in question.buttons() if b.text() == "Stop and close")
    qtbot.mouseClick(leave, Qt.MouseButton.LeftButton)
    assert not dialog.isVisible() and helper.cancelled[-1] == "push"


def test_its_page_and_address_are_there_when_it_is_done(
    qtbot: QtBot, dialog: PushDialog, helper: RecordingHelper
) -> None:
    ready(helper)
    press(qtbot, dialog.start)
    url = "https://huggingface.co/tester/mine"
    helper.waiting["push"][0]({"url": url, "private": True, "repo": "tester/mine"})
    assert dialog._status.text() == f"It is on the Hub: {url} (private)"
    assert dialog.page.isVisible() and not dialog.start.isVisible()
    press(qtbot, dialog.copy)
    assert QGuiApplication.clipboard().text() == url
    dialog.reject()
    assert not dialog.isVisible()


@pytest.mark.parametrize(
    ("field", "label"),
    [
        ("push.repo", "error_push_repo"), ("push.token", "error_push_token"),
        ("push.card", "error_push_card"), ("push.visibility", "error_push_visibility"),
        ("push.folder", "error_push_folder"), ("", "error_push"),
    ],
)  # fmt: skip
def test_an_error_stands_beside_what_it_is_about(
    qtbot: QtBot, dialog: PushDialog, helper: RecordingHelper, field: str, label: str
) -> None:
    ready(helper)
    press(qtbot, dialog.start)
    fail(helper, "push", "hub_refused", field)
    assert shown(dialog, label) == "It says no. Do this."
    assert dialog.start.isEnabled() and dialog.repo.isEnabled()
    press(qtbot, dialog.start)
    assert not shown(dialog, label)


def test_renewing_is_offered_only_where_there_is_something(
    qtbot: QtBot, dialog: PushDialog, helper: RecordingHelper
) -> None:
    ready(helper)
    assert not dialog.renew.isVisible()
    press(qtbot, dialog.start)
    fail(helper, "push", "hub_repo_not_empty", "push.repo")
    dialog.renew.click()
    press(qtbot, dialog.start)
    assert helper.last("push")["renew"] is True
    fail(helper, "push", "hub_busy", "push.repo")
    qtbot.keyClicks(dialog.repo, "x")  # another one
    assert not dialog.renew.isVisible() and not dialog.renew.isChecked()


def test_a_token_that_only_reads_and_none_at_all_are_said_at_once(
    qtbot: QtBot, dialog: PushDialog, helper: RecordingHelper
) -> None:
    account(helper, may_write=False)
    assert "not write" in shown(dialog, "error_push_token")
    fail(helper, "push_account", "hub_token_missing", "push.token")
    assert shown(dialog, "error_push_token") == "It says no. Do this."
    press(qtbot, dialog.token)
    token = dialog.findChild(QWidget, "tokenDialog")
    assert any("right to write" in label.text() for label in token.findChildren(QLabel))
    before = len(helper.asked)
    token.stored.emit()
    assert helper.asked[before][0] == "push_account"
    token.close()


def test_a_card_from_outside_is_never_read_as_markup(
    qtbot: QtBot, dialog: PushDialog, helper: RecordingHelper
) -> None:
    hostile = "\n\n".join(
        (HOSTILE, f"# {HOSTILE}", f"- {HOSTILE}", f"| {HOSTILE.replace(chr(10), ' ')} | b |",
         f"```\n{HOSTILE}\n```", "![x](file:///etc/hostname)", "![x](http://127.0.0.1/x.png)")
    )  # fmt: skip
    draft(helper, card=hostile, picture=None, left_out=[HOSTILE],
          files=[{"name": HOSTILE, "bytes": 5}])  # fmt: skip
    fail(helper, "push_account", "x", "push.repo")
    dialog._on_error(UserError("x", HOSTILE.replace("{", "")))
    found = Found()
    found.look(dialog, at="pushDialog")
    assert not found.wrong and {"QLabel", "QPlainTextEdit", "pushDialog"} <= found.seen
    assert not [x for x in dialog.card.view.findChildren(QLabel) if not x.pixmap().isNull()]


def test_the_window_opens_it_for_an_export(qtbot: QtBot, home: Path) -> None:
    window = MainWindow()
    qtbot.addWidget(window)
    window.helper = RecordingHelper()
    page = window.page("navExport")
    page.push_requested.emit(FOLDER)  # type: ignore[attr-defined]
    dialog = next(w for w in QApplication.allWidgets() if w.objectName() == "pushDialog")
    assert window.helper.last("push_draft")["folder"] == str(FOLDER)
    dialog.close()
    window.close()


def test_an_unknown_account_does_not_let_go_a_card_that_is_being_written(
    qtbot: QtBot, dialog: PushDialog, helper: RecordingHelper
) -> None:
    ready(helper)
    dialog.repo.setText("tester/renamed")
    dialog.repo.editingFinished.emit()  # the card is written for the new name
    dialog._ask_for_account()  # as after a token was entered
    fail(helper, "push_account", "hub_unauthorized", "push.token")
    assert not dialog.start.isEnabled()
    draft(helper)
    assert dialog.start.isEnabled()
