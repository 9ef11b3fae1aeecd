"""The steps of the export wizard."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QPlainTextEdit,
    QRadioButton,
    QVBoxLayout,
    QWidget,
    QWizardPage,
)

from app import theme
from app.models.export_sources import ExportSource, fresh_folder, is_free
from app.widgets import figures, wording
from app.widgets.actions import open_folder
from app.widgets.card import ErrorLabel, SecondaryButton, plain_label, secondary_label
from app.widgets.inputs import SteadyComboBox
from app.widgets.runs.export_progress import ExportProgress
from training_backend.job import GGUF_BITS, ExportFormat, GgufQuantization

_LOAD_MODEL = """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained({folder!r})
tokenizer = AutoTokenizer.from_pretrained({folder!r})
"""
_LOAD_ADAPTER = """from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained({folder!r})
"""
_LOAD_GGUF = 'llama-server -m "{folder}"\n'


class SourceStep(QWizardPage):
    """Which run, and from which of its checkpoints."""

    def __init__(self, sources: list[ExportSource], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setTitle(self.tr("What to export"))
        self.setSubTitle(self.tr("A run, as it was at its end or at one of its checkpoints."))
        self._sources = sources
        self.runs = SteadyComboBox()
        self.runs.setObjectName("exportRunCombo")
        self.runs.setAccessibleName(self.tr("Run"))
        for source in sources:
            summary = source.summary
            self.runs.addItem(
                f"{wording.one_line(summary.name)}  ({figures.clock(summary.created)})"
            )
        self.checkpoints = SteadyComboBox()
        self.checkpoints.setObjectName("exportCheckpointCombo")
        self.checkpoints.setAccessibleName(self.tr("State of the run"))
        self._about = secondary_label(wrap=True)
        layout = QVBoxLayout(self)
        layout.setSpacing(4)
        for name, box in ((self.tr("Run"), self.runs), (self.tr("State"), self.checkpoints)):
            layout.addWidget(plain_label(name))
            layout.addWidget(box)
            layout.addSpacing(8)
        layout.addWidget(self._about)
        layout.addStretch(1)
        self.runs.currentIndexChanged.connect(self._show_run)
        self._show_run(self.runs.currentIndex())

    def choose(self, run_id: str) -> None:
        for index, source in enumerate(self._sources):
            if source.run.id == run_id:
                self.runs.setCurrentIndex(index)

    def source(self) -> ExportSource:
        return self._sources[self.runs.currentIndex()]

    def checkpoint(self) -> str | None:
        """The name of a checkpoint's folder; None for the end of the run."""
        chosen = self.checkpoints.currentData()
        return str(chosen) if chosen else None

    def _show_run(self, index: int) -> None:
        if index < 0:
            return
        source = self._sources[index]
        self.checkpoints.clear()
        if source.finished:
            end = self.tr("the end of the training")
            if source.kept_step is not None:
                end = self.tr("what was kept: step {step}, the best")
            self.checkpoints.addItem(end.format(step=figures.count(source.kept_step or 0)), "")
        for name in source.checkpoints:
            words = (
                self.tr("step {step}, the best") if name == source.best else self.tr("step {step}")
            )
            step = figures.count(int(name.rpartition("-")[2]))
            self.checkpoints.addItem(words.format(step=step), name)
        if not source.finished and source.best is not None:
            self.checkpoints.setCurrentIndex(self.checkpoints.findData(source.best))
        about = self.tr("{model}, trained on {data}.").format(
            model=wording.model_name(source.summary.model),
            data=wording.data_name(source.summary.dataset),
        )
        kept = wording.kept_checkpoints(source.job)[1] if source.job else ""
        self._about.setText(f"{about} {kept}")


