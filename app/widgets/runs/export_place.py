"""The third step of the export wizard: where to, and whether to check the result afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QVBoxLayout,
    QWidget,
    QWizardPage,
)

from app import i18n
from app.background import Latest
from app.models.export_sources import fresh_folder, is_free
from app.widgets import figures
from app.widgets.card import Card, ErrorLabel, SecondaryButton, plain_label, secondary_label
from app.widgets.inputs import JobTextEdit
from training_backend.computer import drive, ram
from training_backend.computer.drive import Drive
from training_backend.export.needs import Needs
from training_backend.job import MOST_QUESTIONS, is_on_network
from training_backend.paths import unfinished_bytes

LOOK_AFTER_MS = 300  # of typing


class PlaceStep(QWizardPage):
    """The folder with the room on its drive, live; below it the check and its questions."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setTitle(self.tr("Where to"))
        self.setSubTitle(self.tr("Export makes a new folder and leaves the run as it is."))
        self.setCommitPage(True)
        self._needs: Needs | None = None
        self._in_parts = False
        self._drive: Drive | None = None
        self._unfinished = 0  # bytes of an interrupted export that this one goes on with
        self._found = Latest(self)
        self._looked_at = Path()
        self._name = ""
        self.folder = QLineEdit()
        self.folder.setObjectName("exportFolderEdit")
        self.folder.setAccessibleName(self.tr("Output folder"))
        self.browse = SecondaryButton(self.tr("Choose folder"))
        self.browse.clicked.connect(self._browse)
        self._error = ErrorLabel("error_export_out")
        self._room = secondary_label(wrap=True)
        self._room.setObjectName("exportRoom")
        self._pause = QTimer(self, singleShot=True, interval=LOOK_AFTER_MS)
        self._pause.timeout.connect(self._look)
        self.folder.textChanged.connect(self._on_typed)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self.folder, 1)
        row.addWidget(self.browse)
        layout = QVBoxLayout(self)
        layout.setSpacing(4)
        layout.addWidget(plain_label(self.tr("Output folder")))
        layout.addLayout(row)
        layout.addWidget(self._error)
        layout.addWidget(self._room)
        layout.addSpacing(16)
        layout.addWidget(self._check_card())
        layout.addStretch(1)

    def propose(self, name: str) -> None:
        """A fresh folder for this name, unless the person chose one."""
        self._name = name
        if not self.folder.isModified():
            self.folder.setText(str(fresh_folder(name)))

    def show_needs(
        self, needs: Needs | None, check_needs: Needs | None, *, in_parts: bool = False
    ) -> None:
        """What the export takes; the second with its check, whether or not it is asked for.

        Args:
            in_parts: whether the result could be split into shorter files.
        """
        self._needs, self._in_parts = needs, in_parts
        self._show_room()
        self._show_check(check_needs)
        self._pause.start(0)

    def out(self) -> Path:
        return Path(self.folder.text().strip()).expanduser()

    def fields(self) -> dict[str, Any]:
        """What the choices here mean for an `ExportJob`."""
        lines = self.questions.toPlainText().splitlines()
        asked = tuple(line.strip() for line in lines if line.strip())
        checked = self.check.isChecked()
        return {
            "out": str(self.out()),
            "verify": checked,
            "prompts": asked[:MOST_QUESTIONS] if checked else (),
        }

    def show_problem(self, message: str) -> None:
        self._error.show_error(message)

    def validatePage(self) -> bool:
        text = self.folder.text().strip()
        problem = ""
        if not text or not self.out().is_absolute():
            problem = self.tr("Write the whole path of a folder.")
        elif not is_on_network(text) and not is_free(self.out()):
            problem = self.tr("This folder is not empty. Choose a new or an empty one.")
        elif self._is_looked_at():
            problem = self._room_problem()
        self.show_problem(problem)
        return not problem

    # ----------------------------------------------------------------------------- room and memory

    def _on_typed(self) -> None:
        self.show_problem("")
        self._found.forget()  # of the folder that stood there before
        self._pause.start()

    def _look(self) -> None:
        place = self.out()
        if not place.is_absolute():
            return

        def look() -> tuple[Drive, int]:
            there = drive.of(place)
            return there, 0 if there.free_bytes is None else unfinished_bytes(place)

        def found(seen: tuple[Drive, int]) -> None:
            (self._drive, self._unfinished), self._looked_at = seen, place
            self._show_room()

        self._found.ask(look, found, self._on_no_drive)

    def _on_no_drive(self, error: Exception) -> None:
        self._drive = None
        self._room.setText("")
        self.show_problem(i18n.explain(error))

    def _is_looked_at(self) -> bool:
        return self._drive is not None and self._looked_at == self.out()

    def _needed(self, needs: Needs) -> int:
        """Bytes beside what lies there unfinished, which is kept or makes room."""
        return max(0, needs.disk_bytes - self._unfinished)

    def _room_problem(self) -> str:
        """Why the result cannot be there, or nothing."""
        there, needs = self._drive, self._needs
        if there is None or needs is None:
            return ""
        if there.free_bytes is not None and there.free_bytes < self._needed(needs):
            return self.tr(
                "There is not enough room on {drive}: it takes {needed} meanwhile, and {free} are "
                "free. Free some, or choose a folder on another drive."
            ).format(
                drive=there.name,
                needed=i18n.size(self._needed(needs)),
                free=i18n.size(there.free_bytes),
            )
        longest = there.largest_file_bytes
        if longest is not None and needs.largest_file_bytes > longest:
            words = self.tr(
                "The drive {drive} (FAT32) holds no file longer than 4 GB. Choose another drive."
            )
            if self._in_parts:
                words = self.tr(
                    "The drive {drive} (FAT32) holds no file longer than 4 GB. Choose another "
                    "drive, or go back and set the longest file to 4 under “More options”."
                )
            return words.format(drive=there.name)
        return ""

    def _show_room(self) -> None:
        there, needs = self._drive, self._needs
        if there is None:
            self._room.setText("")
            return
        problem = self._room_problem()
        self.show_problem(problem)
        texts = []
        if there.free_bytes is None:
            texts.append(self.tr("How much room there is will show when the export begins."))
        elif not problem:
            free = i18n.size(there.free_bytes)
            words = self.tr("{free} are free on {drive}.")
            if needs is not None:
                words = self.tr("Takes up to {needed} of the {free} that are free on {drive}.")
            needed = i18n.size(self._needed(needs)) if needs is not None else ""
            texts.append(words.format(needed=needed, free=free, drive=there.name))
        if self._unfinished:
            texts.append(
                self.tr("{size} of an export that was cut off lie there already.").format(
                    size=i18n.size(self._unfinished)
                )
            )
        if there.network:
            texts.append(
                self.tr("It is another computer's folder: slower, and gone if the network is.")
            )
        self._room.setText(" ".join(texts))

    def _show_check(self, needs: Needs | None) -> None:
        about = self.tr(
            "Asks the result and the trained model the same questions, and compares what they "
            "answer."
        )
        if needs is not None and needs.proof_ram_bytes:
            about += " " + self.tr("Takes about {time} and {memory} of memory.").format(
                time=figures.duration(needs.proof_seconds),
                memory=figures.gigabytes(needs.proof_ram_bytes),
            )
            free = ram.read().available_bytes
            if needs.proof_ram_bytes > free:
                about += " " + self.tr(
                    "Only {free} are free: the verdict will likely be “not proven”."
                ).format(free=figures.gigabytes(free))
        self._about_check.setText(about)

    # --------------------------------------------------------------------------------- the widgets

    def _check_card(self) -> Card:
        card = Card()
        self.check = QCheckBox(self.tr("Check that the result answers as the trained model does"))
        self.check.setObjectName("exportCheckBox")
        self.check.setAccessibleName(self.check.text())
        self.check.setChecked(True)
        self._about_check = secondary_label(wrap=True)
        words = self.tr("Your own questions, one a line, up to {count}")
        title = plain_label(words.format(count=MOST_QUESTIONS))
        self.questions = JobTextEdit()
        self.questions.setObjectName("exportQuestions")
        self.questions.setAccessibleName(title.text())
        self.questions.setTabChangesFocus(True)
        self.questions.setFixedHeight(84)
        self.questions.setPlaceholderText(
            self.tr("May stay empty: rows of the data that training did not see are asked too.")
        )
        title.setBuddy(self.questions)
        self.check.toggled.connect(self.questions.setEnabled)
        for part in (self.check, self._about_check, title, self.questions):
            card.body.addWidget(part)
        return card

    def _browse(self) -> None:
        chosen = QFileDialog.getExistingDirectory(
            self, self.tr("Output folder"), str(self.out().parent)
        )
        if chosen:
            self.take(Path(chosen))

    def take(self, chosen: Path) -> None:
        """A folder that was picked; in one that holds things already, a new one is proposed."""
        folder = chosen if is_free(chosen) else fresh_folder(self._name, chosen)
        self.folder.setText(str(folder))
        self.folder.setModified(True)
