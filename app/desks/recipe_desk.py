"""Settings from files and from runs, and into files: asked for, shown, applied."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from PySide6.QtCore import QEvent, QObject, Qt, Signal
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QFileDialog, QWidget

from app import error_dialog
from app.background import Latest, run_in_background
from app.dialogs.question import ask
from app.dialogs.recipe_dialog import RecipeDialog
from app.dialogs.save_recipe_dialog import SaveRecipeDialog
from app.draft import JobDraft
from app.i18n import explain, integer
from app.widgets.path_picker import dropped_path
from app.widgets.settings import setting_words
from training_backend.errors import JobError, UserError
from training_backend.runs import Run
from training_backend.starting_points import recipes
from training_backend.starting_points.recipes import Recipe

SUFFIX = ".json"
MOST_MISTAKES = 10


class RecipeDesk(QObject):
    """Reads and writes in threads; a job file that is dropped on the window is opened, too.

    `applied` says a field of what was taken over.
    """

    applied = Signal(str)

    def __init__(self, draft: JobDraft, window: QWidget) -> None:
        super().__init__(window)
        self._draft = draft
        self._window = window
        self._opened = Latest(self)
        window.setAcceptDrops(True)
        window.installEventFilter(self)

    # ------------------------------------------------------------------------------------ opening

    def ask_for_file(self) -> None:
        """Have the person choose a file to open."""
        dialog = QFileDialog(self._window, self.tr("Open a job file"))
        dialog.setObjectName("openRecipe")
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.setNameFilters([self.tr("Job files (*.json)"), self.tr("All files (*)")])
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(lambda path: self.open_file(Path(path)))
        dialog.open()

    def open_file(self, path: Path) -> None:
        """Show what a job file, a recipe or a preset would change."""
        self._opened.ask(lambda: recipes.read(path), self._show, partial(self._refuse, path.name))

    def open_run(self, run: Run) -> None:
        """Show what the settings of a run would change."""

        def read() -> Recipe:
            job = run.training_job()
            return recipes.of_job(job.name, job)

        self._opened.ask(read, self._show, partial(self._refuse, run.id))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        match event:
            case QDragEnterEvent() if _is_job_file(dropped_path(event)):
                event.acceptProposedAction()
                return True
            case QDropEvent() if event.type() == QEvent.Type.Drop and _is_job_file(
                dropped_path(event)
            ):
                event.acceptProposedAction()
                self.open_file(Path(dropped_path(event)))
                return True
        return super().eventFilter(watched, event)

    def _show(self, recipe: Recipe) -> None:
        dialog = RecipeDialog(recipe, recipes.changes(recipe, self._draft.value), self._window)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.chosen.connect(self._apply)
        dialog.open()

    def _apply(self, values: dict[str, Any]) -> None:
        self._draft.set_values(values)
        self.applied.emit(next(reversed(values)))

    def _refuse(self, name: str, error: Exception) -> None:
        if isinstance(error, JobError):
            count = len(error.problems)
            text = self.tr("{file} cannot be opened: {count} of its settings are wrong")
            self._tell(text.format(file=name, count=integer(count)), _mistakes(error))
        elif isinstance(error, UserError):
            self._tell(self.tr("The file cannot be opened"), explain(error))
        else:
            raise error

    # ------------------------------------------------------------------------------------- saving

    def save(self) -> None:
        """Ask what the file is for, then where to write it."""
        try:
            job = self._draft.job()
        except JobError as error:
            self._tell(self.tr("Some settings need a look first"), _mistakes(error))
            return
        dialog = SaveRecipeDialog(job, self._window)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.chosen.connect(partial(self._ask_where, job.name))
        dialog.open()

    def _ask_where(self, name: str, document: dict[str, Any]) -> None:
        dialog = QFileDialog(self._window, self.tr("Save settings to a file"))
        dialog.setObjectName("saveRecipeAs")
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setNameFilter(self.tr("Job files (*.json)"))
        dialog.setDefaultSuffix(SUFFIX.removeprefix("."))
        plain = re.sub(r"[^\w]+", "-", name).strip("-")[:60] or "job"
        dialog.selectFile(plain + SUFFIX)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(lambda path: self._write(Path(path), document))
        dialog.open()

    def _write(self, path: Path, document: dict[str, Any]) -> None:
        run_in_background(
            lambda: recipes.save(path, document),
            lambda _: None,
            partial(error_dialog.show_error, self._window, self.tr("The file is not saved")),
            self,
        )

    def _tell(self, text: str, details: str) -> None:
        ask(self._window, "recipeProblem", text, details, [], self.tr("Close"))


def _is_job_file(path: str) -> bool:
    return path.lower().endswith(SUFFIX)


def _mistakes(error: JobError) -> str:
    """A line each; of very many the first ones."""
    lines = [
        f"{setting_words.title(problem.field)}: {problem.message}"
        if problem.field
        else problem.message
        for problem in error.problems[:MOST_MISTAKES]
    ]
    return "\n".join([*lines, "…"] if len(error.problems) > MOST_MISTAKES else lines)
