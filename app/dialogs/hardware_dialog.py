"""What this computer has and what works on it, behind one click; and which card trains."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QT_TRANSLATE_NOOP, QCoreApplication, Qt, QTimer, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import (
    QDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QVBoxLayout,
    QWidget,
)

from app.background import Latest
from app.i18n import explain
from app.widgets.card import (
    CARD_GAP,
    Card,
    ErrorLabel,
    PrimaryButton,
    SecondaryButton,
    plain_label,
    scroll_area,
    secondary_label,
)
from app.widgets.inputs import SteadyComboBox
from training_backend import preferences
from training_backend.computer import doctor
from training_backend.computer.doctor_text import Row, Section, as_text, sections

COPIED_FOR_MS = 2000
LABEL_WIDTH = 120

_ROLES = {"": "secondary", "good": "good", "careful": "careful", "bad": "error"}
# The words of `doctor_text`, for translation.
_WORDS = (
    QT_TRANSLATE_NOOP("Hardware", "To look at"),
    QT_TRANSLATE_NOOP("Hardware", "Graphics card"),
    QT_TRANSLATE_NOOP("Hardware", "Computer"),
    QT_TRANSLATE_NOOP("Hardware", "What would work here"),
    QT_TRANSLATE_NOOP("Hardware", "Recommended"),
    QT_TRANSLATE_NOOP("Hardware", "Packages"),
    QT_TRANSLATE_NOOP("Hardware", "Problem"),
    QT_TRANSLATE_NOOP("Hardware", "Note"),
    QT_TRANSLATE_NOOP("Hardware", "Yes"),
    QT_TRANSLATE_NOOP("Hardware", "No"),
    QT_TRANSLATE_NOOP("Hardware", "Driver"),
    QT_TRANSLATE_NOOP("Hardware", "Processor"),
    QT_TRANSLATE_NOOP("Hardware", "Memory"),
    QT_TRANSLATE_NOOP("Hardware", "Swap"),
    QT_TRANSLATE_NOOP("Hardware", "Disk"),
    QT_TRANSLATE_NOOP("Hardware", "Models"),
    QT_TRANSLATE_NOOP("Hardware", "System"),
    QT_TRANSLATE_NOOP("Hardware", "Program"),
    QT_TRANSLATE_NOOP("Hardware", "Demo model"),
    QT_TRANSLATE_NOOP("Hardware", "Size"),
    QT_TRANSLATE_NOOP("Hardware", "Hugging Face Hub"),
    QT_TRANSLATE_NOOP("Hardware", "Connection"),
)


class HardwareDialog(QDialog):
    """The rows of `doctor`, with the choice of the card where there are several.

    The computer is looked at in a thread; `card_chosen` says that another card trains from the
    next run on.
    """

    card_chosen = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("hardwareDialog")
        self.setWindowTitle(self.tr("This computer"))
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._report: dict[str, Any] | None = None
        self._found, self._keeping = Latest(self), Latest(self)
        self._card = ""  # that was chosen here

        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 16, 16, 16)
        layout.setSpacing(16)
        self._error = ErrorLabel("error_hardware")
        layout.addWidget(self._error)
        self._cards = QVBoxLayout()
        self._cards.setContentsMargins(0, 0, 12, 0)  # room for the scroll bar
        self._cards.setSpacing(CARD_GAP)
        self._cards.addWidget(secondary_label(self.tr("Looking at this computer…")))
        self._cards.addStretch(1)
        scrolled = QWidget()
        scrolled.setObjectName("scrolled")
        scrolled.setLayout(self._cards)
        area = scroll_area(scrolled)
        area.setFocusPolicy(Qt.FocusPolicy.StrongFocus)  # the arrow keys scroll
        area.setAccessibleName(self.tr("What this computer has"))
        layout.addWidget(area, 1)
        layout.addLayout(self._buttons())
        self.resize(720, 640)
        self.look()

    def look(self) -> None:
        """Look at the computer anew."""
        self._again.setEnabled(False)
        self._found.ask(doctor.report, self._show, self._on_error)

    def _buttons(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(8)
        self._again = SecondaryButton(self.tr("Look again"))
        self._again.clicked.connect(self.look)
        self._copy = SecondaryButton(self.tr("Copy"))
        self._copy.setObjectName("hardwareCopy")
        self._copy.setAccessibleName(self.tr("Copy all of this as text"))
        self._copy.setEnabled(False)
        self._copy.clicked.connect(self._copy_text)
        close = PrimaryButton(self.tr("Close"))
        close.clicked.connect(self.accept)
        close.setDefault(True)
        row.addWidget(self._again)
        row.addWidget(self._copy)
        row.addStretch(1)
        row.addWidget(close)
        return row

    # ---------------------------------------------------------------------------- what is shown

    def _show(self, report: dict[str, Any]) -> None:
        self._report = report
        self._again.setEnabled(True)
        self._copy.setEnabled(True)
        self._error.show_error("")
        while (item := self._cards.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        for section in sections(report):
            card = _card(section)
            if section.title == "Graphics card":
                self._add_choice(card, report)
            self._cards.addWidget(card)
        self._cards.addStretch(1)

    def _add_choice(self, card: Card, report: dict[str, Any]) -> None:
        """Which card trains, where more than one can."""
        pairs = zip(report["hardware"]["gpus"], report["cards"], strict=True)
        usable = [(gpu, verdict) for gpu, verdict in pairs if not verdict["problem"]]
        if len(usable) < 2:
            return
        choice = SteadyComboBox()
        choice.setObjectName("cardCombo")
        choice.setAccessibleName(self.tr("Card for training"))
        for gpu, verdict in usable:
            title = self.tr("GPU {number}: {name}")
            choice.addItem(title.format(number=gpu["index"], name=gpu["name"]), gpu["uuid"])
            if verdict["chosen"]:
                choice.setCurrentIndex(choice.count() - 1)
        choice.activated.connect(lambda _: self._choose(str(choice.currentData())))
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(secondary_label(self.tr("Train on")))
        row.addWidget(choice, 1)
        card.body.insertLayout(0, row)
        note = self.tr("Holds from the next run on; a run under way stays on its card.")
        card.body.insertWidget(1, secondary_label(note, wrap=True))

    def _on_error(self, error: Exception) -> None:
        self._again.setEnabled(True)
        self._error.show_error(explain(error))

    # ----------------------------------------------------------------------------- what is done

    def _choose(self, uuid: str) -> None:
        self._card = uuid

        def save() -> None:
            preferences.change(lambda: {"gpu": self._card})

        self._keeping.ask(save, lambda _: self._on_chosen(), self._on_error)

    def _on_chosen(self) -> None:
        self.card_chosen.emit()
        self.look()

    def _copy_text(self) -> None:
        assert self._report is not None
        QGuiApplication.clipboard().setText(as_text(self._report))
        self._copy.setText(self.tr("Copied"))
        QTimer.singleShot(COPIED_FOR_MS, self, lambda: self._copy.setText(self.tr("Copy")))


def _card(section: Section) -> Card:
    card = Card(_tr(section.title))
    grid = QGridLayout()
    grid.setHorizontalSpacing(16)
    grid.setVerticalSpacing(4)
    grid.setColumnMinimumWidth(0, LABEL_WIDTH)
    grid.setColumnStretch(1, 1)
    for number, row in enumerate(section.rows):
        label, text = _labels(row)
        grid.addWidget(label, number, 0, Qt.AlignmentFlag.AlignTop)
        grid.addWidget(text, number, 1)
    card.body.addLayout(grid)
    return card


def _labels(row: Row) -> tuple[QLabel, QLabel]:
    label = plain_label(_tr(row.label) if row.label else "")
    label.setProperty("role", _ROLES[row.tone])
    text = plain_label(row.text, wrap=True)
    text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    text.setAccessibleName(f"{label.text()} {row.text}".strip())
    if not row.label:  # it goes on with the row above
        text.setProperty("role", "secondary")
    return label, text


def _tr(text: str) -> str:
    return QCoreApplication.translate("Hardware", text)