class TargetStep(QWizardPage):
    """In what form, and where to."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setTitle(self.tr("Form and place"))
        self.setSubTitle(self.tr("Export writes a new folder and leaves the run as it is."))
        self.setCommitPage(True)
        self.merged = QRadioButton(self.tr("A whole model (safetensors)"))
        self.merged.setObjectName("exportFormatMerged")
        self.merged.setAccessibleName(self.merged.text())
        self.adapter = QRadioButton(self.tr("The adapter alone"))
        self.adapter.setObjectName("exportFormatAdapter")
        self.adapter.setAccessibleName(self.adapter.text())
        self.gguf = QRadioButton(self.tr("One file for llama.cpp, Ollama or LM Studio (GGUF)"))
        self.gguf.setObjectName("exportFormatGguf")
        self.gguf.setAccessibleName(self.gguf.text())
        self.bits = SteadyComboBox()
        self.bits.setObjectName("exportQuantizationCombo")
        self.bits.setAccessibleName(self.tr("Bits a weight in the GGUF file"))
        self.bits.setEnabled(False)
        self.gguf.toggled.connect(self.bits.setEnabled)
        self.merged.setChecked(True)
        self.folder = QLineEdit()
        self.folder.setObjectName("exportFolderEdit")
        self.folder.setAccessibleName(self.tr("Output folder"))
        self.folder.textChanged.connect(lambda: self.show_problem(""))
        browse = SecondaryButton(self.tr("Choose folder"))
        browse.clicked.connect(self._browse)
        self._error = ErrorLabel("error_export_out")
        layout = QVBoxLayout(self)
        layout.setSpacing(4)
        layout.addWidget(self.merged)
        self._about_merged = secondary_label(wrap=True)
        layout.addWidget(self._about_merged)
        layout.addSpacing(8)
        layout.addWidget(self.gguf)
        layout.addWidget(self.bits)
        layout.addSpacing(8)
        layout.addWidget(self.adapter)
        self._about_adapter = secondary_label(wrap=True)
        layout.addWidget(self._about_adapter)
        self.offer_adapter(True)
        self.show_sizes(None)
        layout.addSpacing(16)
        layout.addWidget(plain_label(self.tr("Output folder")))
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self.folder, 1)
        row.addWidget(browse)
        layout.addLayout(row)
        layout.addWidget(self._error)
        layout.addStretch(1)

    def propose(self, name: str) -> None:
        """A fresh folder for this name, unless the person chose one."""
        if not self.folder.isModified():
            self.folder.setText(str(fresh_folder(name)))

    def offer_adapter(self, there: bool) -> None:
        """Whether there is an adapter that could be exported alone."""
        self.adapter.setEnabled(there)
        if self.adapter.isChecked() and not there:
            self.merged.setChecked(True)
        if there:
            whole = self.tr("Model and adapter merged: any program that loads Hugging Face models.")
            alone = self.tr("Small; it needs the same base model beside it.")
        else:
            whole = self.tr("The trained model: any program that loads Hugging Face models.")
            alone = self.tr("This run trained every weight of the model, so it has none.")
        self._about_merged.setText(whole)
        self._about_adapter.setText(alone)

    def show_sizes(self, parameters: int | None) -> None:
        """Each kind of GGUF file, with the size it has of a model of so many weights."""
        kinds: tuple[tuple[GgufQuantization, str], ...] = (
            ("q8_0", self.tr("8 bits (Q8_0): answers as the whole model does")),
            ("q6_k", self.tr("6 bits (Q6_K): hardly worse")),
            ("q5_k_m", self.tr("5 bits (Q5_K_M): in between")),
            ("q4_k_m", self.tr("4 bits (Q4_K_M): small; for models of 3 billion and more")),
            ("bf16", self.tr("16 bits (BF16): nothing is lost")),
            ("f16", self.tr("16 bits (F16): for older programs")),
        )
        chosen = self.quantization()
        self.bits.clear()
        for kind, words in kinds:
            if parameters is not None:
                size = figures.size(round(parameters * GGUF_BITS[kind] / 8))
                words = self.tr("{kind}, about {size}").format(kind=words, size=size)
            self.bits.addItem(words, kind)
        self.bits.setCurrentIndex(max(0, self.bits.findData(chosen)))

    def format(self) -> ExportFormat:
        if self.gguf.isChecked():
            return "gguf"
        return "safetensors" if self.merged.isChecked() else "adapter"

    def quantization(self) -> GgufQuantization:
        return self.bits.currentData() or "q8_0"

    def out(self) -> Path:
        return Path(self.folder.text().strip()).expanduser()

    def show_problem(self, message: str) -> None:
        self._error.show_error(message)

    def validatePage(self) -> bool:
        text = self.folder.text().strip()
        if not text or not self.out().is_absolute():
            self.show_problem(self.tr("Write the whole path of a folder."))
        elif not is_free(self.out()):
            self.show_problem(self.tr("This folder is not empty. Choose a new or an empty one."))
        else:
            self.show_problem("")
            return True
        return False

    def _browse(self) -> None:
        chosen = QFileDialog.getExistingDirectory(
            self, self.tr("Output folder"), str(self.out().parent)
        )
        if chosen:
            self.folder.setText(chosen)
            self.folder.setModified(True)


class ProgressStep(QWizardPage):
    """The export itself; goes on by itself when it is done."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setTitle(self.tr("Exporting"))
        self.setSubTitle(self.tr("Nothing that looks whole is left behind when it is cancelled."))
        self.progress = ExportProgress()
        self._error = ErrorLabel("exportProblem")
        layout = QVBoxLayout(self)
        layout.addWidget(self.progress)
        layout.addWidget(self._error)
        layout.addStretch(1)

    def show_problem(self, message: str) -> None:
        self._error.show_error(message)

    def isComplete(self) -> bool:
        return False


