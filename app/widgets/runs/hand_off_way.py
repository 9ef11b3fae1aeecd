"""How one program gets an export: by a button where it can be done here, and as commands."""

from __future__ import annotations

from typing import Any, Literal

from PySide6.QtCore import QCoreApplication, Signal
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QVBoxLayout,
    QWidget,
)

from app.i18n import explain
from app.widgets.actions import set_primary
from app.widgets.card import (
    ErrorLabel,
    SecondaryButton,
    card_title,
    plain_label,
    scroll_area,
    secondary_label,
)
from app.widgets.command_box import CommandBox
from training_backend.errors import UserError, from_document

Shell = Literal["posix", "powershell"]
PARTS = 1_000


class WayView(QWidget):
    """One of the programs.

    Args:
        way: an entry of `programs` in what the helper says of an export.
        name: proposed for the model.
        can_give: whether this window can do it, where the program is installed.
    """

    give_requested = Signal(str)  # the name
    cancel_requested = Signal()

    def __init__(
        self, way: dict[str, Any], name: str, can_give: bool, shell: Shell,
        parent: QWidget | None = None,
    ) -> None:  # fmt: skip
        super().__init__(parent)
        self.program: str = way["program"]
        self._way = way
        self._named = name
        self._shell = shell
        self._boxes: list[CommandBox] = []
        content = QWidget()
        content.setObjectName("scrolled")
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 8, 0)
        column.setSpacing(8)
        column.addWidget(card_title(way["title"]))
        column.addWidget(secondary_label(_about(self.program), wrap=True))
        column.addSpacing(4)
        if can_give:
            column.addWidget(self._giving(name))
            column.addSpacing(8)
        for note in way["notes"]:
            column.addWidget(plain_label(explain(from_document(note)), wrap=True))
        if way["commands"]:
            if can_give:
                column.addSpacing(8)
                column.addWidget(card_title(self.tr("Or in a terminal")))
            for one in way["commands"]:
                box = CommandBox(_does(self.program, one["does"]), one[shell])
                box.setObjectName(f"command_{self.program}_{one['does']}")
                self._boxes.append(box)
                column.addWidget(box)
        column.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scroll_area(content))

    def set_shell(self, shell: Shell) -> None:
        self._shell = shell
        for box, one in zip(self._boxes, self._way["commands"], strict=True):
            box.set_command(one[shell])

    def rename(self, name: str) -> None:
        """The commands are for a model of this name from now on; one that Ollama takes."""
        for one in self._way["commands"]:
            for shell in ("posix", "powershell"):  # it comes before all paths, and unquoted
                one[shell] = one[shell].replace(f" {self._named}", f" {name}", 1)
        self._named = name
        self.set_shell(self._shell)

    # --------------------------------------------------------------------- doing it from here

    def begin(self) -> None:
        self._error.show_error("")
        self._say("")
        self._bar.setRange(0, 0)
        self._set_busy(True)

    def show_progress(self, told: dict[str, Any]) -> None:
        share = told["share"]
        self._bar.setRange(0, PARTS if share is not None else 0)
        self._bar.setValue(round((share or 0) * PARTS))
        self._say(told["words"])

    def show_done(self, said: str) -> None:
        self._set_busy(False)
        self._say(said)
        self._status.setProperty("role", "good")
        self._status.style().polish(self._status)

    def show_cancelled(self) -> None:
        self._set_busy(False)
        self._say(self.tr("Cancelled."))

    def show_error(self, error: Exception) -> None:
        self._set_busy(False)
        self._say("")
        self._error.show_error(explain(error))
        if isinstance(error, UserError) and error.field == "name":
            self._name.setFocus()
            self._name.selectAll()

    def _giving(self, name: str) -> QWidget:
        part = QWidget()
        column = QVBoxLayout(part)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        self._found = bool(self._way["found"])
        self._name = QLineEdit(name)
        self._name.setObjectName(f"name_{self.program}")
        self._name.setAccessibleName(self.tr("Name of the model"))
        self._give = SecondaryButton(_give(self.program))
        self._give.setObjectName(f"give_{self.program}")
        set_primary(self._give, True)
        self._give.clicked.connect(lambda: self.give_requested.emit(self._name.text().strip()))
        self._name.returnPressed.connect(self._give.click)
        self._cancel = SecondaryButton(self.tr("Cancel"))
        self._cancel.setObjectName(f"cancelGive_{self.program}")
        self._cancel.clicked.connect(self.cancel_requested)
        label = plain_label(self.tr("Name"))
        label.setBuddy(self._name)
        row = QHBoxLayout()
        row.setSpacing(8)
        for widget in (label, self._name):  # LM Studio shows the file's own
            widget.setVisible(self.program == "ollama")
            row.addWidget(widget, 1 if widget is self._name else 0)
        row.addWidget(self._give)
        row.addWidget(self._cancel)
        row.addStretch(0 if self.program == "ollama" else 1)
        column.addLayout(row)
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._bar.setAccessibleName(self.tr("How far it is"))
        self._status = self._line()
        self._error = ErrorLabel(f"error_{self.program}")
        column.addWidget(self._bar)
        column.addWidget(self._status)
        column.addWidget(self._error)
        self._set_busy(False)
        self._say(_where(self.program, self._way["found"]))
        return part

    def _line(self) -> QLabel:
        line = secondary_label(wrap=True)
        line.setObjectName(f"status_{self.program}")
        return line

    def _say(self, text: str) -> None:
        if self._status.property("role") != "secondary":
            self._status.setProperty("role", "secondary")
            self._status.style().polish(self._status)
        self._status.setText(text)
        self._status.setVisible(bool(text))

    def _set_busy(self, busy: bool) -> None:
        self._name.setEnabled(self._found and not busy)
        self._give.setEnabled(self._found and not busy)
        self._give.setVisible(not busy)
        self._cancel.setVisible(busy)
        self._bar.setVisible(busy)


