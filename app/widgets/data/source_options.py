"""How a source is read: what was found out about it, each of it changeable."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from PySide6.QtCore import QCoreApplication, QSignalBlocker
from PySide6.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from app.draft import READING, JobDraft
from app.i18n import integer, size
from app.widgets.card import ErrorLabel, plain_tool_tip, secondary_label
from app.widgets.data.data_words import form_titles
from app.widgets.flow import FlowRow, labelled
from app.widgets.inputs import SteadyComboBox
from training_backend.data.kinds import plain_suffix
from training_backend.data.mapping import detect
from training_backend.data.roles import guess_roles
from training_backend.data.table import Details, Notice
from training_backend.errors import UserError

Choices = dict[Any, str]  # values of the draft with their titles; the first one is the default
OPTIONS = ("encoding", "delimiter", "sheet", "subset", "split", "format")
MAX_WIDTH = 320
ARROW_WIDTH = 52
LINES = ("csv", "tsv", "jsonl")  # kinds in which one bad line can be left out


class SourceOptions(QWidget):
    """A row of small inputs for whatever applies to the kind of source.

    Where a source cannot be read as it was told to be, what it was told stays to be changed.
    """

    def __init__(self, draft: JobDraft, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._draft = draft
        self._source = 0
        self._details: Details | None = None
        self._columns: tuple[str, ...] = ()
        self._rows: list[dict[str, Any]] = []
        self._lists: tuple[str, ...] = ()
        self._found: str | None = None

        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        flow = FlowRow()
        self._kind = secondary_label()
        self._kind.setObjectName("sourceKind")
        self._kind.setFixedHeight(32)
        flow.add(self._kind)
        layout.addWidget(flow)
        self.errors = QWidget()  # apart, so that they may stand below a wider row
        below = QVBoxLayout(self.errors)
        below.setContentsMargins(0, 0, 0, 0)
        below.setSpacing(4)
        layout.addWidget(self.errors)
        titles = {
            "encoding": self.tr("Encoding"),
            "delimiter": self.tr("Separator"),
            "sheet": self.tr("Sheet"),
            "subset": self.tr("Subset"),
            "split": self.tr("Split"),
            "format": self.tr("Rows"),
        }
        self._combos: dict[str, SteadyComboBox] = {}
        self._parts: dict[str, QWidget] = {}
        self._errors: dict[str, ErrorLabel] = {}
        for name in OPTIONS:
            combo = self._combos[name] = SteadyComboBox()
            combo.setObjectName(f"field_dataset_{name}")
            combo.setAccessibleName(titles[name])
            combo.activated.connect(lambda _, name=name: self._on_chosen(name))
            self._parts[name] = labelled(titles[name], combo)
            flow.add(self._parts[name])
            error = self._errors[name] = ErrorLabel(f"error_dataset_{name}")
            below.addWidget(error)
        self.skip_bad = QCheckBox(self.tr("Leave out bad lines"))
        self.skip_bad.setObjectName("field_dataset_skip_bad_lines")
        self.skip_bad.setAccessibleName(self.tr("Leave out lines that cannot be read"))
        self.skip_bad.setFixedHeight(32)
        self.skip_bad.clicked.connect(
            lambda on: draft.set_source(self._source, {"skip_bad_lines": on})
        )
        flow.add(self.skip_bad)
        draft.changed.connect(self._on_draft_changed)
        self._show()

    def set_table(
        self,
        details: Details | None,
        columns: tuple[str, ...],
        rows: list[dict[str, Any]],
        notices: Iterable[Notice] = (),
    ) -> None:
        """What was found out; None while there is no readable file."""
        self._details, self._columns, self._rows = details, columns, rows
        lists = [n.params for n in notices if n.code == "other_list"]
        self._lists = tuple(lists[0][key] for key in ("taken", "other")) if lists else ()
        try:
            self._found = detect(rows) if rows else None
        except UserError:
            self._found = None
        for error in self._errors.values():
            error.show_error("")
        self._show()

    def set_source(self, index: int) -> None:
        """Which source of a mixture is shown."""
        self._source = index
        self._show()

    def show_problem(self, field: str, message: str) -> bool:
        """Say beside the input what is wrong; False for a field that is none of these."""
        name = field.removeprefix("dataset.")
        if name not in self._errors:
            return False
        self._errors[name].show_error(message)
        self._parts[name].setVisible(self._combos[name].count() > 1)
        return True

    # ---------------------------------------------------------------------------- what is asked

    def _on_chosen(self, name: str) -> None:
        value = self._combos[name].currentData()
        changes = {name: value}
        if name == "format":
            changes["mapping"] = self._mapping() if value == "custom" else None
        self._draft.set_source(self._source, changes)

    def _mapping(self) -> dict[str, Any]:
        """The one that there is, or else a guess to begin with."""
        return self._value("mapping") or {"columns": guess_roles(self._columns, self._rows)}

    def _on_draft_changed(self, field: str) -> None:
        if field.removeprefix("dataset.") in (*READING, "sources"):
            self._show()

    # ---------------------------------------------------------------------------- what is shown

    def _value(self, name: str) -> Any:
        sources = self._draft.sources()
        return sources[min(self._source, len(sources) - 1)].get(name)

    def _show(self) -> None:
        details = self._details
        self._kind.setText(self._kind_text(details) if details else "")
        self._kind.setVisible(details is not None)
        for name, combo in self._combos.items():
            value = self._shown_value(name)
            choices = self._choices(name, details)
            choices.setdefault(value, str(value))
            with QSignalBlocker(combo):
                if [combo.itemData(i) for i in range(combo.count())] != list(choices) or [
                    combo.itemText(i) for i in range(combo.count())
                ] != list(choices.values()):
                    combo.clear()
                    for choice, title in choices.items():
                        combo.addItem(title, choice)
                combo.setCurrentIndex(list(choices).index(value))
            _fit(combo)
            told = value != READING[name]
            self._parts[name].setVisible(told or self._applies(name, details, len(choices)))
        skips = "skip_bad_lines" in READING
        on = bool(self._value("skip_bad_lines"))
        kind = details.kind if details else plain_suffix(str(self._value("path"))).removeprefix(".")
        self.skip_bad.setVisible(skips and (on or kind in LINES))
        self.skip_bad.setChecked(on)

    def _shown_value(self, name: str) -> Any:
        value = self._value(name)
        if name == "format" and self._value("mapping") is not None:
            return "custom"
        if name == "split" and self._details and self._details.split:
            return self._details.split  # the first one where there is no train
        return value

    def _applies(self, name: str, details: Details | None, n_choices: int) -> bool:
        if details is None:
            return False
        if name == "format":
            return True
        if name in ("encoding", "delimiter"):
            return getattr(details, name) is not None
        return n_choices > 2 if name in ("sheet", "subset") else n_choices > 1

    def _choices(self, name: str, details: Details | None) -> Choices:
        found = getattr(details, name, None) if details else None
        if name == "split":
            splits = details.splits if details else ()
            return {split: split for split in splits or ("train",)}
        if name == "format":
            titles: Choices = {str(form): title for form, title in form_titles().items()}
            told = self._value("format") != "auto" or self._value("mapping") is not None
            return {"auto": self._found_text(titles.get(self._found), told), **titles}
        if name == "encoding":
            titles = encoding_titles()
        elif name == "delimiter":
            titles = delimiter_titles()
        else:
            names = (details.sheets if name == "sheet" else details.subsets) if details else ()
            if name == "subset" and not names:
                names = self._lists
                found = names[0] if names else None
            titles = {each: each for each in names}
        default = self._found_text(titles.get(found, found), self._value(name) is not None)
        return {None: default, **titles}

    def _found_text(self, found: str | None, told: bool) -> str:
        """The default's title; what would be found is not known while it is told otherwise."""
        if told:
            return self.tr("Find out")
        if not found:
            return self.tr("No known form")
        return self.tr("{value} (found)").format(value=found.partition(", ")[0])

    def _kind_text(self, details: Details) -> str:
        kinds = {
            "jsonl": self.tr("JSON lines"),
            "json": self.tr("JSON"),
            "csv": self.tr("CSV"),
            "parquet": self.tr("Parquet"),
            "xlsx": self.tr("Excel"),
            "text": self.tr("Text"),
            "markdown": self.tr("Markdown"),
            "folder": self.tr("Folder of {count} files").format(count=integer(len(details.files))),
            "saved_dataset": self.tr("Saved dataset"),
            "hub": self.tr("Hub dataset"),
        }
        kind = kinds.get(details.kind, details.kind)
        if details.compressed:
            kind = self.tr("{kind}, packed with gzip").format(kind=kind)
        if details.size_bytes is not None:
            kind = f"{kind}, {size(details.size_bytes)}"
        return kind


