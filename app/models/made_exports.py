"""The exports that were made and are still there, as a table."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PySide6.QtCore import (
    QAbstractTableModel,
    QCoreApplication,
    QModelIndex,
    QPersistentModelIndex,
    Qt,
)

from app import i18n, theme
from app.widgets import figures, wording
from app.widgets.card import plain_tool_tip
from app.widgets.runs import export_words
from training_backend.errors import UserError
from training_backend.export import proof_record
from training_backend.job import ExportJob
from training_backend.lifecycle import journal
from training_backend.lifecycle.run_folders import listed
from training_backend.paths import export_runs_dir
from training_backend.protocol import ExportProved, RunCompleted, WarningRaised
from training_backend.runs import Run

NAME, FORM, MADE, SIZE, ANSWERS, FOLDER = range(6)
_Index = QModelIndex | QPersistentModelIndex


@dataclass(frozen=True)
class MadeExport:
    """An export that came to its end; `proof` is None where it was not checked.
    `notes` are what was told beside its making.

    `made` is in Unix seconds, `size_bytes` what its folder holds.
    """

    run: Run
    job: ExportJob
    folder: Path
    made: float
    size_bytes: int
    proof: ExportProved | None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the person called it; of one that has no name of its own, its folder's."""
        unnamed = self.job.name == ExportJob.model_fields["name"].default
        return self.folder.name if unnamed else self.job.name


def list_exports() -> list[MadeExport]:
    """Those whose folder is still there, newest first; one folder once. Reads the disk."""
    found: dict[Path, MadeExport] = {}
    for folder in sorted(listed(export_runs_dir()), reverse=True):
        with contextlib.suppress(UserError, OSError):
            made = _made(Run(folder))
            if made is not None:
                found.setdefault(made.folder, made)
    return list(found.values())


def live_export() -> Run | None:
    """The export that is under way, if there is one. Reads the disk."""
    with contextlib.suppress(UserError, OSError):
        found = (Run(folder) for folder in sorted(listed(export_runs_dir()), reverse=True))
        return next((run for run in found if run.is_alive()), None)
    return None


def _made(run: Run) -> MadeExport | None:
    events = journal.tail(run.folder)
    if not events or not isinstance(end := events[-1], RunCompleted):
        return None
    folder, job = Path(end.folder), run.job()
    if not isinstance(job, ExportJob) or not folder.is_dir():
        return None
    proof = _newest_proof(folder)
    if proof is None:
        proof = next((e for e in reversed(events) if isinstance(e, ExportProved)), None)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    notes = tuple(event.message for event in events if isinstance(event, WarningRaised))
    return MadeExport(run, job, folder, end.time, size, proof, notes)


def _newest_proof(folder: Path) -> ExportProved | None:
    """What lies in the export's folder, where every check leaves its verdict.

    A verdict on files that are no longer those is none.
    """
    with contextlib.suppress(OSError, ValueError, TypeError):
        found = proof_record.read(folder) or {}
        if found.get("state") not in (None, proof_record.state(folder)):
            return ExportProved(
                verdict="not_proven",
                code="changed_since_check",
                message="The files in the folder are others than those that were checked.",
                time=0.0,
            )
        known = {key: found[key] for key in ExportProved.model_fields if key in found}
        return ExportProved.model_validate({**known, "type": "ExportProved", "time": 0.0})
    return None


class MadeExportsModel(QAbstractTableModel):
    """One row an export."""

    def __init__(self) -> None:
        super().__init__()
        self._made: list[MadeExport] = []

    def show_exports(self, made: list[MadeExport]) -> None:
        if made != self._made:
            self.beginResetModel()
            self._made = made
            self.endResetModel()

    def export(self, row: int) -> MadeExport:
        return self._made[row]

    def row_of(self, folder: Path) -> int:
        """The row of the export in a folder; -1 when it is not there."""
        folders = [made.folder for made in self._made]
        return folders.index(folder) if folder in folders else -1

    def rowCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self._made)

    def columnCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else 6

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _alignment(section)
        if role != Qt.ItemDataRole.DisplayRole:
            return None
        return (_tr("Name"), _tr("Form"), _tr("Made"), _tr("Size"), _tr("Check"), _tr("Folder"))[
            section
        ]

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        made, column = self._made[index.row()], index.column()
        sign, words, colour = export_words.verdict(made.proof.verdict if made.proof else None)
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return (
                    wording.one_line(made.name),
                    export_words.form(made.job),
                    figures.clock(made.made),
                    i18n.size(made.size_bytes),
                    f"{sign} {words}",
                    wording.one_line(str(made.folder)),
                )[column]
            case Qt.ItemDataRole.ToolTipRole:
                why = made.proof.message if made.proof and column == ANSWERS else ""
                shown = self.data(index)
                return plain_tool_tip(why or str(shown))
            case Qt.ItemDataRole.AccessibleTextRole if column == ANSWERS:
                return words
            case Qt.ItemDataRole.ForegroundRole if column == ANSWERS:
                return theme.current().color(colour)
            case Qt.ItemDataRole.FontRole if column == SIZE:
                return theme.font(13, tabular=True)
            case Qt.ItemDataRole.TextAlignmentRole:
                return _alignment(column)
        return None


def _tr(text: str) -> str:
    return QCoreApplication.translate("MadeExportsModel", text)


def _alignment(column: int) -> Qt.AlignmentFlag:
    side = Qt.AlignmentFlag.AlignRight if column == SIZE else Qt.AlignmentFlag.AlignLeft
    return side | Qt.AlignmentFlag.AlignVCenter
