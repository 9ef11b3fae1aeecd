"""What few people change about an export, folded away: number format, base, length of files."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QVBoxLayout, QWidget

from app.widgets.card import ErrorLabel, QuietButton, plain_label, secondary_label
from app.widgets.inputs import NumberEdit, SteadyComboBox
from training_backend.job import ExportBase, ExportDtype, ExportFormat

LEAST_GB, MOST_GB = 0.1, 1_000.0
# Each only means something for some forms.
_WITH_DTYPE: tuple[ExportFormat, ...] = ("safetensors",)
_WITH_BASE: tuple[ExportFormat, ...] = ("safetensors", "gguf", "bnb_4bit")


class ExportOptions(QWidget):
    """Shown by its button; only what means something for the chosen form is there."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.fold = QuietButton(self.tr("More options"))
        self.fold.setObjectName("exportOptionsToggle")
        self.fold.setCheckable(True)
        self._content = QWidget()
        self._content.setVisible(False)
        self.fold.toggled.connect(self._content.setVisible)
        self.base = SteadyComboBox()
        self.base.setObjectName("exportBaseCombo")
        self._add(self.base, "16-bit", self.tr("the 16-bit base model (usual)"))
        self._add(self.base, "4-bit", self.tr("the base model as 4-bit training saw it"))
        self.dtype = SteadyComboBox()
        self.dtype.setObjectName("exportDtypeCombo")
        self._add(self.dtype, "auto", self.tr("as the base model (usual)"))
        self._add(self.dtype, "bfloat16", self.tr("bfloat16"))
        self._add(self.dtype, "float16", self.tr("float16, for programs that know no bfloat16"))
        self.shard = NumberEdit(
            whole=False, minimum=0.0, maximum=MOST_GB, special=self.tr("as the base model's files")
        )
        self.shard.setObjectName("exportShardEdit")
        self._error = ErrorLabel("error_export_max_shard_gb")
        self._rows: dict[str, QWidget] = {}
        column = QVBoxLayout(self._content)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(12)
        for name, title, edit, help in (
            (
                "base",
                self.tr("Merge into"),
                self.base,
                self.tr(
                    "A 4-bit training saw a coarser base model. Merging into that one keeps to "
                    "what was trained; the 16-bit one mostly answers better."
                ),
            ),
            ("dtype", self.tr("Number format"), self.dtype, ""),
            (
                "shard",
                self.tr("Longest file, GB"),
                self.shard,
                self.tr("A large model is split into several files, none longer than this."),
            ),
        ):
            column.addWidget(self._row(name, title, edit, help))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(8)
        layout.addWidget(self.fold, 0, Qt.AlignmentFlag.AlignLeft)
        layout.addWidget(self._content)
        for box in (self.base, self.dtype):
            box.currentIndexChanged.connect(lambda _: self.changed.emit())
        self.shard.valueChanged.connect(lambda _: self._on_shard())

    def offer(self, form: ExportFormat, *, in_4bit: bool) -> None:
        """Show what means something for this form of what was trained, in 4 bits or not."""
        shown = {
            "base": form in _WITH_BASE and in_4bit,
            "dtype": form in _WITH_DTYPE,
            "shard": form in _WITH_DTYPE,
        }
        for name, row in self._rows.items():
            row.setVisible(shown[name])
        self.setVisible(any(shown.values()))

    def fields(self) -> dict[str, Any]:
        """What the choices mean for an `ExportJob`; those that are not offered are left out."""
        size = self.shard.value()
        known = isinstance(size, int | float) and LEAST_GB <= size <= MOST_GB
        values: dict[str, Any] = {
            "base": self._base(),
            "dtype": self._dtype(),
            "max_shard_gb": float(size) if known else None,
        }
        keys = {"base": "base", "dtype": "dtype", "shard": "max_shard_gb"}
        return {key: values[key] for name, key in keys.items() if not self._rows[name].isHidden()}

    def is_valid(self) -> bool:
        """Whether all is well; what is not is said beside it."""
        size = self.shard.value()
        fine = self._rows["shard"].isHidden() or (
            isinstance(size, int | float) and (size == 0 or LEAST_GB <= size <= MOST_GB)
        )
        text = self.tr("Write a number of gigabytes from 0.1 to 1000, or nothing.")
        self._error.show_error("" if fine else text)
        if not fine:
            self.fold.setChecked(True)
        return fine

    def _base(self) -> ExportBase:
        return self.base.currentData() or "16-bit"

    def _dtype(self) -> ExportDtype:
        return self.dtype.currentData() or "auto"

    def _on_shard(self) -> None:
        self._error.show_error("")
        self.changed.emit()

    def _add(self, box: SteadyComboBox, value: str, text: str) -> None:
        box.addItem(text, value)

    def _row(self, name: str, title: str, edit: QWidget, help: str) -> QWidget:
        row = self._rows[name] = QWidget()
        column = QVBoxLayout(row)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        label = plain_label(title)
        label.setBuddy(edit)
        edit.setAccessibleName(title)
        edit.setAccessibleDescription(help)
        column.addWidget(label)
        column.addWidget(edit)
        if name == "shard":
            column.addWidget(self._error)
        if help:
            column.addWidget(secondary_label(help, wrap=True))
        return row
