"""What is known of the chosen model, and how much memory training it would take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QCoreApplication, Signal
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QWidget

from app.desks.model_finder import FitFigures
from app.i18n import integer, size
from app.widgets import figures
from app.widgets.card import (
    Card,
    ElidedLabel,
    QuietButton,
    plain_tool_tip,
    secondary_label,
)
from training_backend.models.catalog_entry import CatalogEntry

if TYPE_CHECKING:
    from training_backend.vram import Fit


class ModelDetails(Card):
    """Shows one entry, or that there is none."""

    licence_requested = Signal(str)  # the model's id on the Hub
    drop_adapter_requested = Signal()
    other_requested = Signal(str)  # the id of a model to take instead

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self._id = ""
        self._name = ElidedLabel()
        self._name.setFont(self.title.font())
        self._licence_page = QuietButton(self.tr("Open the model's page"))
        self._licence_page.setObjectName("modelLicencePage")
        self._licence_page.clicked.connect(lambda: self.licence_requested.emit(self._id))
        head = QHBoxLayout()
        head.setSpacing(16)
        head.addWidget(self._name, 1)
        head.addWidget(self._licence_page)
        self.body.addLayout(head)
        self._values: dict[str, QLabel] = {}
        self.body.addLayout(self._grid())
        self._description = ElidedLabel()
        self._description.setProperty("role", "secondary")
        self.body.addWidget(self._description)
        self.body.addWidget(self._adapter_row())
        self.body.addWidget(self._instead_row())
        self.show_entry(None)

    def show_entry(self, entry: CatalogEntry | None) -> None:
        """Show what is known; None says that no usable model is chosen."""
        unknown = self.tr("not known")
        self._id = entry.id if entry else ""
        self._name.setText(entry.title if entry else self.tr("No usable model is chosen"))
        on_hub = entry is not None and entry.source in ("cache", "catalogue", "hub")
        self._licence_page.setVisible(on_hub)
        self._licence_page.setToolTip(self.tr("Opens the browser: licence, terms, access"))
        if entry is None:
            for label in self._values.values():
                label.setText("–")
            self._description.setText("")
            return
        context = entry.context_length
        template = {True: self.tr("knows chats"), False: self.tr("plain text only")}
        where = str(entry.location) if entry.location else self.tr("not on this computer yet")
        texts = {
            "parameters": figures.millions(entry.parameters) if entry.parameters else unknown,
            "size": size(entry.size_bytes) if entry.size_bytes else unknown,
            "licence": entry.licence or unknown,
            "context": self.tr("{count} tokens").format(count=integer(context))
            if context
            else unknown,
            "template": unknown if entry.chat_template is None else template[entry.chat_template],
            "location": where,
        }
        for key, text in texts.items():
            self._values[key].setText(text)
        if entry.licence_note:
            self._values["licence"].setToolTip(plain_tool_tip(entry.licence_note))
        self._description.setText(entry.description)

    def show_fit(self, found: FitFigures | None) -> None:
        """What training takes on this machine, or that nobody knows yet."""
        label = self._values["fit"]
        if found is None:
            label.setText(self.tr("not known"))
            label.setToolTip("")
            return
        small = _with_fit(self.tr("{amount} in 4-bit"), *found.in_4bit)
        text = f"{small}, {_with_fit(self.tr('{amount} in 16-bit'), *found.in_16bit)}"
        label.setText(text if found.exact else self.tr("about {text}").format(text=text))
        about = self.tr("of {free} free on {device}, at the settings as they are")
        note = about.format(free=figures.gigabytes(found.available), device=found.device)
        label.setToolTip(plain_tool_tip(f"{label.text()}, {note}"))

    def show_adapter(self, name: str, folder: str) -> None:
        """The adapter that training goes on from; "" for none."""
        self._adapter.setVisible(bool(name))
        self._adapter_text.setText(
            self.tr("Trains on from the adapter {name}").format(name=name) if name else ""
        )
        self._adapter_text.setToolTip(plain_tool_tip(folder) if folder else "")

    def offer_instead(self, other: CatalogEntry | None) -> None:
        """A model to take in place of one that cannot be trained."""
        self._instead.setVisible(other is not None)
        if other is not None:
            self._instead_id = other.id
            text = self.tr("The nearest model that can be trained is {name}.")
            self._instead_text.setText(text.format(name=other.title))

    # ------------------------------------------------------------------------------- the parts

    def _grid(self) -> QGridLayout:
        grid = QGridLayout()
        grid.setHorizontalSpacing(24)
        grid.setVerticalSpacing(2)
        rows = (
            (
                ("parameters", self.tr("Parameters"), 1),
                ("size", self.tr("Size"), 1),
                ("licence", self.tr("Licence"), 1),
                ("context", self.tr("Longest text"), 1),
                ("template", self.tr("Chat template"), 1),
            ),
            (
                ("fit", self.tr("Memory with these settings"), 2),
                ("location", self.tr("Where it is"), 3),
            ),
        )
        for number, row in enumerate(rows):
            column = 0
            for key, title, span in row:
                value = ElidedLabel("–")
                value.setObjectName(f"model_{key}")
                self._values[key] = value
                grid.addWidget(secondary_label(title), 3 * number, column, 1, span)
                grid.addWidget(value, 3 * number + 1, column, 1, span)
                column += span
        grid.setRowMinimumHeight(2, 4)
        for column in range(5):
            grid.setColumnStretch(column, 1)
        return grid

    def _adapter_row(self) -> QWidget:
        self._adapter = QWidget()
        row = QHBoxLayout(self._adapter)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        self._adapter_text = ElidedLabel()
        self._adapter_text.setProperty("role", "accent")
        self._adapter_text.setObjectName("modelAdapter")
        drop = QuietButton(self.tr("✕ Start without it"))
        drop.setObjectName("modelDropAdapter")
        drop.setAccessibleName(self.tr("Start without the adapter"))
        drop.clicked.connect(self.drop_adapter_requested)
        row.addWidget(self._adapter_text)
        row.addWidget(drop)
        row.addStretch(1)
        self._adapter.hide()
        return self._adapter

    def _instead_row(self) -> QWidget:
        self._instead = QWidget()
        self._instead_id = ""
        row = QHBoxLayout(self._instead)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        self._instead_text = ElidedLabel()
        take = QuietButton(self.tr("Take it instead"))
        take.setObjectName("modelTakeInstead")
        take.clicked.connect(lambda: self.other_requested.emit(self._instead_id))
        row.addWidget(self._instead_text)
        row.addWidget(take)
        row.addStretch(1)
        self._instead.hide()
        return self._instead


def _with_fit(words: str, total: int, fit: Fit) -> str:
    """7.4 GB in 4-bit, with a word where that is not comfortable."""
    text = words.format(amount=figures.gigabytes(total))
    if fit == "comfortable":
        return text
    notes = {
        "tight": QCoreApplication.translate("ModelDetails", "tight"),
        "does_not_fit": QCoreApplication.translate("ModelDetails", "does not fit"),
    }
    return f"{text} ({notes[fit]})"
