"""Asks for the name of a preset."""

from __future__ import annotations

from collections.abc import Callable, Collection

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QDialog, QLineEdit, QWidget

from app.background import run_in_background
from app.i18n import explain
from app.widgets.card import (
    ErrorLabel,
    PrimaryButton,
    page_title,
    secondary_label,
)
from app.widgets.dialog_parts import dialog_foot, dialog_layout
from training_backend.starting_points.presets import LONGEST_TITLE


class PresetDialog(QDialog):
    """`kept` says the name when `keep` took it; what it refuses is said beside the field.

    Args:
        replaces: names under which something is kept that this would replace.
        keep: called with the name, in a thread.
    """

    kept = Signal(str)

    def __init__(
        self,
        title: str,
        name: str,
        replaces: Collection[str],
        keep: Callable[[str], object],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("presetDialog")
        self.setWindowTitle(title)
        self.setMinimumWidth(460)
        self._replaces = {known.casefold() for known in replaces}
        self._keep = keep
        column = dialog_layout(self)
        column.addWidget(page_title(title))
        column.addWidget(
            secondary_label(
                self.tr(
                    "A preset holds how to train: all settings but the questions to try, neither "
                    "model nor data."
                ),
                wrap=True,
            )
        )
        self._edit = QLineEdit(name)
        self._edit.setObjectName("presetName")
        self._edit.setAccessibleName(self.tr("Name of the preset"))
        self._edit.setPlaceholderText(self.tr("Name"))
        self._edit.setMaxLength(LONGEST_TITLE)
        self._edit.selectAll()
        self._edit.textChanged.connect(self._on_text)
        column.addWidget(self._edit)
        self._error = ErrorLabel("error_presetName")
        column.addWidget(self._error)
        self._save = PrimaryButton("")
        self._save.setObjectName("presetSave")
        self._save.clicked.connect(self._try)
        column.addLayout(dialog_foot(self, self._save))
        self._on_text()

    def _name(self) -> str:
        return " ".join(self._edit.text().split())

    def _on_text(self) -> None:
        self._error.show_error("")
        replaces = self._name().casefold() in self._replaces
        self._save.setText(self.tr("Replace") if replaces else self.tr("Save"))
        self._save.setAccessibleName(self._save.text())
        self._save.setEnabled(bool(self._name()))

    def _try(self) -> None:
        name = self._name()
        self._save.setEnabled(False)
        self._edit.setEnabled(False)  # one name at a time
        run_in_background(
            lambda: self._keep(name), lambda _: self._done(name), self._on_error, self
        )

    def _done(self, name: str) -> None:
        self.kept.emit(name)
        self.accept()

    def _on_error(self, error: Exception) -> None:
        self._error.show_error(explain(error))
        self._save.setEnabled(True)
        self._edit.setEnabled(True)
        self._edit.setFocus()
