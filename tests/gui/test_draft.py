"""The job while it is edited: right or wrong, undone and remembered."""

from __future__ import annotations

import pytest
from PySide6.QtWidgets import QApplication

from app import draft as draft_module
from app.draft import JobDraft, problems_of
from app.settings import Settings
from training_backend.errors import JobError
from training_backend.starting_points.demo import demo_job


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


def test_other_data_are_read_afresh(qapp: QApplication) -> None:
    draft = JobDraft()
    draft.set_source(0, {"format": "custom", "mapping": {"columns": {"a": "text"}}})
    draft.set_value("dataset.fixes", [{"code": "drop_rows", "rows": [3]}])
    draft.choose_data("other.csv")
    dataset = draft.job().dataset
    assert (dataset.path, dataset.format, dataset.mapping) == ("other.csv", "auto", None)
    assert not dataset.fixes  # they named rows of the file before
    draft.undo()
    dataset = draft.job().dataset
    assert (dataset.path, dataset.format, len(dataset.fixes)) == ("demo", "custom", 1)


def test_several_sources_and_back_to_one(qapp: QApplication) -> None:
    draft = JobDraft()
    draft.set_source(0, {"format": "messages"})
    draft.add_source("more.csv")
    draft.set_source(1, {"weight": 3, "delimiter": ";"})
    first, second = draft.job().dataset.resolved_sources()
    assert (first.path, first.format, first.weight) == ("demo", "messages", None)
    assert (second.path, second.delimiter, second.weight) == ("more.csv", ";", 3)
    assert draft.dataset_text() == "support.jsonl + more.csv"
    draft.replace_source(0, "other.csv")
    first, second = draft.job().dataset.resolved_sources()
    assert (first.path, first.format, second.delimiter) == ("other.csv", "auto", ";")
    draft.undo()
    draft.remove_source(0)
    assert draft.job().dataset.path == "more.csv"
    assert draft.job().dataset.delimiter == ";"
    draft.remove_source(0)  # the last one stays
    assert draft.value("dataset.path") == "more.csv"
    for _ in range(3):
        draft.undo()
    assert draft.job().dataset.path == "demo"


def test_fields_of_one_change_arrive_together(qapp: QApplication) -> None:
    draft = JobDraft()
    seen = []
    draft.changed.connect(lambda _: seen.append(problems_of(draft)))
    draft.set_source(0, {"format": "custom", "mapping": {"columns": {"a": "text"}}})
    draft.undo()
    assert seen == [{}, {}, {}, {}]


def test_a_saved_mixture_is_taken_up(qapp: QApplication) -> None:
    saved = {"model": {"id": "demo"}, "dataset": {"sources": [{"path": "a"}, {"path": "b"}]}}
    assert [s.path for s in JobDraft(saved).job().dataset.resolved_sources()] == ["a", "b"]


def test_a_choice_is_no_part_of_what_was_typed(
    qapp: QApplication, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft_module, "MERGE_SECONDS", 10.0)
    draft = JobDraft()
    draft.set_value("lora.r", 8)
    draft.set_values({"lora.r": 64})
    draft.undo()
    assert draft.value("lora.r") == 8
