"""The Data page: what is learned from, exactly as the model will see it."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QDragEnterEvent, QDropEvent, QShowEvent
from PySide6.QtWidgets import (
    QHBoxLayout,
    QVBoxLayout,
    QWidget,
)

from app.background import Latest, run_in_background
from app.desks.data_inspector import DataInspector
from app.draft import JobDraft, problems_of
from app.helper_client import HelperClient
from app.i18n import explain, integer
from app.models.rows_model import (
    RowReader,
    Source,
    open_sources,
    whole_text,
)
from app.settings import Settings
from app.widgets.card import (
    CARD_GAP,
    PageHeader,
    PrimaryButton,
    SecondaryButton,
    page_layout,
    scroll_area,
)
from app.widgets.data.data_options import DataOptions
from app.widgets.data.findings import FindingsCard
from app.widgets.data.lengths_card import LengthsCard
from app.widgets.data.mapping_editor import MappingDialog
from app.widgets.data.rows_card import RowsCard
from app.widgets.data.sequence_card import SequenceCard
from app.widgets.data.source_problem import SourceProblem
from app.widgets.path_picker import PathPicker, dropped_path
from training_backend.data.table import FIELD, Row
from training_backend.errors import UserError
from training_backend.job import SourceSection

TYPING_PAUSE_MS = 400
LENGTHS_PAUSE_MS = 150  # after the last scrolling
DEMO_FILE = "support.jsonl"
NAMED_COLUMNS = 3  # in a sentence
# What of the data decides which rows there are; the rest only what is made of them.
_NOT_ROWS = {"fixes", "loss_on", "chat_template", "chunk_length", "held_out_path"}


class DatasetPage(QWidget):
    """Pick data by typing, choosing or dropping it; see its tokens, problems and lengths."""

    continue_requested = Signal()
    lengths_known = Signal(object)  # rows by their length in tokens; None while not known

    def __init__(
        self,
        draft: JobDraft,
        settings: Settings,
        helper: HelperClient,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setAcceptDrops(True)
        self._draft = draft
        self._settings = settings
        self._reader = RowReader([])
        self._counting = ""
        self._cut_short = False  # the counting ended at a line that cannot be read
        self._tokens: int | None = None
        self._plain = Latest(self)
        self._inspector = DataInspector(draft, helper, self)
        self._pause = QTimer(self, singleShot=True, interval=TYPING_PAUSE_MS)
        self._pause.timeout.connect(lambda: self._on_picked(self._picker.edit.text().strip()))
        self._reload = QTimer(self, singleShot=True, interval=0)
        self._reload.timeout.connect(self._load)

        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        content = QWidget()
        content.setObjectName("scrolled")
        layout = page_layout(content)
        layout.addWidget(self._make_header())
        layout.addLayout(self._source_row())
        self._sequence = SequenceCard()
        self._sequence.set_flexible(214)
        layout.addWidget(self._sequence, 6)
        layout.addLayout(self._middle(), 5)
        self._rows = RowsCard()
        self._rows.set_flexible(150)
        layout.addWidget(self._rows, 4)
        area = scroll_area(content)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        outer.addWidget(area)

        self._connect()
        self._show_choice()
        self._load()

    def show_problem(self, field: str, message: str) -> None:
        """Say beside the field what is wrong with the data."""
        if not self._options.show_problem(field, message):
            self._problem.show_words(message)

    def is_settled(self) -> bool:
        """Whether nothing that the page shows is still being worked on."""
        return not self._reload.isActive() and self._inspector.is_settled()

    def shutdown(self) -> None:
        """Let threads that read rows end soon."""
        self._reader.stopped.set()

    # ------------------------------------------------------------------------------- the cards

    def _make_header(self) -> PageHeader:
        self._header = PageHeader(self.tr("Data"), self.tr("The examples to learn from"))
        self._mapping = SecondaryButton(self.tr("Edit mapping"))
        self._mapping.clicked.connect(self._edit_mapping)
        self._header.add_button(self._mapping)
        go_on = PrimaryButton(self.tr("Continue"))
        go_on.clicked.connect(self.continue_requested)
        self._header.add_button(go_on)
        return self._header

    def _source_row(self) -> QVBoxLayout:
        self._picker = PathPicker(
            "datasetPathEdit",
            self.tr("Data file"),
            self.tr(
                "Data files (*.jsonl *.json *.ndjson *.csv *.tsv *.parquet *.xlsx *.txt *.md *.gz)"
                ";;All files (*)"
            ),
        )
        self._picker.edit.setPlaceholderText(
            self.tr("Choose or drop a file or a folder, or write owner/name of a Hub dataset")
        )
        self._picker.suggest(self._settings.recent("datasets"))
        self._picker.picked.connect(self._on_picked)
        self._picker.edit.textEdited.connect(lambda _: self._pause.start())
        demo = SecondaryButton(self.tr("Use the demo data"))
        demo.clicked.connect(lambda: self._on_picked("demo"))
        self._demo = demo
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self._picker, 1)
        row.addWidget(demo)
        rows = QVBoxLayout()
        rows.setSpacing(4)
        rows.addLayout(row)
        self._problem = SourceProblem()
        self._problem.leave_out_requested.connect(self._leave_out_bad_lines)
        self._options = DataOptions(self._draft)
        self._options.selected.connect(self._show_source)
        rows.addWidget(self._problem)
        rows.addWidget(self._options)
        return rows

    def _middle(self) -> QHBoxLayout:
        self._findings = FindingsCard()
        self._findings.set_flexible(208)
        self._lengths = LengthsCard()
        self._lengths.set_flexible(208)
        self._lengths.histogram.set_max_length(_whole(self._draft.value("training.max_length")))
        row = QHBoxLayout()
        row.setSpacing(CARD_GAP)
        row.addWidget(self._findings, 3)
        row.addWidget(self._lengths, 2)
        return row

    def _connect(self) -> None:
        self._draft.changed.connect(self._on_draft_changed)
        self._rows.row_chosen.connect(self._on_row_chosen)
        self._rows.lengths_wanted.connect(self._inspector.measure)
        self._rows.failed.connect(self._problem.show_problem)
        self._sequence.step_requested.connect(self._rows.step)
        self._sequence.action_requested.connect(self._inspector.take_next_step)
        inspector = self._inspector
        self._sequence.cancel_requested.connect(inspector.cancel_next_step)
        inspector.row_arrived.connect(self._sequence.show_row)
        inspector.row_arrived.connect(self._on_preview)
        inspector.row_failed.connect(self._on_row_failed)
        inspector.lengths_arrived.connect(self._rows.model.set_lengths)
        inspector.counted.connect(self._on_counted)
        inspector.lint_progress.connect(
            lambda rows: self._findings.show_progress(rows, self._total())
        )
        inspector.lint_arrived.connect(self._on_report)
        inspector.lint_failed.connect(self._on_lint_failed)
        inspector.became_stale.connect(self._rows.forget_lengths)
        inspector.preparing.connect(self._sequence.show_preparing)
        self._findings.cancel_requested.connect(self._cancel_lint)
        self._findings.check_requested.connect(inspector.lint)
        self._findings.fix_requested.connect(self._add_fix)
        self._findings.fix_removed.connect(self._remove_fix)
        self._findings.rows_requested.connect(self._rows.show_only)
        self._findings.length_requested.connect(self._set_max_length)
        self._lengths.max_length_chosen.connect(self._set_max_length)
        self._lengths.lengths_known.connect(self.lengths_known)

    # ---------------------------------------------------------------------------- what is asked

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if dropped_path(event):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        event.acceptProposedAction()
        self._picker.pick(dropped_path(event))

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._inspector.set_visible(True)

    def _on_picked(self, path: str) -> None:
        self._pause.stop()
        chosen = "demo" if path == DEMO_FILE else path
        place = self._options.current()
        if chosen != self._draft.sources()[place]["path"]:
            self._draft.replace_source(place, chosen)

    def _edit_mapping(self) -> None:
        place = self._options.current()
        if place < len(self._reader.sources):
            table = self._reader.sources[place].table
            dialog = MappingDialog(self._draft, place, self)
            dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
            dialog.set_table(table.details, table.columns, table.head)
            dialog.open()

    def _set_max_length(self, length: int) -> None:
        self._draft.set_value("training.max_length", length)

    def _add_fix(self, fix: dict[str, Any]) -> None:
        self._draft.set_values({"dataset.fixes": [*self._draft.value("dataset.fixes"), fix]})

    def _remove_fix(self, place: int) -> None:
        fixes = list(self._draft.value("dataset.fixes"))
        del fixes[place]
        self._draft.set_values({"dataset.fixes": fixes})

    def _leave_out_bad_lines(self) -> None:
        self._draft.set_source(self._options.current(), {"skip_bad_lines": True})

    def _cancel_lint(self) -> None:
        self._inspector.cancel_lint()
        self._findings.show_cancelled()

    # ---------------------------------------------------------------------------- what is shown

    def _on_draft_changed(self, field: str) -> None:
        section, _, key = field.partition(".")
        if section == "dataset" and key not in _NOT_ROWS:
            self._show_choice()
            self._reload.start(TYPING_PAUSE_MS if key == "mapping" else 0)
        if field == "dataset.fixes":
            self._findings.show_fixes(self._draft.value(field))
        if field == "training.max_length":
            self._lengths.histogram.set_max_length(_whole(self._draft.value(field)))

    def _show_choice(self) -> None:
        sources = self._draft.sources()
        path = str(sources[min(self._options.current(), len(sources) - 1)]["path"])
        self._picker.set_path(DEMO_FILE if path == "demo" else path)
        self._demo.setVisible(len(sources) == 1 and path != "demo")
        self._findings.show_fixes(self._draft.value("dataset.fixes"))

    def _show_source(self) -> None:
        """Show how the current source is read."""
        self._show_choice()
        place = self._options.current()
        if place < len(self._reader.sources):
            table = self._reader.sources[place].table
            self._options.set_table(table.details, table.columns, table.head, table.notices)

    def _format_problem(self, problem: UserError) -> str:
        """What keeps the rows from being mapped, and what to do about it in this window."""
        if not _is_unmapped(problem):
            return explain(problem)
        names = str(problem.params["columns"]).split(", ")
        few = ", ".join(names[:NAMED_COLUMNS]) + (", …" if len(names) > NAMED_COLUMNS else "")
        return self.tr(
            "The columns {columns} are of no known form. Press Edit mapping to say what they are; "
            "a guess stands there."
        ).format(columns=few)

    def _load(self) -> None:
        """Open the data anew; what was being read of the old is left."""
        self._reader.stopped.set()
        self._inspector.forget()
        self._plain.forget()
        reader = self._reader = RowReader([])
        try:
            asked = [SourceSection.model_validate(source) for source in self._draft.sources()]
        except ValidationError:
            problems = problems_of(self._draft)
            told = [text for field, text in problems.items() if field.startswith("dataset")]
            self._show_error(reader, ValueError(told[0] if told else self.tr("is not whole")))
            return
        self._counting = self.tr("reading")
        self._cut_short = False
        self._tell()

        def work() -> tuple[RowReader, UserError | None]:
            sources, problem = open_sources(asked)
            return RowReader(sources), problem

        run_in_background(
            work,
            lambda found: self._show_sources(reader, *found),
            lambda error: self._show_error(reader, error),
            self,
        )

    def _show_sources(self, asked: RowReader, reader: RowReader, problem: UserError | None) -> None:
        if asked is not self._reader:
            return  # the person has moved on
        self._reader = reader
        mapped = all(source.format is not None for source in reader.sources)
        self._problem.show_words("")
        self._show_source()
        if problem is not None and _is_about_the_source(problem):
            self._problem.show_problem(problem)
        elif problem is not None:
            self._options.show_problem("dataset.format", self._format_problem(problem))
        self._rows.show_rows(reader, mapped)
        self._forget_numbers()
        for source in reader.sources:
            if source.section.path != "demo":
                self._settings.add_recent("datasets", source.section.path)
        if None in reader.counts:
            self._counting = self.tr("counting")
            self._inspector.count()
        else:
            known = [count or 0 for count in reader.counts]
            self._on_counted(sum(known), known)
        self._inspector.refresh(problem)
        self._tell()

    def _show_error(self, asked: RowReader, error: Exception) -> None:
        if asked is not self._reader:
            return
        self._problem.show_words("")
        self._options.set_table(None, (), [])
        field = error.field if isinstance(error, UserError) else ""
        if not self._options.show_problem(field or "dataset.path", explain(error)):
            self._problem.show_problem(error)
        self._counting = ""
        self._rows.clear()
        self._header.subtitle.setText(self.tr("No usable data is chosen"))
        self._inspector.forget()
        self._sequence.clear()
        self._forget_numbers()
        self._findings.show_waiting(self.tr("There is no data to look into."))

    def _on_counted(self, rows: int, counts: list[int] | None) -> None:
        """So many rows so far; `counts` of every source when that is all."""
        if counts is not None and len(counts) == len(self._reader.counts):
            self._reader.counts = list(counts)
            self._options.set_counts(counts)
            self._counting = ""
        self._rows.model.set_count(rows)
        self._tell()
        self._tell_place()

    def _total(self) -> int | None:
        return None if self._counting else self._rows.model.total()

    def _tell(self) -> None:
        """The line below the page's title."""
        sources = self._reader.sources
        if not sources:
            self._header.subtitle.setText(self.tr("Reading the data"))
            return
        name = " + ".join(source.table.name for source in sources)
        rows = integer(self._rows.model.total())
        one = self._rows.model.total() == 1
        form = sources[0].format
        if form not in (None, "text"):
            words = self.tr("{rows} conversation") if one else self.tr("{rows} conversations")
        else:
            words = self.tr("{rows} row") if one else self.tr("{rows} rows")
        if self._counting:
            words = self.tr("more than {words}, counting").format(words=words)
        elif self._cut_short:
            words = self.tr("{words} before one that cannot be read").format(words=words)
        parts = [name, words.format(rows=rows)]
        if form == "custom":
            parts[1] += self.tr(" by your mapping")
        elif form is not None and all(source.format == form for source in sources):
            parts[1] += self.tr(" in the form {form}").format(form=_form_name(form))
        if self._tokens is not None:
            parts.append(self.tr("{count} tokens").format(count=integer(self._tokens)))
        self._header.subtitle.setText(", ".join(parts))

    # ------------------------------------------------------------------------- row after row

    def _on_row_chosen(self, number: int) -> None:
        self._tell_place()
        self._inspector.look_at(number)

    def _tell_place(self) -> None:
        number = self._rows.current_row()
        if number is not None:
            self._sequence.set_place(number, self._rows.model.total(), bool(self._counting))

    def _on_preview(self, preview: dict[str, Any]) -> None:
        self._plain.forget()
        if self._draft.value("dataset.chat_template") is None:
            self._options.set_model_template(preview.get("chat_template") == "model")

    def _on_row_failed(self, error: Exception, number: int, next_step: str) -> None:
        """No tokens to show: say why, what to do, and show the row as it is."""
        words = explain(error)
        if _is_unmapped(error):  # said in full beside the format
            words = self.tr("Once the columns are mapped, the row's tokens stand here.")
        elif _is_about_the_source(error):
            self._problem.show_problem(error)
            words = self.tr("Once the data can be read, the row's tokens stand here.")
        self._sequence.show_failure(words, next_step)
        if next_step:
            self._findings.show_waiting(self.tr("Waits for the model's tokenizer."))
        reader = self._reader

        def show(found: list[tuple[Row, Source]]) -> None:
            if found:
                self._sequence.show_plain(whole_text(*found[0]))

        if reader.sources:
            self._plain.ask(lambda: reader.page(number, 1), show, lambda _: None)

    # --------------------------------------------------------------------------- the findings

    def _on_report(self, report: dict[str, Any]) -> None:
        numbers = report["numbers"]
        self._findings.show_report(report)
        self._lengths.show_numbers(numbers)
        self._tokens = numbers["tokens"]
        self._tell()

    def _on_lint_failed(self, error: Exception) -> None:
        words = explain(error)
        if _is_unmapped(error):
            words = self.tr("Waits until the columns are mapped.")
        elif _is_about_the_source(error):
            self._problem.show_problem(error)
            self._cut_short, self._counting = True, ""
            words = self.tr("Waits until the data can be read.")
        self._findings.show_waiting(words)
        self._forget_numbers()
        self._tell()

    def _forget_numbers(self) -> None:
        self._tokens = None
        self._lengths.show_numbers(None)


def _whole(value: object) -> int:
    """A number of the draft, where anything may have been typed: 0 stands for what is none."""
    return int(value) if isinstance(value, int | float) else 0


def _is_unmapped(error: Exception) -> bool:
    return isinstance(error, UserError) and error.code == "format_unknown"


def _is_about_the_source(error: Exception) -> bool:
    """Whether it belongs below the path, said once."""
    return isinstance(error, UserError) and error.field == FIELD and not _is_unmapped(error)


def _form_name(form: str) -> str:
    short = {"messages": "messages", "sharegpt": "ShareGPT", "alpaca": "Alpaca"}
    return short.get(form, form.replace("_", " "))
