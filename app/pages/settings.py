"""The Settings page: how to train, as a form built from the job model."""

from __future__ import annotations

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.desks.layer_count import LayerCount
from app.desks.memory_estimator import MemoryEstimator
from app.desks.probe_controller import ProbeController
from app.dialogs.own_presets import OwnPresets
from app.draft import JobDraft, problems_of
from app.forms import FieldSpec, Form, form_grid, heading, specs
from app.i18n import integer
from app.widgets.card import (
    PAGE_MARGIN,
    Card,
    ErrorLabel,
    PageHeader,
    PrimaryButton,
    QuietButton,
    SecondaryButton,
    plain_label,
    plain_tool_tip,
    scroll_area,
    secondary_label,
)
from app.widgets.inputs import JobLineEdit
from app.widgets.menu_button import MenuButton
from app.widgets.settings import setting_words
from app.widgets.settings.advisor_dialog import AdvisorDialog, Situation
from app.widgets.settings.memory_card import MemoryCard
from app.widgets.settings.preset_choice import PresetChoice

CHECK_PAUSE_MS = 120
SCROLL_BAR = 10
_METHOD = ("quantization", "lora")


class SettingsPage(QWidget):
    """Basic settings in the open, advanced ones folded away; every mistake beside its field.

    `more` is the menu of what else can be done with them.
    """

    continue_requested = Signal()
    open_requested = Signal()
    save_requested = Signal()

    def __init__(
        self,
        draft: JobDraft,
        estimator: MemoryEstimator,
        probe: ProbeController,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._draft = draft
        self._estimator = estimator
        self.memory = MemoryCard(draft, estimator, probe)
        self._outside: dict[str, str] = {}  # found at the start, not by job.py
        fields = specs()
        self._form = Form(draft, fields, self)
        self._pause = QTimer(self, singleShot=True, interval=CHECK_PAUSE_MS)
        self._pause.timeout.connect(self._check)

        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 16, 0, 0)
        layout.setSpacing(16)
        layout.addWidget(self._with_margins(self._head()))
        layout.addWidget(self._with_margins(self.memory))
        layout.addWidget(self._scrolled(fields), 1)

        draft.changed.connect(self._on_changed)
        self._show_derived()
        self._check()

    def show_problem(self, field: str, message: str) -> None:
        """Say beside the field what the checks before a run found; gone at its next change."""
        self._outside[field] = message
        if any(s.field == field and s.advanced for s in specs()):
            self._fold.setChecked(True)
        self._check()

    # ------------------------------------------------------------------------------- the parts

    def _head(self) -> QWidget:
        self._header = PageHeader(self.tr("Settings"))
        self._undo = QuietButton(self.tr("Undo"))
        self._undo.clicked.connect(self._draft.undo)
        self._suggest_button = SecondaryButton(self.tr("Suggest settings"))
        self._suggest_button.setObjectName("suggestButton")
        self._suggest_button.clicked.connect(self._suggest)
        self._allow_suggesting("" if self._estimator.current else self.tr("A moment, please"))
        self._estimator.estimated.connect(lambda _: self._allow_suggesting(""))
        self._estimator.unknown.connect(self._allow_suggesting)
        self.more = MenuButton(self.tr("More"))
        self.more.setObjectName("settingsMenu")
        self.more.add("openRecipe", self.tr("Open a job file…"), self.open_requested.emit, "Ctrl+O")
        self.more.add("saveRecipe", self.tr("Save to a file…"), self.save_requested.emit, "Ctrl+S")
        self.more.add_separator()
        self._presets = PresetChoice(self._draft)
        OwnPresets(self._draft, self._presets, self.more)
        self.more.add_separator()
        self.more.add("resetSettings", self.tr("Reset to defaults"), self._reset)
        go_on = PrimaryButton(self.tr("Continue"))
        go_on.clicked.connect(self.continue_requested)
        for button in (self._undo, self.more, self._suggest_button, go_on):
            self._header.add_button(button)
        return self._header

    def _with_margins(self, widget: QWidget) -> QWidget:
        holder = QWidget()
        row = QVBoxLayout(holder)
        row.setContentsMargins(PAGE_MARGIN, 0, PAGE_MARGIN, 0)
        row.addWidget(widget)
        return holder

    def _scrolled(self, fields: list[FieldSpec]) -> QScrollArea:
        content = QWidget()
        content.setObjectName("scrolled")
        column = QVBoxLayout(content)
        column.setContentsMargins(PAGE_MARGIN, 0, PAGE_MARGIN - SCROLL_BAR, PAGE_MARGIN)
        column.setSpacing(16)
        basic = [spec for spec in fields if not spec.advanced]
        titles = {
            "method": self.tr("Method"),
            "training": self.tr("Training"),
            "evaluation": self.tr("Testing"),
        }
        # Two cards, close set: all of it is to be seen in a window of 720 pixels.
        for title, groups in (
            (titles["training"], ("method", "training")),
            (titles["evaluation"], ("evaluation",)),
        ):
            card = Card(title)
            grid = form_grid()
            grid.setVerticalSpacing(4)
            if "training" in groups:
                self._add_name(grid)
            for group in groups:
                for spec in basic:
                    if _group(spec) == group:
                        self._form.rows[spec.field].add_to(grid, grid.rowCount())
            card.body.addLayout(grid)
            column.addWidget(card)
        column.addWidget(self._advanced_card([spec for spec in fields if spec.advanced], titles))
        column.addStretch(1)
        area = scroll_area(content)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        # Always there, so that nothing moves when the advanced settings unfold.
        area.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOn)
        return area

    def _add_name(self, grid: QGridLayout) -> None:
        """The run's name, and at the row's end the presets."""
        self._name = JobLineEdit()
        self._name.setObjectName("field_name")
        self._name.setAccessibleName(self.tr("Name of the run"))
        self._name.setText(str(self._draft.value("name")))
        self._name.textChanged.connect(lambda text: self._draft.set_value("name", text))
        self._name_error = ErrorLabel("error_name")
        presets = QHBoxLayout()
        presets.setSpacing(16)
        presets.addStretch(1)
        presets.addWidget(secondary_label(self.tr("Preset")))
        presets.addWidget(self._presets)
        row = grid.rowCount()
        grid.addWidget(plain_label(self.tr("Name of the run")), row, 0)
        grid.addWidget(self._name, row, 1, 1, 2)
        grid.addLayout(presets, row, 3)
        grid.addWidget(self._name_error, row + 1, 1, 1, 3)

    def _advanced_card(self, fields: list[FieldSpec], titles: dict[str, str]) -> Card:
        card = Card(self.tr("Advanced"))
        self._fold = QuietButton(self.tr("Show"))
        self._fold.setObjectName("advancedToggle")
        self._fold.setAccessibleName(self.tr("Show advanced settings"))
        self._fold.setCheckable(True)
        self._fold_state = secondary_label(
            self.tr("{count} settings that are good as they are").format(count=len(fields))
        )
        card.add_legend(self._fold_state)
        card.add_right(self._fold)
        self._advanced = QWidget()
        grid = form_grid()
        grid.setContentsMargins(0, 0, 0, 0)
        self._advanced.setLayout(grid)
        for group, title in titles.items():
            grid.addWidget(heading(title), grid.rowCount(), 0, 1, 4)
            for spec in fields:
                if _group(spec) == group:
                    self._form.rows[spec.field].add_to(grid, grid.rowCount())
                    if spec.field == "lora.layers_to_transform":
                        self._add_layer_count(grid)
        card.body.addWidget(self._advanced)
        self._advanced.setVisible(False)
        self._fold.toggled.connect(self._advanced.setVisible)
        self._fold.toggled.connect(self._layer_count.watch)
        self._fold.toggled.connect(
            lambda shown: self._fold.setText(self.tr("Hide") if shown else self.tr("Show"))
        )
        return card

    def _add_layer_count(self, grid: QGridLayout) -> None:
        row = grid.rowCount()
        count = secondary_label("–")
        count.setObjectName("layerCount")
        count.setFont(theme.font(13, tabular=True))
        count.setMinimumHeight(32)
        grid.addWidget(plain_label(self.tr("Adapted")), row, 0)
        grid.addWidget(count, row, 1, 1, 3)
        self._layer_count = LayerCount(self._draft, self._estimator.helper, count)
        self._layer_count.problem.connect(self.show_problem)
        self._layer_count.counted.connect(self._on_counted)

    # ---------------------------------------------------------------------------- what happens

    def _allow_suggesting(self, why_not: str) -> None:
        """What is suggested depends on what fits, so that has to be known."""
        self._suggest_button.setEnabled(not why_not)
        self._suggest_button.setToolTip(plain_tool_tip(why_not) if why_not else "")

    def _suggest(self) -> None:
        shown = self._estimator.current
        if shown is None:
            return
        situation = Situation(shown.job, shown.estimate.device, self._estimator.lengths)
        dialog = AdvisorDialog(situation, self._draft.value, self)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.chosen.connect(self._draft.set_values)
        dialog.open()

    def _show_undo(self) -> None:
        """Undo here takes back settings only; what was done on another page is said."""
        step = self._draft.next_undo()
        own = bool(step) and all(field in self._form.rows or field == "name" for field in step)
        self._undo.setEnabled(own)
        if not step:
            words = self.tr("Nothing to undo")
        elif not own:
            words = self.tr("The last change was on another page; Ctrl+Z takes it back")
        else:
            lines = setting_words.changes({at: (new, old) for at, (old, new) in step.items()})
            words = "\n".join([self.tr("Take back (Ctrl+Z):"), *lines])
        self._undo.setToolTip(plain_tool_tip(words))

    def _on_counted(self) -> None:
        """What the layers of an earlier model were wrong about is right of this one."""
        for field in ("lora.target_modules", "lora.layers_to_transform"):
            if self._outside.pop(field, None):
                self._pause.start()

    def _reset(self) -> None:
        self._draft.reset(list(self._form.rows))

    def _on_changed(self, field: str) -> None:
        self._outside.pop(field, None)
        if field == "name" and self._name.text() != self._draft.value("name"):
            self._name.setText(str(self._draft.value("name")))
        self._show_derived()
        self._pause.start()

    def _show_derived(self) -> None:
        """What follows from the settings: the summary, the product, what has no effect now."""
        self._show_undo()
        self._header.subtitle.setText(self._draft.summary())
        batch = self._form.rows["training.per_device_train_batch_size"]
        rows = self._draft.value(batch.spec.field)
        times = self._draft.value("training.gradient_accumulation_steps")
        note = ""
        if isinstance(rows, int) and isinstance(times, int):
            product = self.tr("{rows} × {times} = {product} rows a step.").format(
                rows=integer(rows), times=integer(times), product=integer(rows * times)
            )
            note = f"{batch.text_of_help()} {product}"
        batch.show_note(note)
        self._show_steps()
        quantised = bool(self._draft.value("quantization.load_in_4bit"))
        for field, row in self._form.rows.items():
            if field.startswith("quantization.bnb_"):
                row.set_enabled(quantised)
        with_adapter = self._draft.value("training.method") == "lora"
        for field, row in self._form.rows.items():
            if field.startswith("lora."):
                row.set_enabled(with_adapter)
        beta = self._form.rows["training.beta"]
        beta.set_enabled(self._draft.value("training.objective") == "dpo")
        every = self._form.rows["training.activation_checkpointing_every_n_layers"]
        every.set_enabled(bool(self._draft.value("training.activation_checkpointing")))

    def _show_steps(self) -> None:
        """A number of steps makes the epochs mean nothing; that stands folded away below."""
        steps = self._draft.value("training.max_steps")
        note = self.tr("Not used: the run ends after {count} steps (Advanced, Stop after steps).")
        ends = isinstance(steps, int) and steps > 0
        self._form.rows["training.num_train_epochs"].show_note(
            note.format(count=integer(steps)) if ends else ""
        )

    def _check(self) -> None:
        problems = {**self._outside, **problems_of(self._draft)}
        self._form.show_problems(problems)
        self._name_error.show_error(
            self.tr("Give a name of up to 120 characters.") if "name" in problems else ""
        )
        if any(field in problems and row.spec.advanced for field, row in self._form.rows.items()):
            self._fold.setChecked(True)


def _group(spec: FieldSpec) -> str:
    return "method" if spec.section in _METHOD else spec.section
