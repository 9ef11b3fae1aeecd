"""An export that was made earlier: what its check found, and how to load it."""

from __future__ import annotations

from PySide6.QtWidgets import QDialog, QHBoxLayout, QWidget

from app.models.made_exports import MadeExport
from app.widgets.card import ElidedLabel, PrimaryButton, page_title
from app.widgets.dialog_parts import dialog_layout
from app.widgets.runs import export_words
from app.widgets.runs.export_result import ExportResult


class ExportDialog(QDialog):
    """As the last step of the wizard showed it."""

    def __init__(self, made: MadeExport, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("exportDialog")
        self.setWindowTitle(self.tr("Export"))
        self.resize(720, min(680, self.screen().availableSize().height() - 40))
        column = dialog_layout(self)
        column.addWidget(page_title(export_words.form(made.job)))
        about = ElidedLabel(made.name)
        about.setProperty("role", "secondary")
        column.addWidget(about)
        self.result_view = ExportResult()
        self.result_view.show_result(made.folder, made.job.format, made.proof, made.notes)
        column.addWidget(self.result_view, 1)
        close = PrimaryButton(self.tr("Close"))
        close.setDefault(True)
        close.clicked.connect(self.accept)
        row = QHBoxLayout()
        row.addStretch(1)
        row.addWidget(close)
        column.addLayout(row)
