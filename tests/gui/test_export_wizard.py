"""The Export page and its wizard, with events as a worker would send them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PySide6.QtWidgets import QApplication, QDialog, QLabel, QMessageBox, QWizard
from pytestqt.qtbot import QtBot

from app.dialogs.export_wizard import DONE, FORMAT, PLACE, PROGRESS, SOURCE, ExportWizard
from app.models import made_exports
from app.models.export_sources import fresh_folder
from app.pages.export_wizard import ExportPage
from app.widgets.runs.export_proof import ProofView
from training_backend import runs
from training_backend.computer import drive
from training_backend.errors import JobError, Problem, UserError
from training_backend.export import proof_record
from training_backend.job import MOST_QUESTIONS, ExportJob, parse_job
from training_backend.lifecycle.journal import JournalWriter
from training_backend.paths import UNFINISHED, partial_of
from training_backend.protocol import (
    Event,
    ExportProved,
    PhaseChanged,
    ProofCheck,
    RunCompleted,
    RunFailed,
    RunStarted,
    RunStopped,
    WarningRaised,
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
    about = {"peft_type": "LORA", "base_model_name_or_path": "demo"}
    (made.adapter / "adapter_config.json").write_text(json.dumps(about))
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
    qtbot.waitUntil(lambda: page.findChild(QWizard, "exportWizard") is not None)
    wizard = page.findChild(QWizard, "exportWizard")
    assert isinstance(wizard, ExportWizard)
    return wizard


def _commit(wizard: ExportWizard) -> None:
    button = wizard.button(QWizard.WizardButton.CommitButton)
    assert button.objectName() == "exportStartButton"
    while not button.isVisible():
        wizard.next()
    assert wizard.currentId() == PLACE
    button.click()


def _leave(wizard: ExportWizard, answer: str) -> None:
    """Press Escape, and answer the question that comes."""
    wizard.reject()
    question = wizard.findChild(QMessageBox, "leaveExportDialog")
    button = next(button for button in question.buttons() if button.text() == answer)
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
    with qtbot.waitSignal(page.export_requested) as asked:
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
    assert f"from_pretrained({job.out!r})" in wizard.done_step.result.snippet.toPlainText()
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
    qtbot.waitUntil(lambda: bits.currentText().endswith("MB"))
    assert bits.currentText().startswith("8 bits (Q8_0)")
    bits.setCurrentIndex(bits.findData("q4_k_m"))
    wizard.back()
    wizard.next()
    assert (wizard.job().format, wizard.job().quantization) == ("gguf", "q4_k_m")
    wizard.next()
    out = wizard.place.out()
    with qtbot.waitSignal(page.export_requested):
        wizard.button(QWizard.WizardButton.CommitButton).click()
    page.apply(RunStarted(run_id="e", folder="f", pid=1))
    page.apply(PhaseChanged(phase="converting", fraction=0.25))
    assert wizard.progress.progress.title.text() == "Writing the GGUF file"
    out.mkdir()
    (out / "mine-Q4_K_M.gguf").touch()
    page.apply(RunCompleted(folder=str(out)))
    assert f'-m "{out / "mine-Q4_K_M.gguf"}"' in wizard.done_step.result.snippet.toPlainText()
    wizard.accept()


def test_a_folder_that_is_not_empty_is_refused_beside_the_field(
    page: ExportPage, run: Run, qtbot: QtBot, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    wizard = _wizard(page, run, qtbot)
    wizard.next()
    wizard.next()
    wizard.place.folder.setText(str(tmp_path / "full"))
    wizard.button(QWizard.WizardButton.CommitButton).click()
    assert wizard.currentId() == PLACE
    message = wizard.findChild(QLabel, "error_export_out")
    assert message.text().startswith("This folder is not empty.")
    wizard.reject()


def test_a_refusal_leads_back_to_the_folder(page: ExportPage, run: Run, qtbot: QtBot) -> None:
    wizard = _wizard(page, run, qtbot)
    _commit(wizard)
    page.refuse(UserError("disk_full_ahead", "There is not enough room.", "Free 2 GB."))
    assert wizard.currentId() == PLACE
    message = wizard.findChild(QLabel, "error_export_out")
    assert message.text() == "There is not enough room. Free 2 GB."
    with qtbot.waitSignal(page.export_requested):
        wizard.button(QWizard.WizardButton.CommitButton).click()
    page.apply(RunStopped())


@pytest.mark.parametrize(
    ("field", "step", "name"),
    [
        ("run", SOURCE, "error_export_run"),
        ("checkpoint", SOURCE, "error_export_run"),
        ("format", FORMAT, "error_export_format"),
        ("out", PLACE, "error_export_out"),
    ],
)
@pytest.mark.parametrize("begun", [False, True])
def test_a_mistake_is_told_where_it_was_made(
    page: ExportPage, run: Run, qtbot: QtBot, field: str, step: int, name: str, begun: bool
) -> None:
    wizard = _wizard(page, run, qtbot)
    _commit(wizard)
    if begun:
        page.apply(RunStarted(run_id="e", folder="f", pid=1))
        page.apply(RunFailed(code="x", message="It is <b>gone</b>.", remedy="Look.", field=field))
    else:
        page.refuse(JobError([Problem(field, "It is <b>gone</b>. Look.")]))
    assert wizard.currentId() == step
    message = wizard.findChild(QLabel, name)
    assert message.isVisible() and message.text() == "It is <b>gone</b>. Look."
    if step == SOURCE:
        wizard.source.checkpoints.setCurrentIndex(1)
        assert not message.isVisible()
    with qtbot.waitSignal(page.export_requested):
        _commit(wizard)
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
    assert wizard.currentId() == PLACE
    message = wizard.findChild(QLabel, "error_export_out")
    assert message.text() == "It cannot be made. Choose another."
    with qtbot.waitSignal(page.export_requested):
        wizard.button(QWizard.WizardButton.CommitButton).click()
    page.apply(RunStopped())


def test_cancel_asks_first_then_stops_the_export_and_closes(
    page: ExportPage, run: Run, qtbot: QtBot
) -> None:
    wizard = _wizard(page, run, qtbot)
    _commit(wizard)
    page.apply(RunStarted(run_id="e", folder="f", pid=1))
    with qtbot.assertNotEmitted(page.cancel_requested):
        wizard.button(QWizard.WizardButton.CancelButton).click()
        wizard.findChild(QMessageBox, "leaveExportDialog").reject()  # Escape: nothing happens
    assert wizard.isVisible()
    QApplication.processEvents()
    with qtbot.waitSignal(page.cancel_requested):
        _leave(wizard, "Cancel the export")
    assert wizard.isVisible()
    with qtbot.waitSignal(wizard.finished):
        page.apply(RunStopped())


def test_a_closed_wizard_leaves_the_export_to_the_page(
    page: ExportPage, run: Run, qtbot: QtBot
) -> None:
    wizard = _wizard(page, run, qtbot)
    _commit(wizard)
    page.apply(RunStarted(run_id="e", folder="f", pid=1))
    with (
        qtbot.waitSignal(wizard.finished),
        qtbot.assertNotEmitted(page.cancel_requested),
    ):
        _leave(wizard, "Go on in the background")
    page.apply(PhaseChanged(phase="merging", fraction=0.5))
    assert page._progress.bar.value() == 500
    assert not page.export_button.isEnabled()  # one at a time
    page.apply(RunCompleted(folder="f"))
    assert page.export_button.isEnabled()


def test_a_failure_is_said_where_it_happened(page: ExportPage, run: Run, qtbot: QtBot) -> None:
    wizard = _wizard(page, run, qtbot)
    _commit(wizard)
    page.apply(RunFailed(code="x", message="The <b>disk</b> is full.", remedy="Free some."))
    message = wizard.findChild(QLabel, "exportProblem")
    assert message.text() == "The <b>disk</b> is full. Free some."
    wizard.button(QWizard.WizardButton.CustomButton1).click()
    assert wizard.currentId() == PLACE
    with qtbot.waitSignal(page.export_requested):
        wizard.button(QWizard.WizardButton.CommitButton).click()
    page.apply(RunFailed(code="x", message="It is full still."))
    assert message.text() == "It is full still."
    wizard.button(QWizard.WizardButton.CancelButton).click()
    assert not wizard.isVisible()


def test_of_a_run_that_went_on_after_its_best_test_the_best_checkpoint_is_chosen(
    page: ExportPage, run: Run, qtbot: QtBot
) -> None:
    _test_checkpoints(run, {2: 1.5, 10: 2.5})
    wizard = _wizard(page, run, qtbot)
    assert wizard.source.checkpoints.currentText() == "step 2, the best"
    assert wizard.job().checkpoint == "checkpoint-2"
    wizard.reject()


def test_sizes_memory_and_time_stand_there_before_anything_is_written(
    page: ExportPage, run: Run, qtbot: QtBot
) -> None:
    wizard = _wizard(page, run, qtbot)
    wizard.next()
    step = wizard.target
    qtbot.waitUntil(lambda: step._size.value.text() == "274.0 MB")
    assert step._sizes["bnb_4bit"].text() != step._sizes["safetensors"].text() != ""
    assert "GB" in step._memory.value.text()
    assert step._time.value.text() == "25 s"  # most of it for the download
    assert step._note.text().endswith("it is downloaded first, 92.9 MB.")
    before = step._room.value.text()
    step.gguf.click()
    assert step._room.value.text() != before
    wizard.next()
    qtbot.waitUntil(lambda: "that are free on" in wizard.place._room.text())
    assert "of memory" in wizard.place._about_check.text()
    wizard.reject()


def test_a_drive_without_room_is_told_before_the_export_begins(
    page: ExportPage, run: Run, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive, "free_bytes", lambda _: 1_000_000)
    wizard = _wizard(page, run, qtbot)
    wizard.next()
    qtbot.waitUntil(lambda: wizard.target._size.value.text() == "274.0 MB")
    wizard.next()
    message = wizard.findChild(QLabel, "error_export_out")
    qtbot.waitUntil(lambda: message.text().startswith("There is not enough room"))
    with qtbot.assertNotEmitted(page.export_requested):
        wizard.button(QWizard.WizardButton.CommitButton).click()
    assert wizard.currentId() == PLACE
    wizard.reject()


def test_what_an_interrupted_export_left_there_needs_no_room_again(
    page: ExportPage, run: Run, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = partial_of(fresh_folder("Support style"))
    there.mkdir()
    (there / UNFINISHED).touch()
    with (there / "model.safetensors").open("wb") as file:
        file.truncate(150_000_000)
    monkeypatch.setattr(drive, "free_bytes", lambda _: 200_000_000)
    wizard = _wizard(page, run, qtbot)
    wizard.next()
    qtbot.waitUntil(lambda: wizard.target._size.value.text() == "274.0 MB")
    wizard.next()
    room = wizard.place._room
    qtbot.waitUntil(lambda: "150.0 MB of an export" in room.text())
    assert "up to 169.0 MB of the 200.0 MB" in room.text()
    with qtbot.waitSignal(page.export_requested) as asked:
        wizard.button(QWizard.WizardButton.CommitButton).click()
    assert partial_of(Path(asked.args[0].out)) == there
    page.apply(RunStopped())


def test_a_file_too_long_for_the_drive_is_told_with_what_helps(
    page: ExportPage, run: Run, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive, "FAT_FILE_BYTES", 100_000_000)
    monkeypatch.setattr(drive, "_file_system", lambda _: ("vfat", []))
    wizard = _wizard(page, run, qtbot)
    wizard.next()
    qtbot.waitUntil(lambda: wizard.target._size.value.text() == "274.0 MB")
    wizard.next()
    message = wizard.findChild(QLabel, "error_export_out")
    qtbot.waitUntil(lambda: "“More options”" in message.text())
    wizard.back()
    wizard.target.options.shard.setValue(0.1)
    wizard.next()
    qtbot.waitUntil(
        lambda: "that are free" in wizard.place._room.text() and not message.isVisible()
    )
    wizard.back()
    wizard.target.gguf.click()  # one file, whatever its length
    wizard.next()
    qtbot.waitUntil(lambda: message.text().endswith("Choose another drive."))
    wizard.reject()


def test_options_own_questions_and_no_check_are_in_the_job(
    page: ExportPage, run: Run, qtbot: QtBot
) -> None:
    wizard = _wizard(page, run, qtbot)
    wizard.next()
    options = wizard.target.options
    options.dtype.setCurrentIndex(options.dtype.findData("float16"))
    options.base.setCurrentIndex(options.base.findData("4-bit"))
    options.shard.setValue(2.5)
    wizard.place.questions.setPlainText("Who are you?\n\n  And why?  ")
    job = wizard.job()
    assert (job.dtype, job.base, job.max_shard_gb) == ("float16", "4-bit", 2.5)
    assert (job.verify, job.prompts) == (True, ("Who are you?", "And why?"))
    wizard.place.questions.setPlainText("Why?\n" * (MOST_QUESTIONS + 1))
    assert len(wizard.job().prompts) == MOST_QUESTIONS
    wizard.target.adapter.click()  # to which none of them means anything
    wizard.place.check.click()
    job = wizard.job()
    assert (job.dtype, job.base, job.max_shard_gb) == ("auto", "16-bit", None)
    assert (job.verify, job.prompts) == (False, ())
    wizard.reject()


def test_a_length_of_files_that_is_none_is_told_beside_it(
    page: ExportPage, run: Run, qtbot: QtBot
) -> None:
    wizard = _wizard(page, run, qtbot)
    wizard.next()
    wizard.target.options.shard.setValue("much")
    wizard.next()
    assert wizard.currentId() == FORMAT
    assert wizard.findChild(QLabel, "error_export_max_shard_gb").isVisible()
    wizard.target.options.shard.setValue(5)
    wizard.next()
    assert wizard.currentId() == PLACE
    wizard.reject()


def test_in_a_chosen_folder_that_is_full_a_new_one_is_proposed(
    page: ExportPage, run: Run, qtbot: QtBot, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    wizard = _wizard(page, run, qtbot)
    wizard.next()
    wizard.next()
    wizard.place.take(tmp_path)
    assert wizard.place.out() == tmp_path / "support-style"
    wizard.reject()


def test_the_stages_of_a_gguf_file_are_ticked_off_one_by_one(
    page: ExportPage, run: Run, qtbot: QtBot
) -> None:
    wizard = _wizard(page, run, qtbot)
    wizard.next()
    wizard.target.gguf.click()
    qtbot.waitUntil(lambda: wizard.target._size.value.text() != "–")
    _commit(wizard)
    page.apply(RunStarted(run_id="e", folder="f", pid=1))
    rows = wizard.progress.progress._rows

    def signs() -> str:
        return "".join(mark.text() for mark, _ in rows)

    assert signs() == "○○○○○○"
    for phase, shown in (
        ("loading", "●○○○○○"),  # the base model comes first
        ("converting", "✓●○○○○"),  # whether it can be such a file
        ("merging", "✓✓●○○○"),
        ("verifying", "✓✓●○○○"),  # a sample of the merged weights
        ("converting", "✓✓✓●○○"),
        ("saving", "✓✓✓✓●○"),
        ("verifying", "✓✓✓✓✓●"),  # the answers
    ):
        page.apply(PhaseChanged(phase=phase))
        assert signs() == shown
    assert wizard.progress.progress.left.text().startswith("about ")
    page.apply(RunStopped())


CHECKS = (
    ProofCheck(name="kl", message="The <b>next word</b>", value=0.5, limit=0.02, passed=False),
    ProofCheck(name="tokens", message="The prompts are the same", value=12, limit=None),
)
PROVED = ExportProved(verdict="different", code="x", message="It was not merged.", checks=CHECKS)


def _texts(view: ProofView) -> list[str]:
    return [label.text() for label in view.findChildren(QLabel)]


def test_the_verdict_and_every_check_are_told_at_the_end(
    page: ExportPage, run: Run, qtbot: QtBot
) -> None:
    wizard = _wizard(page, run, qtbot)
    _commit(wizard)
    page.apply(RunStarted(run_id="e", folder="f", pid=1))
    page.apply(WarningRaised(code="base_changed", message="The base model changed since."))
    page.apply(PROVED)
    page.apply(RunCompleted(folder=str(wizard.place.out())))
    view = wizard.done_step.result.proof
    assert view.verdict.text() == "✕  Answers differently"
    assert view.verdict.property("role") == "bad"
    texts = _texts(view)
    assert {"It was not merged.", "Next word", "The <b>next word</b>"} <= set(texts)
    assert texts.count("✕") == 1
    assert wizard.done_step.result.notes.text() == "The base model changed since."
    result = wizard.done_step.result
    with qtbot.waitSignal(page.hand_off_requested) as asked:
        result.hand_off.click()
    assert asked.args == [wizard.place.out()]
    with qtbot.waitSignal(page.push_requested):
        result.push.click()
    wizard.accept()


def test_an_export_without_a_check_is_never_called_alike(
    page: ExportPage, run: Run, qtbot: QtBot
) -> None:
    wizard = _wizard(page, run, qtbot)
    wizard.place.check.setChecked(False)
    _commit(wizard)
    page.apply(RunStarted(run_id="e", folder="f", pid=1))
    page.apply(RunCompleted(folder=str(wizard.place.out())))
    assert wizard.done_step.result.proof.verdict.text() == "–  Not checked"
    wizard.accept()


def test_of_an_export_that_is_only_being_checked_the_files_stay(
    page: ExportPage, run: Run, qtbot: QtBot
) -> None:
    wizard = _wizard(page, run, qtbot)
    wizard.next()
    qtbot.waitUntil(lambda: wizard.target._size.value.text() != "–")
    _commit(wizard)
    page.apply(RunStarted(run_id="e", folder="f", pid=1))
    for phase in ("merging", "saving", "verifying"):
        page.apply(PhaseChanged(phase=phase))
    assert "The files are whole" in wizard.progress.subTitle()
    wizard.reject()
    question = wizard.findChild(QMessageBox, "leaveExportDialog")
    assert "Its files are whole and stay." in question.informativeText()
    question.reject()
    QApplication.processEvents()
    with qtbot.waitSignal(page.cancel_requested):
        _leave(wizard, "Leave out the check")
    page.apply(ExportProved(verdict="not_proven", code="proof_stopped", message="Stopped."))
    page.apply(RunCompleted(folder=str(wizard.place.out())))
    assert wizard.currentId() == DONE
    assert wizard.done_step.result.proof.verdict.text() == "?  Not proven"
    wizard.accept()


def _export(run: Run, folder: Path, *events: Event) -> Run:
    made = runs.create(ExportJob(name="Support style", run=str(run.folder), out=str(folder)))
    writer = JournalWriter(made.folder)
    writer.append(RunStarted(run_id=made.id, folder=str(made.folder), pid=1))
    for event in events:
        writer.append(event)
    writer.close()
    return made


def test_exports_that_are_still_there_are_found_again(
    page: ExportPage, run: Run, qtbot: QtBot, tmp_path: Path
) -> None:
    here, gone = tmp_path / "here", tmp_path / "gone"
    here.mkdir()
    (here / "model.safetensors").write_bytes(bytes(2_000_000))
    _export(run, here, PROVED, RunCompleted(folder=str(here)))
    _export(run, gone, RunCompleted(folder=str(gone)))
    _export(run, tmp_path / "failed", RunFailed(code="x", message="No."))
    assert [made.folder for made in made_exports.list_exports()] == [here]
    page.show()
    qtbot.waitUntil(lambda: page.made.isVisible())
    shown = page.made.exports
    texts = [shown.data(shown.index(0, column)) for column in range(shown.columnCount())]
    assert texts[:2] == ["Support style", "Whole model"]
    assert texts[3:] == ["2.0 MB", "✕ Answers differently", str(here)]
    with qtbot.waitSignal(page.check_requested) as asked:
        page.made.check.click()
    assert asked.args[0].folder == here
    page.apply(RunStarted(run_id="e", folder="f", pid=1))
    assert not page.made.check.isEnabled()  # one at a time
    alike = PROVED.model_copy(update={"verdict": "alike", "message": "It is alike now."})
    (here / "proof.json").write_text(alike.model_dump_json(), encoding="utf-8")
    page.apply(alike)
    page.apply(RunCompleted(folder=str(here)))
    assert page._progress.title.text() == "Checked  ✓ Answers alike"
    page.apply(RunStarted(run_id="e", folder="f", pid=1))
    why = "It was stopped. What was found stays."
    page.apply(ExportProved(verdict="not_proven", code="x", message=why, kept="alike"))
    page.apply(RunCompleted(folder=str(here)))
    assert page._progress.title.text() == "Not checked again; it stays  ✓ Answers alike"
    assert page._progress.detail.text() == why
    qtbot.waitUntil(lambda: shown.data(shown.index(0, 4)) == "✓ Answers alike")
    page.made.look.click()
    dialog = page.findChild(QDialog, "exportDialog")
    assert "It is alike now." in _texts(dialog.findChild(ProofView))
    dialog.accept()


def test_a_verdict_on_files_that_were_changed_since_is_none(run: Run, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    weights = here / "model.safetensors"
    weights.write_bytes(bytes(1_000))
    made = _export(run, here, PROVED, RunCompleted(folder=str(here)))
    job = made.job()
    assert isinstance(job, ExportJob)
    proof_record.write(here, job, PROVED, proof_record.state(here))
    (found,) = made_exports.list_exports()
    assert found.proof is not None and found.proof.verdict == PROVED.verdict
    weights.write_bytes(bytes(1_001))
    (found,) = made_exports.list_exports()
    assert found.proof is not None and found.proof.verdict == "not_proven"
    assert "others than those that were checked" in found.proof.message


def test_an_export_that_can_be_followed_no_more_keeps_nobody_waiting(
    page: ExportPage, run: Run, qtbot: QtBot
) -> None:
    wizard = _wizard(page, run, qtbot)
    _commit(wizard)
    page.finish(None)  # before its first word
    assert wizard.progress.progress.title.text() == "The export failed"
    assert wizard.button(QWizard.WizardButton.CancelButton).isEnabled()
    wizard.reject()
    page.apply(RunStarted(run_id="x", folder="x", pid=1))
    assert not page.export_button.isEnabled()
    page.finish(None)
    assert page.export_button.isEnabled()
    assert "cannot be read" in page._errors.text()


def test_an_export_that_said_its_last_word_is_not_told_of_twice(
    page: ExportPage, run: Run, tmp_path: Path
) -> None:
    page.apply(RunStarted(run_id="x", folder="x", pid=1))
    end = RunCompleted(folder=str(tmp_path))
    page.apply(end)
    page.finish(end)
    page.finish(None)
    assert page._progress.title.text() == "Exported"
    assert page._errors.text() == ""
