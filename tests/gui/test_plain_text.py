"""The whole window, page by page and dialog by dialog, with hostile texts from everywhere."""

from __future__ import annotations

import ast
import json
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QAction
from PySide6.QtWidgets import (
    QApplication,
    QDialog,
    QInputDialog,
    QLabel,
    QTableView,
    QWidget,
)
from pytestqt.qtbot import QtBot

from app import error_dialog
from app.dialogs.start_dialog import ask_about_cut_off
from app.main_window import MainWindow
from app.models.made_exports import list_exports
from app.pages.dataset import DatasetPage
from app.pages.export_wizard import ExportPage
from app.pages.runs import RunsPage
from app.pages.train import TrainPage
from app.widgets.card import plain_tool_tip
from app.widgets.data.findings import FindingsCard
from app.widgets.data.token_view import TokenView
from app.widgets.settings.advisor_dialog import AdvisorDialog, Situation
from tests.gui.plain_text import CORE, HOSTILE, LONG, NAME, Found, GuiQt, hostile_model
from tests.model_files import model_files
from training_backend import runs
from training_backend.computer.devices import Device
from training_backend.errors import Problem, UserError
from training_backend.job import ExportJob, parse_job
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import (
    TERMINAL_TYPES,
    Event,
    ExportProved,
    RunCompleted,
    RunFailed,
    RunStarted,
    SampleGenerated,
    WarningRaised,
)
from training_backend.queueing import run_queue
from training_backend.runs import Run
from training_backend.starting_points import presets, recipes

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, data in two forms, and a job file, with such texts in their names and in them."""
    folder = tmp_path_factory.mktemp("files") / NAME
    model = folder / f"model {NAME}"
    model.mkdir(parents=True)
    for name, content in model_files(_name_or_path=HOSTILE).items():
        (model / name).write_bytes(content)
    (model / "README.md").write_text(f"---\nlicense: {json.dumps(HOSTILE)}\n---\n{LONG}")
    rows = [
        {"messages": [
            {"role": "user", "content": HOSTILE}, {"role": "assistant", "content": HOSTILE},
        ]},
        {"messages": [{"role": HOSTILE, "content": "?"}]},
        {"messages": [{"role": "user", "content": HOSTILE}, {"role": "assistant", "content": ""}]},
    ] * 3  # fmt: skip
    _write_rows(folder / f"talk {NAME}.jsonl", rows)
    columns = {f"{HOSTILE} {n}": f"{HOSTILE} {n} {LONG if n else ''}" for n in range(3)}
    _write_rows(folder / f"columns {NAME}.jsonl", [columns] * 4)
    return folder


def _write_rows(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def document(files: Path) -> dict[str, Any]:
    return {
        "name": HOSTILE,
        "model": {"id": str(files / f"model {NAME}")},
        "dataset": {"path": str(files / f"talk {NAME}.jsonl")},
        "lora": {"target_modules": [HOSTILE]},
        "evaluation": {"prompts": [HOSTILE]},
        "training": {"max_length": 64, "max_steps": 5},
    }


@pytest.fixture
def store(document: dict[str, Any], home: Path) -> list[Run]:
    """A run for each way to end, with every event in it; two that wait; a preset; a bad folder."""
    kinds = list(typing.get_args(typing.get_args(Event)[0]))
    made = []
    for end in TERMINAL_TYPES:
        run = runs.create(parse_job(document))
        writer = JournalWriter(run.folder)
        for kind in kinds:
            if kind not in TERMINAL_TYPES:
                writer.append(hostile_model(kind))
        writer.append(SampleGenerated(step=0, prompt=HOSTILE, answer=HOSTILE, base=True))
        writer.append(hostile_model(end))
        writer.close()
        (run.checkpoints / "checkpoint-5").mkdir(parents=True)
        (run.checkpoints / f"checkpoint-{NAME}").mkdir()
        made.append(run)
    renamed = made[0].folder.with_name(NAME)
    made[0].folder.rename(renamed)
    made[0] = Run(renamed)
    run_queue.add([parse_job(document), parse_job(document)], sweep="s1")
    run_queue.pause()
    folder = home / "presets"
    folder.mkdir()
    preset = {"title": HOSTILE[:60], "description": LONG, "values": {"lora.r": 8}}
    (folder / "a.json").write_text(json.dumps(preset))
    assert presets.own_presets()
    return made


@pytest.fixture
def window(qtbot: QtBot, store: list[Run], document: dict[str, Any]) -> Iterator[MainWindow]:
    window = MainWindow()
    window.draft.set_values(
        {
            f"{section}.{key}": value
            for section, values in document.items()
            if isinstance(values, dict)
            for key, value in values.items()
        }
    )
    window.draft.set_value("name", HOSTILE)
    qtbot.addWidget(window)
    window.show()
    qtbot.waitUntil(lambda: len(window._pages) == len(window._builders))
    yield window
    window.close()


def test_the_texts_would_be_taken_for_markup_if_they_were_let() -> None:
    for text in (HOSTILE, LONG, NAME):
        assert GuiQt.mightBeRichText(text)
        assert not GuiQt.mightBeRichText(plain_tool_tip(text))
    assert not GuiQt.mightBeRichText(plain_tool_tip("&lt;b&gt;"))
    assert not GuiQt.mightBeRichText(plain_tool_tip('<?xml version="1.0"?>'))


def test_every_page_and_dialog_shows_hostile_texts_as_texts(
    qtbot: QtBot, window: MainWindow, store: list[Run], files: Path, document: dict[str, Any]
) -> None:
    found = Found()

    def look(at: str, root: QWidget | None = None) -> None:
        QApplication.processEvents()
        found.look(root or window._stack.currentWidget(), at=at)

    def in_dialog(name: str, opened: Callable[[], object]) -> None:
        opened()
        qtbot.waitUntil(lambda: _dialog(name) is not None)
        dialog = cast(QDialog, _dialog(name))
        look(name, dialog)
        dialog.reject()

    in_dialog("queueDialog", lambda: None)  # asked at the start, of the runs that wait
    in_dialog("cutOffDialog", lambda: ask_about_cut_off(window, NAME, None, 3, 2, lambda: None))

    data = cast(DatasetPage, window.page("navDataset"))
    window.go_to("navModel")
    look("navModel")
    window.go_to("navDataset")
    table = data.findChild(QTableView, "datasetPreviewTable")
    qtbot.waitUntil(lambda: table.model().rowCount() > 3)
    tokens = data.findChild(TokenView)
    qtbot.waitUntil(lambda: CORE in tokens.toPlainText())
    findings = data.findChild(FindingsCard)
    qtbot.waitUntil(lambda: findings._report is not None)
    look("navDataset")

    window.draft.choose_data(str(files / f"columns {NAME}.jsonl"))
    qtbot.waitUntil(lambda: CORE in str(table.model().headerData(1, Qt.Orientation.Horizontal)))
    look("navDataset")
    in_dialog("mappingDialog", data._edit_mapping)
    window.draft.choose_data(document["dataset"]["path"])

    for name in ("navSettings", "navTrain", "navChat", "navExport", "navRuns"):
        window.go_to(name)
        look(name)
    runs_page = cast(RunsPage, window.page("navRuns"))
    qtbot.waitUntil(lambda: runs_page.table.runs.rowCount() >= 4)
    look("navRuns")
    in_dialog("deleteRunDialog", runs_page._ask_to_delete)
    runs_page.table.selectAll()
    runs_page._compare()
    qtbot.waitUntil(lambda: len(runs_page.comparison.runs_shown()) >= 4)
    look("comparison")

    train = cast(TrainPage, window.page("navTrain"))
    for run in store:
        window.desk.open_run(run)
        qtbot.waitUntil(lambda: train._shown.caught_up)
        train.render_now()
        window.go_to("navTrain")
        look(f"run {run.events()[-1].type}", window)
    window.training.event_arrived.emit(hostile_model(RunFailed))
    train.show_problems([Problem("model.id", LONG), Problem("", LONG)])
    for page, field in (("navModel", "model.id"), ("navDataset", "dataset.path"),
                        ("navSettings", "lora.r")):  # fmt: skip
        cast(Any, window.page(page)).show_problem(field, LONG)
    window.desk._on_queue_problem(LONG)
    look("problems", window)
    window.desk.load_answers(store[0])
    chat = window.page("navChat")
    qtbot.waitUntil(
        lambda: any(CORE in widget.accessibleName() + getattr(widget, "text", str)()
                    for widget in chat.findChildren(QWidget)),
    )  # fmt: skip
    window.go_to("navChat")
    look("answers")

    # Every dialog, opened as the window does.
    for run in store[:2]:
        in_dialog("extendDialog", lambda run=run: window.desk.ask_to_extend(run))
    in_dialog("reportDialog", lambda: window.desk.show_report(store[1]))
    in_dialog("sweepDialog", window.desk.try_values)
    in_dialog("recipeDialog", lambda: window.recipes.open_run(store[1]))
    recipe = files / "recipe.json"
    recipes.save(recipe, {**document, "model": {"id": f"/no/such/{NAME}"}})
    in_dialog("recipeDialog", lambda: window.recipes.open_file(recipe))
    wrong = files / f"wrong {NAME}.json"
    wrong.write_text(json.dumps({**document, HOSTILE: LONG, "lora": {HOSTILE: 1}}))
    in_dialog("recipeProblem", lambda: window.recipes.open_file(wrong))
    in_dialog("saveRecipeDialog", window.recipes.save)
    in_dialog("hardwareDialog", window._show_hardware)
    window._show_script()
    script = cast(QDialog, window.findChild(QDialog, "scriptDialog"))
    problem = script.findChild(QLabel, "error_script")
    qtbot.waitUntil(lambda: CORE in problem.text())  # of the layers that it names
    look("scriptDialog", script)
    script.reject()
    in_dialog("errorDialog", lambda: error_dialog.show_error(
        window, LONG, UserError("x", "{what}", "{what}", what=LONG)))  # fmt: skip
    settings = cast(Any, window.page("navSettings"))
    choice = settings._presets
    choice.setCurrentIndex(choice.count() - 1)
    choice.activated.emit(choice.count() - 1)
    choice.showPopup()
    choice.hidePopup()
    settings.more.menu().aboutToShow.emit()
    look("presets", settings)
    renames = settings.more.menu().findChild(QAction, "renamePreset")
    deletes = settings.more.menu().findChild(QAction, "deletePreset")
    in_dialog("presetDialog", renames.trigger)
    in_dialog("deletePresetDialog", deletes.trigger)
    card = Device("cuda", HOSTILE, 24 * 2**30)
    advice = Situation(parse_job(document), card, [])
    in_dialog("advisorDialog", AdvisorDialog(advice, window.draft.value, window).open)
    QTimer.singleShot(0, lambda: _look_at_input(look))
    findings._ask_for_placeholder({"message": "“{{" + HOSTILE.replace("\n", " ") + "}}”"})
    export = cast(ExportPage, window.page("navExport"))
    window.desk.export(store[0])
    qtbot.waitUntil(lambda: _dialog("exportWizard") is not None)
    wizard = cast(Any, _dialog("exportWizard"))
    look("exportWizard", wizard)
    for _ in range(2):
        wizard.next()
        look("exportWizard", wizard)
    for event in (
        hostile_model(RunFailed),
        hostile_model(ExportProved),
        hostile_model(RunCompleted),
    ):
        wizard._running = True
        wizard.apply(event)
        export.apply(event)
        look("exportWizard", wizard)
        look("navExport")
    wizard._running = False
    wizard.reject()
    made = runs.create(ExportJob(name=HOSTILE[:100], run="-", out=str(files.parent / "out")))
    (files.parent / "out").mkdir()
    writer = JournalWriter(made.folder)
    for kind in (RunStarted, WarningRaised, ExportProved):
        writer.append(hostile_model(kind))
    writer.append(RunCompleted(folder=str(files.parent / "out")))
    writer.close()
    export.made.show_exports(list_exports())
    look("exports", export)
    in_dialog("exportDialog", export.made.look.click)

    assert not found.wrong, "\n".join(sorted(found.wrong))
    expected = {
        "QLabel", "tool tip", "table", "header", "QComboBox", "QLineEdit", "QPlainTextEdit",
        "QTextEdit", "menu", "accessible name",
        "navModel", "navDataset", "navSettings", "navTrain", "navChat", "navRuns", "navExport",
        "comparison", "exportWizard", "exports", "exportDialog", "problems", "answers", "input",
        "presets",
        "deleteRunDialog", "recipeDialog", "recipeProblem", "saveRecipeDialog", "errorDialog",
        "scriptDialog", "mappingDialog", *(f"run {kind.__name__}" for kind in TERMINAL_TYPES),
    }  # fmt: skip
    assert expected <= found.seen, expected - found.seen
    for name in window._builders:  # and nothing that long makes the window wider
        window.go_to(name)
        window.resize(1040, 640)
        QApplication.processEvents()
        assert window.width() == 1040, name


def _dialog(name: str) -> QDialog | None:
    return next(
        (w for w in QApplication.allWidgets()
         if isinstance(w, QDialog) and w.objectName() == name and w.isVisible()), None,
    )  # fmt: skip


def _look_at_input(look: Callable[[str, QWidget], None]) -> None:
    dialog = next(w for w in QApplication.topLevelWidgets() if isinstance(w, QInputDialog))
    look("input", dialog)
    dialog.reject()


# What shows markup, or a text that Qt guesses about; none of it takes a text from outside.
_MARKUP = {"setHtml", "setMarkdown", "insertHtml", "appendHtml", "QTextBrowser", "QStaticText"}
_OWN_TIPS = {
    "app/desktop/tray.py",  # shown by the system, as text
    "app/widgets/training/steer_buttons.py",  # only what it says itself
}
_OF_QT = {"QLabel": "app/widgets/card.py", "QErrorMessage": "", "QProgressDialog": ""}


def test_nothing_in_the_source_could_show_markup() -> None:
    """What the walk above cannot reach: states of a widget that it did not bring about."""
    wrong = []
    for path in sorted((ROOT / "app").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            called = getattr(call.func, "attr", getattr(call.func, "id", ""))
            bad = called in _MARKUP or (called in _OF_QT and name != _OF_QT[called])
            if called in ("setToolTip", "setStatusTip", "setWhatsThis"):
                bad = name not in _OWN_TIPS and not _is_own_text(call.args[0])
            if bad:
                wrong.append(f"{name}:{call.lineno}: {called}")
    assert not wrong, "\n".join(wrong)


def _is_own_text(node: ast.expr) -> bool:
    """A constant, a translated constant, or what `plain_tool_tip` gives."""
    match node:
        case ast.Constant():
            return True
        case ast.IfExp():
            return _is_own_text(node.body) and _is_own_text(node.orelse)
        case ast.Call():
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            return called == "plain_tool_tip" or (
                called == "tr" and isinstance(node.args[0], ast.Constant)
            )
    return False
