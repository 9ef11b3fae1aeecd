"""Whether a job file is for oneself or for others, and what it does not say in that case."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QDialog, QRadioButton, QVBoxLayout, QWidget

from app.background import run_in_background
from app.i18n import explain
from app.widgets.card import (
    ElidedLabel,
    ErrorLabel,
    PrimaryButton,
    page_title,
    secondary_label,
)
from app.widgets.dialog_parts import dialog_foot, dialog_layout
from app.widgets.settings import setting_words
from training_backend.job import TrainingJob
from training_backend.starting_points import recipes

INDENT = 28
Shared = tuple[dict[str, Any], list[tuple[str, str]]]


class SaveRecipeDialog(QDialog):
    """`chosen` carries the document to write."""

    chosen = Signal(object)  # a dict would come with its keys sorted

    def __init__(self, job: TrainingJob, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("saveRecipeDialog")
        self.setWindowTitle(self.tr("Save settings to a file"))
        self.setMinimumWidth(560)
        self._job = job
        self._shared: dict[str, Any] | None = None
        column = dialog_layout(self, spacing=4)
        column.addWidget(page_title(self.windowTitle()))
        column.addSpacing(8)
        self._whole = QRadioButton(self.tr("For this computer"))
        self._whole.setObjectName("saveWhole")
        self._whole.setChecked(True)
        column.addWidget(self._whole)
        column.addWidget(
            _note(self.tr("The whole job, with the folders of its model and its data."))
        )
        column.addSpacing(8)
        self._share = QRadioButton(self.tr("To share"))
        self._share.setObjectName("saveShared")
        column.addWidget(self._share)
        column.addWidget(_note(self.tr("Names no folder of this computer; ids on the Hub stay.")))
        self._left_out = QVBoxLayout()
        self._left_out.setContentsMargins(INDENT, 0, 0, 0)
        self._left_out.setSpacing(2)
        column.addLayout(self._left_out)
        self._error = ErrorLabel("saveRecipeProblem")
        column.addWidget(self._error)
        column.addSpacing(16)
        self._save = PrimaryButton(self.tr("Save…"))
        self._save.setObjectName("saveRecipe")
        self._save.clicked.connect(self._choose)
        self._share.toggled.connect(self._update)
        column.addLayout(dialog_foot(self, self._save))
        # Whether a name is a folder or an id is seen on the disk.
        run_in_background(
            lambda: recipes.shareable(job),
            self._show,
            lambda error: self._error.show_error(explain(error)),
            self,
        )

    def _show(self, shared: Shared) -> None:
        self._shared, left_out = shared
        for field, value in left_out:
            line = ElidedLabel(
                self.tr("Left out: {setting} ({value})").format(
                    setting=setting_words.title(field).lower(), value=value
                )
            )
            line.setProperty("role", "careful")
            line.setObjectName("leftOut")
            self._left_out.addWidget(line)
        if not left_out:
            self._left_out.addWidget(secondary_label(self.tr("There is nothing to leave out.")))
        self._update()

    def _update(self) -> None:
        self._save.setEnabled(not self._share.isChecked() or self._shared is not None)

    def _choose(self) -> None:
        whole = self._job.model_dump(mode="json")
        self.chosen.emit(self._shared if self._share.isChecked() else whole)
        self.accept()


def _note(text: str) -> QWidget:
    label = secondary_label(text, wrap=True)
    label.setContentsMargins(INDENT, 0, 0, 0)
    return label
