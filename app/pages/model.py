"""The Model page: which base model is trained, and how it comes to this computer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import Qt, QTimer, QUrl, Signal
from PySide6.QtGui import (
    QDesktopServices,
    QDragEnterEvent,
    QDropEvent,
    QHideEvent,
    QKeySequence,
    QShortcut,
    QShowEvent,
)
from PySide6.QtWidgets import QFileDialog, QWidget

from app.background import Latest, run_in_background
from app.desks.model_download import ModelDownload
from app.desks.model_finder import NO_LINE, FitFigures, ModelFinder
from app.draft import JobDraft
from app.helper_client import HelperClient
from app.i18n import explain
from app.settings import Settings
from app.widgets.card import (
    PageHeader,
    PrimaryButton,
    QuietButton,
    page_layout,
)
from app.widgets.model.download_card import ABOUT_ACCESS, DownloadCard, Room
from app.widgets.model.first_try_card import FirstTryCard
from app.widgets.model.model_chooser import ModelChooser
from app.widgets.model.model_details import ModelDetails
from app.widgets.model.offline_switch import OfflineSwitch
from app.widgets.path_picker import dropped_path
from training_backend import catalog, preferences
from training_backend.errors import UserError
from training_backend.hub import hub_errors
from training_backend.models import curated
from training_backend.models.catalog_entry import CatalogEntry

if TYPE_CHECKING:
    from app.desks.model_places import Place

INFO_PAUSE_MS = 700
SETTLE_MS = 600


class ModelPage(QWidget):
    """Pick a model from the list, a folder, or by its name on the Hub; download it."""

    continue_requested = Signal()
    settings_requested = Signal()
    try_requested = Signal()  # train now, with what is chosen
    offline_changed = Signal(bool)
    model_arrived = Signal(str)  # it was downloaded
    described = Signal(object)  # the CatalogEntry that is chosen, or None

    def __init__(
        self,
        draft: JobDraft,
        settings: Settings,
        helper: HelperClient,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._draft = draft
        self._settings = settings
        self._helper = helper
        self._unfinished: dict[str, int] = {}
        self._entry: CatalogEntry | None = None
        self._may_ask = False  # not before the person has done something here
        self._looked_up = ""
        self._identified, self._described, self._room = Latest(self), Latest(self), Latest(self)
        self._finder = ModelFinder(draft, helper, self)
        self.download = ModelDownload(helper, self)
        self._info_pause = QTimer(self, singleShot=True, interval=INFO_PAUSE_MS)
        self._info_pause.timeout.connect(self._ask_info)
        self.setAcceptDrops(True)

        layout = page_layout(self)
        layout.addWidget(self._head())
        self._chooser = ModelChooser(self._finder)
        self._chooser.chosen.connect(self._choose)
        self._chooser.folder_requested.connect(self._browse)
        layout.addWidget(self._chooser, 1)
        self._details = ModelDetails()
        self._details.drop_adapter_requested.connect(self._drop_adapter)
        self._details.licence_requested.connect(_open_model_page)
        self._details.other_requested.connect(self._choose)
        layout.addWidget(self._details)
        self._download_card = DownloadCard(self.download)
        self._download_card.change_folder_requested.connect(self._change_folder)
        self._download_card.licence_requested.connect(_open_model_page)
        self._download_card.token_requested.connect(self._enter_token)
        self._download_card.set_offline(preferences.is_offline())
        layout.addWidget(self._download_card)
        self._first_try = FirstTryCard(draft)
        self._first_try.try_requested.connect(self.try_requested)
        self._first_try.settings_requested.connect(self.settings_requested)
        layout.addWidget(self._first_try)

        self._connect()
        self._show_chosen()
        self.refresh()

    def refresh(self) -> None:
        """Look again for the models on this computer, and for the room there is."""
        self._finder.refresh(self._settings.recent("models"))
        self._room.ask(_room, self._on_room, lambda _: None)

    def show_problem(self, field: str, message: str) -> None:
        """Say beside the field what is wrong with the model."""
        self._chooser.error.show_error(message)

    def shutdown(self) -> None:
        """The window closes: a download stops, and what has arrived is kept."""
        self.download.pause()

    # ------------------------------------------------------------------------------- the parts

    def _head(self) -> PageHeader:
        self._header = PageHeader(self.tr("Model"), self.tr("The language model to start from"))
        self._offline = OfflineSwitch()
        self._offline.changed.connect(self._on_offline)
        token = QuietButton(self.tr("Hub token"))
        token.setObjectName("hubToken")
        token.setToolTip(self.tr("For gated and private models and data on the Hugging Face Hub"))
        token.clicked.connect(self._enter_token)
        go_on = PrimaryButton(self.tr("Continue"))
        go_on.clicked.connect(self.continue_requested)
        self._header.add_button(token)
        self._header.add_button(self._offline)
        self._header.add_button(go_on)
        return self._header

    def _connect(self) -> None:
        self._finder.listed.connect(self._on_listed)
        self._finder.fit_arrived.connect(self._on_fit)
        self.download.changed.connect(self._on_download)
        self.download.arrived.connect(self._on_arrived)
        self.download.discarded.connect(lambda _: self._after_download())
        self._draft.changed.connect(self._on_draft_changed)
        search = QShortcut(QKeySequence.StandardKey.Find, self)
        search.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        search.activated.connect(self._chooser.focus_field)

    # --------------------------------------------------------------------------- what is chosen

    def _choose(self, text: str) -> None:
        """Train this model, or on from this adapter; what it is, a thread finds out."""
        self._identified.forget()
        self._may_ask = True
        if text in (entry.id for entry in self._chooser.entries()):
            self._draft.choose_model(text)
            return

        def on_done(place: Place) -> None:
            if place.adapter is None:
                self._draft.choose_model(place.id)
            else:
                self._draft.train_on_from(str(place.adapter), place.id, place.settings)

        def on_error(error: Exception) -> None:
            self._chooser.error.show_error(explain(error))

        self._identified.ask(lambda: _identify(text), on_done, on_error)

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, self.tr("Choose a model folder"))
        if folder:
            self._take_folder(folder)

    def _take_folder(self, folder: str) -> None:
        self._chooser.clear_search()
        self._choose(folder)

    def _drop_adapter(self) -> None:
        self._draft.set_values({"model.adapter": None})

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if os.path.isdir(dropped_path(event)):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        self._take_folder(dropped_path(event))

    # ---------------------------------------------------------------------------- what is shown

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._finder.set_visible(True)

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._finder.set_visible(False)

    def _on_draft_changed(self, field: str) -> None:
        if field == "model.id":
            self._identified.forget()  # another was chosen meanwhile
            self._show_chosen()
        elif field == "model.adapter":
            self._show_adapter()

    def _show_chosen(self) -> None:
        chosen = self._chosen()
        self._chooser.set_chosen(chosen)
        self._show_adapter()
        self.download.forget()
        self._looked_up = ""
        self._described.ask(
            lambda: catalog.describe_model(chosen), self._show_entry, self._show_entry
        )

    def refresh_memory(self) -> None:
        """Look again what the chosen model takes, as after it was traced."""
        if self._entry is not None:
            self._finder.look_at(self._entry)

    def _show_adapter(self) -> None:
        folder = str(self._draft.value("model.adapter") or "")
        self._details.show_adapter(Path(folder).name, folder)

    def _show_entry(self, found: CatalogEntry | Exception) -> None:
        error = explain(found) if isinstance(found, Exception) else ""
        if isinstance(found, CatalogEntry) and found.problem:
            error = f"{self.tr('This model cannot be trained.')} {found.problem}"
        entry = found if isinstance(found, CatalogEntry) else None
        if entry is not None and entry.source == "hub":
            entry = self._chooser.told(entry.id) or entry
        self._entry = entry
        self._chooser.error.show_error(error)
        self._header.subtitle.setText(
            entry.title if entry and not entry.problem else self.tr("No usable model is chosen")
        )
        self._details.show_entry(entry)
        other = curated.nearest_trainable(entry.id, entry.parameters) if entry else None
        self._details.offer_instead(other if entry and entry.problem else None)
        self._finder.look_at(entry)
        self._show_download(entry.size_bytes if entry else None)
        if entry is not None:
            self._remember(entry)
        self.described.emit(entry)

    def _remember(self, entry: CatalogEntry) -> None:
        """What the list did not have stands in it from now on."""
        if entry.source == "folder" and entry.location and entry.id == str(entry.location):
            if entry.id not in self._settings.recent("models"):
                self._settings.add_recent("models", entry.id)
                self._finder.refresh(self._settings.recent("models"))
        elif (
            entry.source in ("hub", "catalogue")
            and entry.location is None
            and self._may_ask
            and self._looked_up != entry.id
        ):
            self._info_pause.start()

    def _chosen(self) -> str:
        return str(self._draft.value("model.id"))

    def _on_listed(self, _: list[CatalogEntry], unfinished: dict[str, int]) -> None:
        self._unfinished = unfinished
        self._show_download(self._entry.size_bytes if self._entry else None)

    def _on_fit(self, told: tuple[str, FitFigures | None]) -> None:
        if self._entry is None or told[0] == self._entry.id:
            self._details.show_fit(told[1])

    # ----------------------------------------------------------------- the Hub and the download

    def _ask_info(self) -> None:
        """Ask the Hub about the chosen model: its size to the byte, and whether it is there."""
        entry = self._entry
        if entry is None or preferences.is_offline():
            return
        id = self._looked_up = entry.id
        revision = self._draft.value("model.revision")

        def on_done(answer: dict[str, Any]) -> None:
            if self._entry is None or self._entry.id != id:
                return
            self._unfinished.pop(id, None)
            if answer["on_disk_bytes"]:
                self._unfinished[id] = int(answer["on_disk_bytes"])
            if self._entry.source == "hub":  # of the catalogue's we know more
                entry = CatalogEntry.from_json(answer["entry"])
                self._chooser.add_told(entry)
                self._show_entry(entry)
            self._chooser.show_paused(set(self._unfinished))
            self._show_download(int(answer["total_bytes"]))

        def on_error(error: Exception) -> None:
            code = error.code if isinstance(error, UserError) else ""
            if self._entry is None or self._entry.id != id or code in NO_LINE:
                return
            self._chooser.error.show_error(explain(error))
            if code in ABOUT_ACCESS:
                self._download_card.show_refused()

        document = {"model": id, "revision": revision}
        self._helper.ask("model_info", document, on_done, on_error, self)

    def _show_download(self, total: int | None) -> None:
        entry = self._entry
        arrived = self._unfinished.get(entry.id, 0) if entry else 0
        local = entry is not None and entry.source == "folder"
        self._download_card.show_model(None if local else entry, total, arrived)
        self._first_try.set_ready(entry is not None and entry.location is not None)

    def _on_room(self, found: Room) -> None:
        self._download_card.show_room(found)

    def _on_download(self) -> None:
        running = self.download.state == "running"
        self._chooser.show_coming(self.download.id if running else "")
        if self.download.state == "paused":  # once its files are closed: they are counted then
            QTimer.singleShot(SETTLE_MS, self, self.refresh)

    def _on_arrived(self, id: str) -> None:
        self._after_download()
        self.model_arrived.emit(id)

    def _after_download(self) -> None:
        for id in (self.download.id, self._chosen()):
            self._chooser.forget_told(id)
        self._unfinished.clear()
        self._show_chosen()
        self.refresh()

    def _change_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, self.tr("Where to keep models"))
        if folder:
            run_in_background(
                lambda: _move_models(Path(folder)),
                lambda _: self.refresh(),
                self._download_card.show_problem,
                self,
            )

    def _enter_token(self) -> None:
        from app.dialogs.token_dialog import TokenDialog

        dialog = TokenDialog(self._helper, self)
        dialog.stored.connect(self._info_pause.start)
        dialog.open()

    def _on_offline(self, offline: bool) -> None:
        if offline:
            self.download.pause()
            self._helper.cancel("model_info", self)
        self._download_card.set_offline(offline)
        self._chooser.search_again()
        self.offline_changed.emit(offline)


# For threads; imported when they are needed, which is after the first paint.


def _room() -> Room:
    from app.desks.model_places import room

    return room()


def _identify(text: str) -> Place:
    from app.desks.model_places import identify

    return identify(text)


def _move_models(folder: Path) -> None:
    from app.desks.model_places import move_models

    move_models(folder)


def _open_model_page(id: str) -> None:
    QDesktopServices.openUrl(QUrl(hub_errors.licence_page(id)))
