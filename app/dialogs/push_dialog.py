"""An export goes to the Hugging Face Hub: where to, who sees it, with which card; how far it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6.QtCore import QUrl
from PySide6.QtGui import QDesktopServices, QGuiApplication
from PySide6.QtWidgets import (
    QCheckBox,
    QDialog,
    QHBoxLayout,
    QLineEdit,
    QProgressBar,
    QVBoxLayout,
    QWidget,
)

from app import i18n, theme
from app.dialogs.question import Role, ask
from app.dialogs.token_dialog import TokenDialog
from app.helper_client import HelperClient
from app.i18n import explain
from app.widgets import figures
from app.widgets.card import (
    ElidedLabel,
    ErrorLabel,
    PrimaryButton,
    QuietButton,
    SecondaryButton,
    page_title,
    plain_label,
    secondary_label,
)
from app.widgets.dialog_parts import dialog_layout
from app.widgets.inputs import SteadyComboBox
from app.widgets.runs import export_words
from app.widgets.runs.card_edit import CardEdit
from app.widgets.runs.file_list import FileList
from training_backend.errors import UserError

LEFT_WIDTH = 280
PARTS = 1000  # of the progress bar


class PushDialog(QDialog):
    """The helper asks the Hub and sends; closing while it sends asks first, and is a pause.

    Args:
        folder: of a finished export.
    """

    def __init__(self, helper: HelperClient, folder: Path, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("pushDialog")
        self.setWindowTitle(self.tr("Push to the Hub"))
        self._helper = helper
        self._folder = folder
        self._account = ""
        self._drafted = ""  # the name that the card was written for
        self._drafting = False
        self._sending = False
        self._url = ""
        column = dialog_layout(self)
        column.addWidget(page_title(self.tr("Push to the Hugging Face Hub")))
        intro = self.tr(
            "Puts this model into your account there. All that is sent is shown here; rows of data "
            "and names of folders are not among it."
        )
        column.addWidget(secondary_label(intro, wrap=True))
        row = QHBoxLayout()
        row.setSpacing(24)
        row.addLayout(self._choices())
        self.card = CardEdit()
        right = QVBoxLayout()
        right.setSpacing(4)
        right.addWidget(self.card, 1)
        self._errors["push.card"] = ErrorLabel("error_push_card")
        right.addWidget(self._errors["push.card"])
        row.addLayout(right, 1)
        column.addLayout(row, 1)
        column.addLayout(self._progress_row())
        column.addLayout(self._foot())
        self.resize(920, 640)
        self._show_state()
        self._ask_for_draft()
        self._ask_for_account()

    def reject(self) -> None:
        """Escape and Close; what is being sent is not given up without a question."""
        if not self._sending:
            self._helper.cancel("push_draft", self)
            self._helper.cancel("push_account", self)
            super().reject()
            return
        ask(
            self,
            "stopPushDialog",
            self.tr("The model is being sent."),
            self.tr("What has arrived is kept on the Hub. A later push sends the rest."),
            [(self.tr("Stop and close"), Role.AcceptRole, self._stop_and_close)],
            self.tr("Go on sending"),
        )

    # ------------------------------------------------------------------------------- the parts

    def _choices(self) -> QVBoxLayout:
        """Where to, who sees it, and the files; each error beside its choice."""
        self.repo = QLineEdit()
        self.repo.setObjectName("pushRepoEdit")
        self.repo.setAccessibleName(self.tr("Name on the Hub"))
        self.repo.setPlaceholderText(self.tr("owner/name"))
        self.repo.textEdited.connect(lambda _: self._on_name())
        self.repo.editingFinished.connect(self._on_named)
        self.renew = QCheckBox(self.tr("Renew the files that are there"))
        self.renew.setObjectName("pushRenewBox")
        self.renew.setVisible(False)
        self._who = secondary_label(self.tr("Asking whose token is kept here…"), wrap=True)
        self._who.setObjectName("pushAccount")
        self.token = QuietButton(self.tr("Token…"))
        self.token.setObjectName("pushToken")
        self.token.clicked.connect(self._enter_token)
        self.visibility = SteadyComboBox()
        self.visibility.setObjectName("pushVisibilityCombo")
        self.visibility.setAccessibleName(self.tr("Who can see it"))
        self.visibility.addItem(self.tr("Only you (private)"), True)
        self.visibility.addItem(self.tr("Everybody (public)"), False)
        self.visibility.currentIndexChanged.connect(self._on_visibility)
        self._seen_by = secondary_label("", wrap=True)
        self._checked = plain_label(wrap=True)
        self._checked.setObjectName("pushChecked")
        self._files = FileList()
        self._files.setFixedWidth(LEFT_WIDTH)
        self._errors = {
            "push.repo": ErrorLabel("error_push_repo"),
            "push.token": ErrorLabel("error_push_token"),
            "push.visibility": ErrorLabel("error_push_visibility"),
            "push.folder": ErrorLabel("error_push_folder"),
        }
        account = QHBoxLayout()
        account.setSpacing(8)
        account.addWidget(self._who, 1)
        account.addWidget(self.token)
        column = QVBoxLayout()
        column.setSpacing(4)
        column.addWidget(self._label(self.tr("Name on the Hub"), self.repo))
        _add(column, self.repo, self._errors["push.repo"], self.renew)
        column.addLayout(account)
        column.addWidget(self._errors["push.token"])
        column.addSpacing(12)
        column.addWidget(self._label(self.tr("Who can see it"), self.visibility))
        _add(column, self.visibility, self._seen_by, self._errors["push.visibility"])
        column.addSpacing(12)
        _add(column, self._checked, self._files, self._errors["push.folder"])
        column.addStretch(1)
        self.repo.setFixedWidth(LEFT_WIDTH)
        self.visibility.setFixedWidth(LEFT_WIDTH)
        self._on_visibility()
        return column

    def _progress_row(self) -> QVBoxLayout:
        self._bar = QProgressBar()
        self._bar.setObjectName("pushProgress")
        self._bar.setAccessibleName(self.tr("How much is sent"))
        self._bar.setRange(0, PARTS)
        self._bar.setTextVisible(False)
        self._status = ElidedLabel()
        self._status.setObjectName("pushStatus")
        self._status.setFont(theme.font(13, tabular=True))
        self._error = ErrorLabel("error_push")
        column = QVBoxLayout()
        column.setSpacing(6)
        _add(column, self._bar, self._status, self._error)
        return column

    def _foot(self) -> QHBoxLayout:
        self.page = SecondaryButton(self.tr("Open its page"))
        self.page.setObjectName("pushOpenPage")
        self.page.clicked.connect(lambda: QDesktopServices.openUrl(QUrl(self._url)))
        self.copy = SecondaryButton(self.tr("Copy the address"))
        self.copy.setObjectName("pushCopyAddress")
        self.copy.clicked.connect(self._copy_address)
        self.close_button = SecondaryButton(self.tr("Close"))
        self.close_button.setObjectName("pushClose")
        self.close_button.clicked.connect(self.reject)
        self.pause = SecondaryButton(self.tr("Pause"))
        self.pause.setObjectName("pushPause")
        self.pause.clicked.connect(self._pause)
        self.start = PrimaryButton(self.tr("Push"))
        self.start.setObjectName("pushStart")
        self.start.setDefault(True)
        self.start.clicked.connect(self._begin)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self.page)
        row.addWidget(self.copy)
        row.addStretch(1)
        for button in (self.close_button, self.pause, self.start):
            row.addWidget(button)
        return row

    def _label(self, text: str, buddy: QWidget) -> QWidget:
        label = plain_label(text)
        label.setBuddy(buddy)
        return label

    # --------------------------------------------------------------------------- before sending

    def _ask_for_draft(self) -> None:
        """The card names the model; one that a person has changed is left as it is."""
        name = self.repo.text().strip()
        if self._sending or self.card.is_changed() or (name and name == self._drafted):
            return
        self._drafted = name
        self._drafting = True
        self._show_state()
        document = {"folder": str(self._folder), "repo": name}
        self._helper.ask("push_draft", document, self._show_draft, self._on_no_draft, self)

    def _show_draft(self, draft: dict[str, Any]) -> None:
        self._drafting = False
        if not self.repo.text():
            self._drafted = draft["repo"]
            self._name_it(draft["repo"])
        if not self.card.is_changed():
            self.card.show_card(draft["card"], draft["picture"])
        sign, words, colour = export_words.verdict(draft["verdict"] or None)
        text = f"{sign} {words}"
        if draft["verdict"] == "different":
            text = self.tr("{verdict}. Find out why before you share it.").format(verdict=text)
        self._checked.setText(text)
        self._checked.setProperty("role", colour)
        self._checked.style().polish(self._checked)
        self._files.show_files(draft["files"], draft["left_out"])
        self._show_state()
        self._ask_for_draft()  # the account may have become known meanwhile, and with it the name

    def _ask_for_account(self) -> None:
        self._helper.ask("push_account", {}, self._show_account, self._on_error, self)

    def _show_account(self, account: dict[str, Any]) -> None:
        self._account = account["name"]
        self._errors["push.token"].show_error("")
        words = self.tr("The token is that of {name}.").format(name=self._account)
        self._who.setText(words)
        if not account["may_write"]:
            self._errors["push.token"].show_error(
                self.tr("It may read, but not write. Enter one with the right to write.")
            )
        self._on_named()

    def _on_named(self) -> None:
        self._name_it(self.repo.text().strip())
        self._ask_for_draft()

    def _name_it(self, name: str) -> None:
        """A name alone gets the account's own before it."""
        if name and self._account and "/" not in name:
            name = f"{self._account}/{name}"
        self.repo.setText(name)
        self._show_state()

    def _on_name(self) -> None:
        self._errors["push.repo"].show_error("")
        self.renew.setChecked(False)
        self.renew.setVisible(False)
        self._show_state()

    def _on_visibility(self) -> None:
        private = bool(self.visibility.currentData())
        self._errors["push.visibility"].show_error("")
        self._seen_by.setText(
            self.tr("You can open it to others on its page later.")
            if private
            else self.tr("Anybody can find, load and copy it from the first moment.")
        )

    def _enter_token(self) -> None:
        dialog = TokenDialog(self._helper, self, to_write=True)
        dialog.stored.connect(self._ask_for_account)
        dialog.open()

    # --------------------------------------------------------------------------------- sending

    def _begin(self) -> None:
        for label in (*self._errors.values(), self._error):
            label.show_error("")
        self._sending = True
        self._url = ""
        self._bar.setValue(0)
        self._show_state()
        text, picture = self.card.card()
        document = {
            "folder": str(self._folder),
            "repo": self.repo.text().strip(),
            "card": text,
            "picture": picture,
            "private": bool(self.visibility.currentData()),
            "renew": self.renew.isVisible() and self.renew.isChecked(),
        }
        self._status.setText(self.tr("Asking the Hub…"))
        self._helper.ask(
            "push", document, self._on_pushed, self._on_push_failed, self, self._on_progress
        )

    def _on_progress(self, told: dict[str, Any]) -> None:
        done, total = told["done_bytes"], told["total_bytes"]
        if total:
            self._bar.setValue(round(PARTS * min(1.0, done / total)))
        match told["phase"]:
            case "asking":
                words = self.tr("Asking the Hub…")
            case "waiting":
                words = self.tr("Waiting for the connection…")
            case "checking":
                words = self.tr("Reading {file}…").format(file=told["file"])
            case _ if total:
                words = self.tr("{done} of {total} sent").format(
                    done=i18n.size(done), total=i18n.size(total)
                )
                if told["seconds_left"] is not None:
                    left = figures.duration(told["seconds_left"])
                    words = self.tr("{sent}, {time} left").format(sent=words, time=left)
            case _:
                return
        self._status.setText(words)

    def _on_pushed(self, pushed: dict[str, Any]) -> None:
        self._sending = False
        self._url = pushed["url"]
        self._bar.setValue(PARTS)
        self.card.forget_changes()
        seen = self.tr("private") if pushed["private"] else self.tr("public")
        self._status.setText(
            self.tr("It is on the Hub: {url} ({seen})").format(url=self._url, seen=seen)
        )
        self._show_state()

    def _on_push_failed(self, error: Exception) -> None:
        self._sending = False
        self._status.setText("")
        self._on_error(error)

    def _on_no_draft(self, error: Exception) -> None:
        self._drafting = False
        self._on_error(error)

    def _on_error(self, error: Exception) -> None:
        field = error.field if isinstance(error, UserError) else None
        if isinstance(error, UserError) and error.code == "hub_repo_not_empty":
            self.renew.setVisible(True)
        if field == "push.token":
            self._who.setText("")
        self._errors.get(field or "", self._error).show_error(explain(error))
        if field == "push.card":
            self.card.edit_it()
        self._show_state()

    def _pause(self) -> None:
        self._helper.cancel("push", self)
        self._sending = False
        self._status.setText(self.tr("Paused. What has arrived is kept; Go on sends the rest."))
        self._show_state(paused=True)

    def _stop_and_close(self) -> None:
        if self._sending:
            self._helper.cancel("push", self)
            self._sending = False
        super().reject()

    def _copy_address(self) -> None:
        QGuiApplication.clipboard().setText(self._url)
        self.copy.setText(self.tr("Copied"))

    def _show_state(self, *, paused: bool = False) -> None:
        done = bool(self._url)
        for part in (self.repo, self.visibility, self.renew, self.token):
            part.setEnabled(not self._sending and not done)
        self.card.set_locked(self._sending or done)
        self._bar.setVisible(self._sending or done or paused)
        self._status.setVisible(self._sending or done or paused)
        self.page.setVisible(done)
        self.copy.setVisible(done)
        self.pause.setVisible(self._sending)
        self.start.setVisible(not self._sending and not done)
        self.start.setText(self.tr("Go on") if paused else self.tr("Push"))
        self.start.setAccessibleName(self.start.text())
        is_named = bool(self.repo.text().strip())
        self.start.setEnabled(is_named and self.card.is_ready() and not self._drafting)


def _add(column: QVBoxLayout, *parts: QWidget) -> None:
    for part in parts:
        column.addWidget(part)
