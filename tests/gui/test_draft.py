"""The job while it is edited: right or wrong, undone and remembered."""

from __future__ import annotations

import pytest
from PySide6.QtWidgets import QApplication

from app import draft as draft_module
from app.draft import JobDraft, problems_of
from app.settings import Settings
from training_backend.demo import demo_job
from training_backend.errors import JobError


@pytest.fixture(autouse=True)
def each_change_is_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draft_module, "MERGE_SECONDS", 0.0)


def test_first_draft_is_a_job_that_can_start(qapp: QApplication) -> None:
    job = JobDraft().job()
    assert job == demo_job()


def test_all_mistakes_are_told_at_once(qapp: QApplication) -> None:
    draft = JobDraft()
    draft.set_value("lora.r", 0)
    draft.set_value("training.learning_rate", "fast")
    draft.set_value("model.id", "")
    with pytest.raises(JobError) as caught:
        draft.job()
    fields = {problem.field for problem in caught.value.problems}
    assert fields == {"lora.r", "training.learning_rate", "model.id"}
    assert set(problems_of(draft)) == fields


def test_undo_and_redo(qapp: QApplication) -> None:
    draft = JobDraft()
    draft.set_value("lora.r", 8)
    draft.set_value("training.max_steps", 5)
    assert draft.undo() == "training.max_steps"
    assert draft.value("training.max_steps") == 40
    assert draft.undo() == "lora.r"
    assert draft.value("lora.r") == 16
    assert draft.undo() == ""
    assert draft.redo() == "lora.r"
    assert draft.value("lora.r") == 8
    draft.set_value("lora.r", 4)
    assert draft.redo() == ""  # a new change ends what could be redone


def test_quick_changes_of_a_field_are_one_step(
    qapp: QApplication, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft_module, "MERGE_SECONDS", 10.0)
    draft = JobDraft()
    for value in (1, 12, 128):
        draft.set_value("lora.r", value)
    draft.undo()
    assert draft.value("lora.r") == 16


def test_reset_is_one_step(qapp: QApplication) -> None:
    draft = JobDraft()
    draft.reset(["training.max_steps", "training.learning_rate"])
    assert draft.value("training.max_steps") == -1
    assert draft.value("training.learning_rate") == 2e-4
    draft.undo()
    assert draft.value("training.max_steps") == 40
    assert draft.value("training.learning_rate") == 1e-3


def test_draft_goes_on_where_the_person_was(qapp: QApplication) -> None:
    draft = JobDraft()
    draft.set_value("lora.r", "twelve")  # wrong, and kept
    draft.set_value("name", "second try")
    settings = Settings()
    settings.set_draft(draft.document())
    settings.flush()
    again = JobDraft(Settings().draft())
    assert again.value("lora.r") == "twelve"
    assert again.value("name") == "second try"


def test_damaged_or_foreign_drafts_start_afresh(qapp: QApplication) -> None:
    assert JobDraft({"version": 99, "lora": {"r": 3}}).value("lora.r") == 16
    odd = JobDraft({"lora": "no object", "unknown": 1, "training": {"unknown": 2}})
    assert odd.job().lora.r == 16


def test_sidebar_texts(qapp: QApplication) -> None:
    draft = JobDraft()
    assert draft.model_text() == "SmolLM2-135M-Instruct"
    draft.set_value("model.id", "/models/some-model")
    draft.set_value("dataset.path", "/data/my rows.jsonl")
    draft.set_value("quantization.load_in_4bit", False)
    assert draft.summary() == "some-model on my rows.jsonl, LoRA r 16"