def _about(program: str) -> str:
    tr = QCoreApplication.translate
    return {
        "ollama": tr("WayView", "Runs models on your own computer, for a terminal and for apps."),
        "lm_studio": tr("WayView", "A window to chat with models on your own computer."),
        "llama_cpp": tr(
            "WayView", "The engine in Ollama and LM Studio, without a window of its own."
        ),
        "vllm": tr("WayView", "Serves models to many at once, on a Linux computer with a GPU."),
        "tgi": tr("WayView", "Hugging Face's server, in Docker, on a computer with a GPU."),
    }[program]


def _does(program: str, does: str) -> str:
    tr = QCoreApplication.translate
    texts = {
        ("ollama", "create"): tr("WayView", "Give it to Ollama"),
        ("ollama", "chat"): tr("WayView", "Then chat with it"),
        ("lm_studio", "create"): tr("WayView", "Put a copy among its models"),
        ("llama_cpp", "chat"): tr("WayView", "Chat with it"),
        ("llama_cpp", "serve"): tr("WayView", "Serve it, also as a page on http://127.0.0.1:8080"),
        ("vllm", "serve"): tr("WayView", "Serve it as an OpenAI API on http://127.0.0.1:8000/v1"),
        ("tgi", "serve"): tr("WayView", "Serve it as an OpenAI API on http://127.0.0.1:8080/v1"),
    }
    return texts[program, does]


def _give(program: str) -> str:
    tr = QCoreApplication.translate
    if program == "ollama":
        return tr("WayView", "Add to Ollama")
    return tr("WayView", "Add to LM Studio")


def _where(program: str, found: str) -> str:
    """Where the program is, or where it is to be had."""
    tr = QCoreApplication.translate
    if program == "ollama" and not found:
        return tr(
            "WayView",
            "Ollama was not found on this computer. Get it from ollama.com, then open this again.",
        )
    if not found:
        return tr(
            "WayView",
            "LM Studio was not found on this computer. Get it from lmstudio.ai, start it once, "
            "then open this again.",
        )
    if program == "lm_studio":
        return tr("WayView", "Its models are in {folder}").format(folder=found)
    return ""