class DoneStep(QWizardPage):
    """Where the result is and how to load it."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setTitle(self.tr("Exported"))
        self.setSubTitle(self.tr("The folder is whole; it can be moved and shared."))
        self._folder = Path()
        self._where = plain_label(wrap=True)
        self._where.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.snippet = QPlainTextEdit()
        self.snippet.setObjectName("exportSnippet")
        self.snippet.setReadOnly(True)
        self.snippet.setTabChangesFocus(True)
        self.snippet.setFont(theme.mono_font(12))
        self.snippet.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.snippet.setAccessibleName(self.tr("Python that loads the result"))
        show = SecondaryButton(self.tr("Open the folder"))
        show.clicked.connect(lambda: open_folder(self._folder))
        self._copy = SecondaryButton("")
        self._copy.clicked.connect(self._copy_snippet)
        layout = QVBoxLayout(self)
        layout.setSpacing(8)
        layout.addWidget(self._where)
        self._how = secondary_label()
        layout.addWidget(self._how)
        layout.addWidget(self.snippet, 1)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(show)
        row.addWidget(self._copy)
        row.addStretch(1)
        layout.addLayout(row)

    def show_result(self, folder: Path, form: ExportFormat) -> None:
        self._folder = folder
        self._where.setText(self.tr("The result is in {folder}").format(folder=folder))
        if form == "gguf":
            file = next(folder.glob("*.gguf"), folder)
            self._how.setText(self.tr("This starts it with llama.cpp:"))
            self._copy.setText(self.tr("Copy the command"))
            self.snippet.setAccessibleName(self.tr("Command that starts the result"))
            self.snippet.setPlainText(_LOAD_GGUF.format(folder=file))
            return
        self._how.setText(self.tr("This Python loads it:"))
        self._copy.setText(self.tr("Copy the Python"))
        template = _LOAD_MODEL if form == "safetensors" else _LOAD_ADAPTER
        self.snippet.setPlainText(template.format(folder=str(folder)))

    def _copy_snippet(self) -> None:
        QGuiApplication.clipboard().setText(self.snippet.toPlainText())
        self._copy.setText(self.tr("Copied"))
