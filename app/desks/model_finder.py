"""Finds the models that the Model page lists, and works out how each would fit.

The disk is read and the estimates are made in threads; the Hub is asked by the helper, and only
while somebody types a name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QObject, QTimer, Signal

from app.background import Latest
from app.draft import JobDraft
from app.helper_client import HelperClient
from app.models.models_model import Badge, Filters
from training_backend import catalog, preferences
from training_backend.errors import JobError, UserError
from training_backend.job import TrainingJob, parse_job
from training_backend.models.catalog_entry import CatalogEntry

if TYPE_CHECKING:  # the estimates are for after the first paint
    from training_backend.vram import Fit

FEWEST_LETTERS = 2
RESULTS = 30
CHANGE_PAUSE_MS = 400
AT_ONCE = 16  # badges between two looks at whether they are still wanted
# What else in a job decides how a model fits.
_SECTIONS = ("quantization", "lora", "training")
NO_LINE = ("hub_offline", "no_connection", "hub_unavailable", "hub_busy")


@dataclass(frozen=True)
class FitFigures:
    """Bytes that training takes, in 4 bits and in 16, with how they fit into what is free.

    `exact` when the very model was traced, not only its size known.
    """

    in_4bit: tuple[int, Fit]
    in_16bit: tuple[int, Fit]
    available: int
    device: str
    exact: bool


@dataclass(frozen=True)
class _Listed:
    entries: list[CatalogEntry]
    paused: dict[str, int]


class ModelFinder(QObject):
    """What there is to choose from, kept up to date while the page is on screen."""

    listed = Signal(object, object)  # the models, and bytes by id of unfinished downloads
    list_failed = Signal(object)
    found = Signal(object, int)  # what the Hub has for the words, and how many cannot be trained
    searching = Signal()
    no_connection = Signal()
    search_failed = Signal(object)
    badges_arrived = Signal(object)  # by id
    fit_arrived = Signal(object)  # id and FitFigures

    def __init__(self, draft: JobDraft, helper: HelperClient, parent: QObject) -> None:
        super().__init__(parent)
        self._draft = draft
        self._helper = helper
        self._entries: list[CatalogEntry] = []
        self._chosen: CatalogEntry | None = None
        self._visible = False
        self._due = True
        self._lists, self._badges, self._fit = Latest(self), Latest(self), Latest(self)
        self._pause = QTimer(self, singleShot=True, interval=CHANGE_PAUSE_MS)
        self._pause.timeout.connect(self._judge)
        draft.changed.connect(self._on_draft_changed)

    def set_visible(self, visible: bool) -> None:
        """The page is on screen: from now on it is worth the work."""
        self._visible = visible
        if visible and self._due:
            self._pause.start()

    def refresh(self, recent: list[str]) -> None:
        """Look again for the models on this computer, folders that were chosen before included."""
        self._lists.ask(lambda: _list(recent), self._on_listed, self.list_failed.emit)

    def search(self, query: str, filters: Filters) -> None:
        """Ask the Hub for these words; an empty query, or working offline, asks nothing."""
        self._helper.cancel("search_models", self)
        if len(query) < FEWEST_LETTERS:
            return
        if preferences.is_offline():
            self.no_connection.emit()
            return
        self.searching.emit()
        document: dict[str, Any] = {
            "query": query,
            "gated": False if filters.no_gated else None,
            "max_parameters": filters.max_parameters,
            "limit": RESULTS,
        }
        self._helper.ask("search_models", document, self._on_found, self._on_search_failed, self)

    def judge(self, entries: list[CatalogEntry]) -> None:
        """Work out how these would fit; they are all that is listed."""
        self._entries = entries
        self._due = True
        if self._visible:
            self._pause.start()

    def look_at(self, entry: CatalogEntry | None) -> None:
        """Work out the figures of the model that is chosen."""
        self._chosen = entry
        self._judge_chosen()

    # ------------------------------------------------------------------------- under the hood

    def _on_listed(self, listed: _Listed) -> None:
        self.listed.emit(listed.entries, listed.paused)

    def _on_found(self, answer: dict[str, Any]) -> None:
        models = [CatalogEntry.from_json(model) for model in answer["models"]]
        self.found.emit(models, answer["left_out"])

    def _on_search_failed(self, error: Exception) -> None:
        if isinstance(error, UserError) and error.code in NO_LINE:
            self.no_connection.emit()
        else:
            self.search_failed.emit(error)

    def _on_draft_changed(self, field: str) -> None:
        if field.partition(".")[0] in _SECTIONS:
            self._due = True
            if self._visible:
                self._pause.start()

    def _judge(self) -> None:
        job = self._job()
        if job is None:
            return  # what was said of the settings before stays, until they are right again
        self._due = False
        self._badges.forget()
        self._judge_next(job, list(self._entries))
        self._judge_chosen()

    def _judge_next(self, job: TrainingJob, waiting: list[CatalogEntry]) -> None:
        """Some of them, then the next, until they are judged anew."""
        if not waiting:
            return
        some, rest = waiting[:AT_ONCE], waiting[AT_ONCE:]

        def on_done(badges: dict[str, Badge]) -> None:
            self.badges_arrived.emit(badges)
            self._judge_next(job, rest)

        self._badges.ask(lambda: _badges(some, job), on_done, lambda _: None)

    def _judge_chosen(self) -> None:
        self._fit.forget()
        entry, job = self._chosen, self._job()
        if entry is None or job is None or entry.problem:
            self.fit_arrived.emit((entry.id if entry else "", None))
            return
        id = entry.id
        self._fit.ask(
            lambda: _figures(entry, job),
            lambda figures: self.fit_arrived.emit((id, figures)),
            lambda _: self.fit_arrived.emit((id, None)),
        )

    def _job(self) -> TrainingJob | None:
        """The settings that matter, so that a mistake elsewhere does not."""
        whole = self._draft.document()
        document: dict[str, Any] = {key: whole[key] for key in ("version", *_SECTIONS)}
        document |= {"model": {"id": "demo"}, "dataset": {"path": "demo"}}
        try:
            job = parse_job(document)
        except JobError:
            return None
        return job if isinstance(job, TrainingJob) else None


def _list(recent: list[str]) -> _Listed:
    from training_backend.hub import downloads

    entries = catalog.list_models()
    known = {entry.id for entry in entries}
    folders = [_folder_entry(folder) for folder in recent if folder not in known]
    return _Listed([*entries, *folders], downloads.unfinished())


def _folder_entry(folder: str) -> CatalogEntry:
    """A folder that was chosen before, with what keeps it from being used by now."""
    try:
        return catalog.describe_model(folder)
    except UserError as error:
        return CatalogEntry(folder, folder, None, None, "", None, "", problem=error.message)


def _badges(entries: list[CatalogEntry], job: TrainingJob) -> dict[str, Badge]:
    from training_backend.computer import devices
    from training_backend.memory import badges

    device = devices.this_device()
    return {entry.id: badges.badge(entry, job, device) for entry in entries}


def _figures(entry: CatalogEntry, job: TrainingJob) -> FitFigures | None:
    from training_backend import vram
    from training_backend.computer import devices
    from training_backend.job import ModelSection

    device = devices.this_device()
    totals, exact = [], True
    for in_4bit in (True, False):
        quantization = job.quantization.model_copy(update={"load_in_4bit": in_4bit})
        wanted = job.model_copy(
            update={"model": ModelSection(id=entry.id), "quantization": quantization}
        )
        try:
            totals.append(vram.estimate_job(wanted, device).total_bytes)
        except (vram.TraceNeeded, UserError):
            if entry.parameters is None:
                return None
            exact = False
            totals.append(vram.estimate_parameters(entry.parameters, wanted, device))
    small, large = ((total, vram.fit_of(total, device)) for total in totals)
    return FitFigures(small, large, device.available_bytes, device.name, exact)
