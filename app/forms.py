"""Fields of the job model as form rows, and its mistakes back to the row they belong to.

Title, help, bounds, unit and place are said once, in `job.py`; nothing about a single
setting is repeated here.
"""

from __future__ import annotations

import re
import types
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from PySide6.QtCore import QCoreApplication, QObject, Qt, Signal
from PySide6.QtWidgets import (
    QCheckBox,
    QGridLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QVBoxLayout,
    QWidget,
)

from app.draft import JobDraft
from app.i18n import integer
from app.widgets.card import ErrorLabel, plain_label, secondary_label
from app.widgets.inputs import JobLineEdit, JobTextEdit, NumberEdit, SteadyComboBox
from app.widgets.settings import setting_words
from training_backend.job import TrainingJob

Kind = Literal["switch", "whole", "number", "choice", "names", "places", "lines", "text"]

LABEL_WIDTH = 190
INPUT_WIDTH = 190
UNIT_WIDTH = 56
COLUMN_GAP = 8

MOST_PLACES = 10_000
_PLACES = re.compile(r"\d{1,6}(\s*-\s*\d{1,6})?")


@dataclass(frozen=True)
class FieldSpec:
    """What `job.py` says about one field."""

    section: str
    key: str
    kind: Kind
    title: str
    help: str
    unit: str
    advanced: bool
    special: str
    choices: tuple[str, ...]
    minimum: float | None
    maximum: float | None
    above: bool  # the minimum itself is not allowed

    @property
    def field(self) -> str:
        return f"{self.section}.{self.key}"


def specs() -> list[FieldSpec]:
    """Every field that the settings form shows, in the order of `job.py`."""
    found = []
    for section, info in TrainingJob.model_fields.items():
        fields = getattr(info.annotation, "model_fields", {})
        for key, field in fields.items():
            extra = field.json_schema_extra or {}
            if extra.get("form"):
                found.append(_spec(section, key, field, extra))
    return found


def _spec(section: str, key: str, field: Any, extra: dict[str, Any]) -> FieldSpec:
    low: Any = None
    high: Any = None
    above = False
    for bound in field.metadata:
        match bound:
            case Ge(ge=limit):
                low = limit
            case Gt(gt=limit):
                low, above = limit, True
            case Le(le=limit) | Lt(lt=limit):
                high = limit
    kind, choices = _kind(field.annotation)
    return FieldSpec(
        section=section,
        key=key,
        kind=kind,
        title=field.title or key,
        help=field.description or "",
        unit=str(extra.get("unit", "")),
        advanced=bool(extra.get("advanced")),
        special=str(extra.get("special", "")),
        choices=choices,
        minimum=low,
        maximum=high,
        above=above,
    )


def _kind(annotation: Any) -> tuple[Kind, tuple[str, ...]]:
    simple: dict[Any, Kind] = {bool: "switch", int: "whole", float: "number", str: "text"}
    if annotation in simple:
        return simple[annotation], ()
    if get_origin(annotation) is Literal:
        return "choice", get_args(annotation)
    if get_origin(annotation) in (Union, types.UnionType):  # fixed words, or a list
        parts = get_args(annotation)
        words = tuple(word for part in parts for word in _words(part))
        return "places" if tuple[int, ...] in parts else "names", words
    if get_origin(annotation) is tuple:
        return "lines", ()
    raise TypeError(f"no widget for {annotation}")


