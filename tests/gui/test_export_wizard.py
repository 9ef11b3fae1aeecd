"""The Export page and its wizard, with events as a worker would send them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PySide6.QtWidgets import QLabel, QWizard
from pytestqt.qtbot import QtBot

from app.pages.export_wizard import DONE, PROGRESS, SOURCE, TARGET, ExportPage, ExportWizard
from training_backend import runs
from training_backend.errors import UserError
from training_backend.job import ExportJob, parse_job
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import (
    PhaseChanged,
    RunCompleted,
    RunFailed,
    RunStarted,
    RunStopped,
)
from training_backend.runs import Run


@pytest.fixture
def run(home: Path) -> Run:
    document = {
        "version": 1,
        "name": "Support style",
        "model": {"id": "demo"},
        "dataset": {"path": "demo"},
    }
    made = runs.create(parse_job(document))
    writer = JournalWriter(made.folder)
    writer.append(RunStarted(run_id=made.id, folder=str(made.folder), pid=1))
    writer.append(RunCompleted(folder=str(made.adapter), step=20))
    writer.close()
    made.adapter.mkdir()
    (made.adapter / "adapter_model.safetensors").touch()
    for step in (10, 2):
        (made.checkpoints / f"checkpoint-{step}").mkdir(parents=True)
    return made


@pytest.fixture
def page(qtbot: QtBot, home: Path) -> ExportPage:
    made = ExportPage()
    qtbot.addWidget(made)
    made.resize(1072, 720)
    return made


def _wizard(page: ExportPage, run: Run, qtbot: QtBot) -> ExportWizard:
    page.show()
    page.set_run(run)
    qtbot.waitUntil(lambda: page.findChild(QWizard, "exportWizard") is not None, timeout=5_000)
    wizard = page.findChild(QWizard, "exportWizard")
    assert isinstance(wizard, ExportWizard)
    return wizard


def _commit(wizard: ExportWizard) -> None:
    wizard.next()
    assert wizard.currentId() == TARGET
    button = wizard.button(QWizard.WizardButton.CommitButton)
    assert button.objectName() == "exportStartButton"
    button.click()


def test_a_run_that_trained_every_weight_is_exported_as_a_model_only(
    page: ExportPage, run: Run, qtbot: QtBot
) -> None:
    document = {
        "version": 1,
        "name": "Every weight",
        "model": {"id": "demo"},
        "dataset": {"path": "demo"},
        "quantization": {"load_in_4bit": False},
        "training": {"method": "full"},
    }
    whole = runs.create(parse_job(document))
    whole.model.mkdir()
    (whole.model / "config.json").touch()
    writer = JournalWriter(whole.folder)
    writer.append(RunStarted(run_id=whole.id, folder=str(whole.folder), pid=1))
    writer.append(RunCompleted(folder=str(whole.model), step=20))
    writer.close()
    wizard = _wizard(page, run, qtbot)
    wizard.next()
    assert wizard.target.adapter.isEnabled()
    wizard.target.adapter.setChecked(True)
    wizard.back()
    wizard.choose(whole)
    wizard.next()
    assert not wizard.target.adapter.isEnabled()
    assert wizard.job().run == str(whole.folder)
    assert wizard.job().format == "safetensors"
    said = [label.text() for label in wizard.target.findChildren(QLabel)]
    assert "This run trained every weight of the model, so it has none." in said


def test_without_a_run_it_says_why_it_is_empty(page: ExportPage) -> None:
    page.show()
    assert page._empty.isVisible()
    assert not page.export_button.isVisible()


def _states(wizard: ExportWizard) -> list[str]:
    states = wizard.source.checkpoints
    return [states.itemText(index) for index in range(states.count())]


def _test_checkpoints(run: Run, losses: dict[int, float]) -> None:
    for step, loss in losses.items():
        told = json.dumps({"step": step, "held_out_loss": loss, "sha256": {}})
        (run.checkpoints / f"checkpoint-{step}" / "COMPLETE.json").write_text(told)


def test_the_model_that_a_run_kept_as_its_best_is_what_is_exported_first(
    page: ExportPage, run: Run, qtbot: QtBot
) -> None:
    _test_checkpoints(run, {2: 1.5, 10: 2.5})
    writer = JournalWriter(run.folder)
    writer.append(RunCompleted(folder=str(run.adapter), step=10, best_step=2, best_loss=1.5))
    writer.close()
    wizard = _wizard(page, run, qtbot)
    assert _states(wizard) == ["what was kept: step 2, the best", "step 10", "step 2, the best"]
    assert wizard.source.checkpoint() is None


def test_of_a_run_that_did_not_end_the_best_checkpoint_is_exported_first(
    page: ExportPage, run: Run, qtbot: QtBot
) -> None:
    _test_checkpoints(run, {2: 1.5, 10: 2.5})
    (run.adapter / "adapter_model.safetensors").unlink()
    wizard = _wizard(page, run, qtbot)
    assert _states(wizard) == ["step 10", "step 2, the best"]
    assert wizard.source.checkpoint() == "checkpoint-2"


def test_from_a_run_to_a_folder(page: ExportPage, run: Run, qtbot: QtBot, home: Path) -> None:
    wizard = _wizard(page, run, qtbot)
    assert wizard.currentId() == SOURCE
    assert _states(wizard) == ["the end of the training", "step 10", "step 2"]
    with qtbot.waitSignal(page.export_requested, timeout=2_000) as asked:
        _commit(wizard)
    job = asked.args[0]
    assert isinstance(job, ExportJob)
    assert job.run == str(run.folder)
    assert job.checkpoint is None
    assert job.format == "safetensors"
    assert Path(job.out) == home / "exports" / "support-style"
    assert wizard.currentId() == PROGRESS
    page.apply(RunStarted(run_id="e", folder="f", pid=1))
    page.apply(PhaseChanged(phase="merging", fraction=0.5))
    assert wizard.progress.progress.bar.value() == 500
    page.apply(RunCompleted(folder=job.out))
    assert wizard.currentId() == DONE
    assert f"from_pretrained({job.out!r})" in wizard.done_step.snippet.toPlainText()
    wizard.accept()


def test_a_checkpoint_and_the_adapter_alone(page: ExportPage, run: Run, qtbot: QtBot) -> None:
    wizard = _wizard(page, run, qtbot)
    wizard.source.checkpoints.setCurrentIndex(1)
    wizard.next()
    wizard.target.adapter.setChecked(True)
    assert wizard.job().checkpoint == "checkpoint-10"
    assert wizard.job().format == "adapter"
    wizard.reject()


def test_a_gguf_file_with_its_size(page: ExportPage, run: Run, qtbot: QtBot, home: Path) -> None:
    wizard = _wizard(page, run, qtbot)
    wizard.next()
    bits = wizard.target.bits
    assert not bits.isEnabled() and wizard.job().format == "safetensors"
    wizard.target.gguf.click()
    assert bits.isEnabled()
    assert bits.currentText().startswith("8 bits (Q8_0)") and bits.currentText().endswith("0.1 GB")
    bits.setCurrentIndex(bits.findData("q4_k_m"))
    wizard.back()
    wizard.next()
    assert (wizard.job().format, wizard.job().quantization) == ("gguf", "q4_k_m")
    out = wizard.target.out()
    with qtbot.waitSignal(page.export_requested, timeout=2_000):
        wizard.button(QWizard.WizardButton.CommitButton).click()
    page.apply(RunStarted(run_id="e", folder="f", pid=1))
    page.apply(PhaseChanged(phase="converting", fraction=0.25))
    assert wizard.progress.progress.title.text() == "Writing the GGUF file"
    out.mkdir()
    (out / "mine-Q4_K_M.gguf").touch()
    page.apply(RunCompleted(folder=str(out)))
    assert f'-m "{out / "mine-Q4_K_M.gguf"}"' in wizard.done_step.snippet.toPlainText()
    wizard.accept()


def test_a_folder_that_is_not_empty_is_refused_beside_the_field(
    page: ExportPage, run: Run, qtbot: QtBot, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    wizard = _wizard(page, run, qtbot)
    wizard.next()
    wizard.target.folder.setText(str(tmp_path / "full"))
    wizard.button(QWizard.WizardButton.CommitButton).click()
    assert wizard.currentId() == TARGET
    message = wizard.findChild(QLabel, "error_export_out")
    assert message.text().startswith("This folder is not empty.")
    wizard.reject()


def test_a_refusal_leads_back_to_the_folder(page: ExportPage, run: Run, qtbot: QtBot) -> None:
    wizard = _wizard(page, run, qtbot)
    _commit(wizard)
    page.refuse(UserError("disk_full_ahead", "There is not enough room.", "Free 2 GB."))
    assert wizard.currentId() == TARGET
    message = wizard.findChild(QLabel, "error_export_out")
    assert message.text() == "There is not enough room. Free 2 GB."
    with qtbot.waitSignal(page.export_requested, timeout=2_000):
        wizard.button(QWizard.WizardButton.CommitButton).click()
    page.apply(RunStopped())


def test_a_folder_that_cannot_be_written_leads_back_to_its_field(
    page: ExportPage, run: Run, qtbot: QtBot
) -> None:
    wizard = _wizard(page, run, qtbot)
    _commit(wizard)
    page.apply(RunStarted(run_id="e", folder="f", pid=1))
    page.apply(
        RunFailed(code="x", message="It cannot be made.", remedy="Choose another.", field="out")
    )
    assert wizard.currentId() == TARGET
    message = wizard.findChild(QLabel, "error_export_out")
    assert message.text() == "It cannot be made. Choose another."
    with qtbot.waitSignal(page.export_requested, timeout=2_000):
        wizard.button(QWizard.WizardButton.CommitButton).click()
    page.apply(RunStopped())


def test_cancel_stops_the_export_and_then_closes(page: ExportPage, run: Run, qtbot: QtBot) -> None:
    wizard = _wizard(page, run, qtbot)
    _commit(wizard)
    page.apply(RunStarted(run_id="e", folder="f", pid=1))
    with qtbot.waitSignal(page.cancel_requested, timeout=2_000):
        wizard.button(QWizard.WizardButton.CancelButton).click()
    assert wizard.isVisible()
    with qtbot.waitSignal(wizard.finished, timeout=2_000):
        page.apply(RunStopped())


def test_a_failure_is_said_where_it_happened(page: ExportPage, run: Run, qtbot: QtBot) -> None:
    wizard = _wizard(page, run, qtbot)
    _commit(wizard)
    page.apply(RunFailed(code="x", message="The <b>disk</b> is full.", remedy="Free some."))
    message = wizard.findChild(QLabel, "exportProblem")
    assert message.text() == "The <b>disk</b> is full. Free some."
    wizard.button(QWizard.WizardButton.CancelButton).click()
    assert not wizard.isVisible()