def _fit(combo: SteadyComboBox) -> None:
    """As wide as what is chosen; the list as wide as all there is to choose."""
    text = combo.fontMetrics().horizontalAdvance(combo.currentText())
    combo.setFixedWidth(min(MAX_WIDTH, text + ARROW_WIDTH))
    combo.view().setMinimumWidth(combo.view().sizeHintForColumn(0) + 24)
    combo.setToolTip(plain_tool_tip(combo.currentText()) if text + ARROW_WIDTH > MAX_WIDTH else "")


def encoding_titles() -> Choices:
    """Usual encodings by Python's names, in the order in which they are likely."""
    return {
        "utf-8": "UTF-8",
        "utf-16": "UTF-16",
        "cp1252": _tr("Windows-1252, Western European"),
        "iso8859-1": _tr("Latin-1, Western European"),
        "cp1250": _tr("Windows-1250, Central European"),
        "cp1251": _tr("Windows-1251, Cyrillic"),
        "koi8_r": _tr("KOI8-R, Cyrillic"),
        "cp1253": _tr("Windows-1253, Greek"),
        "cp1254": _tr("Windows-1254, Turkish"),
        "cp1255": _tr("Windows-1255, Hebrew"),
        "cp1256": _tr("Windows-1256, Arabic"),
        "gb18030": _tr("GB 18030, Chinese"),
        "big5": _tr("Big5, Chinese"),
        "cp932": _tr("Shift JIS, Japanese"),
        "euc_jp": _tr("EUC, Japanese"),
        "cp949": _tr("CP949, Korean"),
    }


def _tr(text: str) -> str:
    return QCoreApplication.translate("SourceOptions", text)


def delimiter_titles() -> Choices:
    """What may separate the columns of a CSV file."""
    return {
        ",": _tr("Comma"), ";": _tr("Semicolon"), "\t": _tr("Tab"), "|": _tr("Vertical bar"),
    }  # fmt: skip