def _words(annotation: Any) -> tuple[str, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


class FormRow(QObject):
    """One field: label, input, and beside it the help or, in its place, what is wrong."""

    edited = Signal(str, object)

    def __init__(self, spec: FieldSpec, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.spec = spec
        title = QCoreApplication.translate("job", spec.title)
        help_text = QCoreApplication.translate("job", spec.help)
        self.label = plain_label(title)
        self.input = self._build()
        self.input.setObjectName(f"field_{spec.section}_{spec.key}")
        self.input.setAccessibleName(title)
        self.input.setAccessibleDescription(help_text)
        self.label.setBuddy(self.input)
        self.help = secondary_label(help_text, wrap=True)
        self.error = ErrorLabel(f"error_{spec.section}_{spec.key}")
        self._parts: list[QWidget] = [self.label, self.input, self.help]

    def add_to(self, grid: QGridLayout, row: int) -> None:
        """Put the parts into the next row of a form's grid."""
        top = Qt.AlignmentFlag.AlignTop
        self.label.setMinimumHeight(32)
        grid.addWidget(self.label, row, 0, top)
        if self.spec.kind == "lines":
            self.input.setFixedWidth(INPUT_WIDTH + COLUMN_GAP + UNIT_WIDTH)
            grid.addWidget(self.input, row, 1, 1, 2, top)
        else:
            self.input.setFixedWidth(INPUT_WIDTH)
            grid.addWidget(self.input, row, 1, top)
            unit = secondary_label(QCoreApplication.translate("job", self.spec.unit))
            unit.setMinimumHeight(32)
            grid.addWidget(unit, row, 2, top)
            self._parts.append(unit)
        beside = QVBoxLayout()
        beside.setContentsMargins(0, 8, 0, 0)
        beside.setSpacing(0)
        beside.addWidget(self.help)
        beside.addWidget(self.error)
        grid.addLayout(beside, row, 3, top)

    def show_value(self, value: Any) -> None:
        """Show what the draft holds, without reporting it back as an edit."""
        blocked = self.input.blockSignals(True)
        match self.input:
            case QCheckBox():
                self.input.setChecked(bool(value))
            case SteadyComboBox():
                self.input.setCurrentIndex(self.input.findData(value))
            case NumberEdit():
                self.input.setValue(value)
            case QPlainTextEdit():
                if _lines(self.input.toPlainText()) != list(value):
                    self.input.setPlainText("\n".join(value))
            case QLineEdit():
                text = value if isinstance(value, str) else ", ".join(map(str, value))
                if self.input.text() != text and _names(self.input.text(), self.spec) != value:
                    self.input.setText(text)
        self.input.blockSignals(blocked)

    def show_note(self, note: str) -> None:
        """Say what is true of the field at this moment instead of its help, or with "" its help."""
        self.help.setText(note or self.text_of_help())

    def text_of_help(self) -> str:
        """What the field is for, in one line."""
        return QCoreApplication.translate("job", self.spec.help)

    def show_error(self, message: str) -> None:
        """Say what is wrong, or with "" that nothing is."""
        self.error.show_error(in_plain_words(self.spec, message) if message else "")
        self.help.setVisible(not message)
        if bool(self.input.property("invalid")) != bool(message):
            self.input.setProperty("invalid", bool(message))
            self.input.style().unpolish(self.input)
            self.input.style().polish(self.input)

    def set_enabled(self, enabled: bool) -> None:
        for part in self._parts:
            part.setEnabled(enabled)

    def _build(self) -> QWidget:
        spec = self.spec
        match spec.kind:
            case "switch":
                box = QCheckBox()
                box.toggled.connect(self._report)
                return box
            case "whole" | "number":
                number = NumberEdit(
                    whole=spec.kind == "whole",
                    minimum=spec.minimum,
                    maximum=spec.maximum,
                    special=QCoreApplication.translate("job", spec.special),
                )
                number.valueChanged.connect(self._report)
                return number
            case "choice":
                combo = SteadyComboBox()
                for choice in spec.choices:
                    combo.addItem(setting_words.choice(spec.field, choice), choice)
                combo.currentIndexChanged.connect(lambda _: self._report(combo.currentData()))
                return combo
            case "lines":
                edit = JobTextEdit()
                edit.setTabChangesFocus(True)
                edit.setFixedHeight(60)
                edit.textChanged.connect(lambda: self._report(_lines(edit.toPlainText())))
                return edit
            case "names" | "places":
                line = JobLineEdit()
                line.textChanged.connect(lambda text: self._report(_names(text, spec)))
                return line
            case "text":
                line = JobLineEdit()
                line.textChanged.connect(self._report)
                return line

    def _report(self, value: Any) -> None:
        self.edited.emit(self.spec.field, value)


class Form(QObject):
    """Rows for some fields of a draft, kept equal to it in both directions."""

    def __init__(self, draft: JobDraft, fields: list[FieldSpec], parent: QObject) -> None:
        super().__init__(parent)
        self._draft = draft
        self.rows = {spec.field: FormRow(spec, self) for spec in fields}
        for field, row in self.rows.items():
            row.show_value(draft.value(field))
            row.edited.connect(draft.set_value)
        draft.changed.connect(self._on_changed)

    def show_problems(self, problems: dict[str, str]) -> None:
        """Show every mistake beside its field, and none where there is none."""
        for field, row in self.rows.items():
            row.show_error(problems.get(field, ""))

    def _on_changed(self, field: str) -> None:
        if field in self.rows:
            self.rows[field].show_value(self._draft.value(field))


def in_plain_words(spec: FieldSpec, message: str) -> str:
    """A sentence for a number out of bounds; job.py's own words for anything else."""
    if spec.kind not in ("whole", "number") or "input should be" not in message:
        return message[:1].upper() + message[1:] + ("" if message.endswith((".", "?")) else ".")
    kind = _tr("Give a whole number") if spec.kind == "whole" else _tr("Give a number")
    low, high = _shown(spec.minimum), _shown(spec.maximum)
    if low and high and spec.above:
        return _tr("{kind} above {low} and up to {high}.").format(kind=kind, low=low, high=high)
    if low and high:
        return _tr("{kind} from {low} to {high}.").format(kind=kind, low=low, high=high)
    return f"{kind}."


def form_grid() -> QGridLayout:
    """The grid that form rows share: label, input, unit, help or error."""
    grid = QGridLayout()
    grid.setHorizontalSpacing(COLUMN_GAP)
    grid.setVerticalSpacing(8)
    grid.setColumnMinimumWidth(0, LABEL_WIDTH)
    grid.setColumnMinimumWidth(1, INPUT_WIDTH)
    grid.setColumnMinimumWidth(2, UNIT_WIDTH)
    grid.setColumnStretch(3, 1)
    return grid


def heading(text: str) -> QLabel:
    label = secondary_label(text)
    label.setMinimumHeight(28)
    return label


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _names(text: str, spec: FieldSpec) -> str | list[str] | list[int]:
    if text.strip() in spec.choices:
        return text.strip()
    parts = [name.strip() for name in text.split(",") if name.strip()]
    if spec.kind == "places" and all(_PLACES.fullmatch(part) for part in parts):
        return [place for part in parts for place in _range(part)]
    return parts


def _range(text: str) -> range:
    """The places that "8-15" or "3" means; a range of millions is a slip."""
    first, _, last = (part.strip() for part in text.partition("-"))
    return range(int(first), min(int(last or first), int(first) + MOST_PLACES) + 1)


def _shown(limit: float | None) -> str:
    if limit is None:
        return ""
    whole = float(limit).is_integer()
    return integer(int(limit)) if whole else f"{limit:g}"


def _tr(text: str) -> str:
    return QCoreApplication.translate("FormRow", text)
