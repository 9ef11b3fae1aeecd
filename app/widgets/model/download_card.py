"""Brings the chosen model to this computer: how large, how far, and what went wrong."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QMessageBox, QProgressBar, QWidget

from app import theme
from app.desks.model_download import ModelDownload
from app.i18n import explain, size
from app.widgets import figures, wording
from app.widgets.card import (
    Card,
    ElidedLabel,
    ErrorLabel,
    SecondaryButton,
    plain_tool_tip,
    secondary_label,
)
from training_backend.errors import UserError
from training_backend.job import DEMO_MODEL_IDS
from training_backend.models.catalog_entry import CatalogEntry

PARTS = 1000
ABOUT_ACCESS = ("hub_gated", "hub_unauthorized", "hub_not_found")


@dataclass(frozen=True)
class Room:
    """Where models are downloaded to, and the bytes that are free there."""

    folder: Path
    free: int


class DownloadCard(Card):
    """Not there while the chosen model is on this computer and nothing is under way."""

    change_folder_requested = Signal()
    licence_requested = Signal(str)
    token_requested = Signal()

    def __init__(self, download: ModelDownload, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.setObjectName("downloadCard")
        self._download = download
        self._entry: CatalogEntry | None = None
        self._total: int | None = None
        self._arrived = 0
        self._room: Room | None = None
        self._offline = self._refused = False

        self._text = ElidedLabel()
        self._text.setObjectName("downloadText")
        self._text.setFont(theme.font(13, tabular=True))
        self._folder = self._button("downloadFolder", self.tr("Change folder…"))
        self._folder.clicked.connect(self.change_folder_requested)
        self._cancel = self._button("downloadCancel", self.tr("Cancel"))
        self._cancel.setAccessibleName(self.tr("Cancel the download"))
        self._cancel.clicked.connect(self._ask_to_discard)
        self._act = self._button("downloadButton", self.tr("Download"))
        self._act.clicked.connect(self._on_act)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self._text, 1)
        for button in (self._folder, self._cancel, self._act):
            row.addWidget(button)
        self.body.addLayout(row)
        self._bar = QProgressBar()
        self._bar.setObjectName("downloadBar")
        self._bar.setAccessibleName(self.tr("Progress of the download"))
        self._bar.setTextVisible(False)
        self.body.addWidget(self._bar)
        self._error = ErrorLabel("error_download")
        self.body.addWidget(self._error)
        self.body.addWidget(self._access_row())
        download.changed.connect(self.render_now)
        self.render_now()

    def show_model(self, entry: CatalogEntry | None, total: int | None, arrived: int) -> None:
        """The chosen model, the bytes of its download, and those that are here already."""
        self._entry, self._total, self._arrived = entry, total, arrived
        self._refused = False
        self.render_now()

    def show_refused(self) -> None:
        """The Hub does not tell of the chosen model: it may be private."""
        self._refused = True
        self.render_now()

    def show_room(self, room: Room | None) -> None:
        self._room = room
        self.render_now()

    def show_problem(self, error: Exception) -> None:
        """What keeps the folder from being used."""
        self._error.show_error(explain(error))

    def set_offline(self, offline: bool) -> None:
        self._offline = offline
        self.render_now()

    # ---------------------------------------------------------------------------- what is shown

    def render_now(self) -> None:
        state, entry = self._download.state, self._entry
        active = state != "idle"
        missing = entry is not None and entry.location is None and not entry.problem
        self.setVisible(active or missing)
        if not (active or missing):
            return
        error = self._download.error
        code = error.code if isinstance(error, UserError) else ""
        self._error.show_error(explain(error) if error is not None else "")
        gated = not active and entry is not None and entry.gated
        refused = self._refused and not active
        self._access.setVisible(gated or refused or code in ABOUT_ACCESS)
        self._access_text.setVisible(gated)
        self._licence.setVisible(gated or code == "hub_gated")
        demo = self._id() in DEMO_MODEL_IDS
        self._folder.setVisible(not (self._download.is_running() or demo or refused))
        begun = state in ("running", "paused", "failed") or (not active and self._arrived > 0)
        self._cancel.setVisible(begun and not demo)
        self._act.setVisible(not (state == "discarding" or refused))
        self._act.setText(self._verb())
        self._act.setAccessibleName(self._verb())
        too_full = self._lacking() > 0
        self._act.setEnabled(state == "running" or not (self._offline or too_full))
        self._show_bar()
        self._text.setText(self._words())
        if self._room is not None and self._text.text():
            self._text.setToolTip(plain_tool_tip(f"{self._text.text()}\n{self._room.folder}"))

    def _verb(self) -> str:
        if self._download.state == "idle":
            return self.tr("Continue download") if self._arrived else self.tr("Download")
        return {
            "running": self.tr("Pause"),
            "paused": self.tr("Continue download"),
        }.get(self._download.state, self.tr("Try again"))

    def _words(self) -> str:
        match self._download.state:
            case "running":
                return self._running_words(self._download.progress)
            case "discarding":
                return self.tr("Removing what has arrived of {name}").format(name=self._name())
            case "failed":
                return self.tr("The download of {name} stopped").format(name=self._name())
            case "paused" if self._offline:
                words = self.tr("{name} is paused, and “work offline” is switched on")
                return words.format(name=self._name())
            case "paused":
                return self._paused_words(self._download.progress)
        if self._offline:
            return self.tr("Not on this computer, and “work offline” is switched on.")
        if self._refused:
            return self.tr("If it is a private model, a token of your account opens it.")
        if self._lacking() > 0 and self._room is not None:
            return self.tr("{missing} too little room: {total} needed, {free} free").format(
                missing=size(self._lacking()),
                total=size((self._total or 0) - self._arrived),
                free=size(self._room.free),
            )
        parts = []
        if self._arrived and self._total:
            words = self.tr("Paused at {done} of {total}")
            parts.append(words.format(done=size(self._arrived), total=size(self._total)))
        elif self._arrived:
            parts.append(self.tr("Paused at {done}").format(done=size(self._arrived)))
        elif self._total:
            parts.append(self.tr("{total} to download").format(total=size(self._total)))
        else:
            parts.append(self.tr("Not on this computer yet"))
        if self._room is not None:
            parts.append(self.tr("{free} free").format(free=size(self._room.free)))
        return ", ".join(parts) + ". " + self.tr("Or press Start: training downloads it first.")

    def _paused_words(self, progress: dict[str, Any]) -> str:
        name, total = self._name(), progress.get("total_bytes")
        if not total:
            return self.tr("{name} is paused; what has arrived is kept").format(name=name)
        words = self.tr("{name} is paused at {done} of {total}; what has arrived is kept")
        done = size(int(progress["done_bytes"]))
        return words.format(name=name, done=done, total=size(int(total)))

    def _running_words(self, progress: dict[str, Any]) -> str:
        name = self._name()
        if "share" in progress:  # the demo model tells shares only
            words = self.tr("Preparing {name}")
            return words.format(name=name)
        phase = progress.get("phase", "asking")
        if phase == "asking":
            return self.tr("Asking the Hugging Face Hub for {name}").format(name=name)
        done, total = int(progress.get("done_bytes") or 0), progress.get("total_bytes")
        amount = self.tr("{done} of {total}").format(done=size(done), total=size(total or 0))
        if phase == "waiting":
            words = self.tr("{name}: {amount}, waiting for the connection")
            return words.format(name=name, amount=amount)
        if phase == "checking":
            words = self.tr("{name}: {amount}, checking what has arrived")
            return words.format(name=name, amount=amount)
        parts = [f"{name}: {amount}"]
        rate, left = progress.get("bytes_per_second"), progress.get("seconds_left")
        if rate:
            parts.append(self.tr("{rate} a second").format(rate=size(int(rate))))
        if left is not None:
            parts.append(self.tr("about {time} left").format(time=figures.duration(left)))
        return ", ".join(parts)

    def _show_bar(self) -> None:
        state, progress = self._download.state, self._download.progress
        done, total = self._arrived, self._total
        share = progress.get("share")
        if progress.get("total_bytes"):
            done, total = int(progress["done_bytes"]), int(progress["total_bytes"])
        elif share is not None:
            done, total = round(share * PARTS), PARTS
        self._bar.setVisible(state != "idle" or self._arrived > 0)
        if state == "running" and not total:
            self._bar.setRange(0, 0)
            return
        self._bar.setRange(0, PARTS)
        self._bar.setValue(round(PARTS * min(1.0, done / total)) if total else 0)

    def _lacking(self) -> int:
        """Bytes that do not fit on the drive; 0 while one of the figures is not known."""
        if self._room is None or not self._total or self._download.state == "running":
            return 0
        return max(0, self._total - self._arrived - self._room.free)

    def _id(self) -> str:
        return self._download.id or (self._entry.id if self._entry else "")

    def _name(self) -> str:
        id = self._id()
        return wording.model_name(id) if id in DEMO_MODEL_IDS else id

    # ----------------------------------------------------------------------------- what is done

    def _on_act(self) -> None:
        if self._download.state == "running":
            self._download.pause()
        elif self._download.state in ("paused", "failed"):
            self._download.start(self._download.id, self._download.revision)
        elif self._entry is not None:
            self._download.start(self._entry.id)

    def _ask_to_discard(self) -> None:
        id = self._id()
        box = QMessageBox(self)
        box.setObjectName("discardDialog")
        box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        box.setIcon(QMessageBox.Icon.NoIcon)
        box.setWindowTitle(self.tr("Cancel the download"))
        box.setTextFormat(Qt.TextFormat.PlainText)
        box.setText(self.tr("Remove what has arrived of {name}?").format(name=id))
        box.setInformativeText(self.tr("To go on later, pause the download instead."))
        remove = box.addButton(self.tr("Remove"), QMessageBox.ButtonRole.DestructiveRole)
        keep = box.addButton(self.tr("Keep"), QMessageBox.ButtonRole.RejectRole)
        box.setDefaultButton(keep)
        remove.clicked.connect(partial(self._download.discard, id))
        box.open()

    # ------------------------------------------------------------------------------- the parts

    def _access_row(self) -> QWidget:
        self._access = QWidget()
        row = QHBoxLayout(self._access)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        self._access_text = secondary_label(
            self.tr(
                "Its makers give it to people who agreed to their licence on its page. Then a "
                "token of your account opens it here."
            ),
            wrap=True,
        )
        self._licence = self._button("downloadLicence", self.tr("Open the licence page"))
        self._licence.clicked.connect(lambda: self.licence_requested.emit(self._id()))
        token = self._button("downloadToken", self.tr("I have access: enter token"))
        token.clicked.connect(self.token_requested)
        row.addWidget(self._access_text, 1)
        row.addStretch(0)
        row.addWidget(self._licence)
        row.addWidget(token)
        return self._access

    def _button(self, name: str, text: str) -> SecondaryButton:
        button = SecondaryButton(text)
        button.setObjectName(name)
        return button
