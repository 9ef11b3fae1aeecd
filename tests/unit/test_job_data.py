"""The data section of a job: sources, mappings, fixes, and what is said of mistakes in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training_backend.errors import JobError
from training_backend.job import TrainingJob, load_job, parse_job


def job_with(dataset: dict[str, Any]) -> TrainingJob:
    job = parse_job({"model": {"id": "demo"}, "dataset": dataset})
    assert isinstance(job, TrainingJob)
    return job


def test_a_path_is_short_for_one_source() -> None:
    dataset = job_with({"path": "a.csv", "format": "alpaca", "delimiter": ";"}).dataset
    (source,) = dataset.resolved_sources()
    assert (source.path, source.format, source.delimiter) == ("a.csv", "alpaca", ";")
    assert dataset.title == "a.csv"


def test_sources_keep_their_own_reading_and_mapping() -> None:
    job = job_with({"sources": [
        {"path": "a.jsonl", "weight": 3},
        {"path": "b.xlsx", "sheet": "Two", "mapping": {"columns": {"q": "user", "a": "assistant"}}},
    ]})  # fmt: skip
    first, second = job.dataset.resolved_sources()
    assert (first.weight, second.weight, second.sheet) == (3, None, "Two")
    assert parse_job(job.model_dump(mode="json")) == job
    assert job.dataset.title == "a.jsonl + b.xlsx"


def test_a_test_file_is_read_as_the_first_source() -> None:
    dataset = job_with({"path": "a", "held_out_path": "b", "format": "alpaca"}).dataset
    source = dataset.held_out_source()
    assert source is not None and (source.path, source.format) == ("b", "alpaca")


@pytest.mark.parametrize(
    ("dataset", "field", "message"),
    [
        ({}, "dataset.path", "is missing"),
        ({"path": "a", "sources": [{"path": "b"}]}, "dataset.path", "either path or sources"),
        ({"sources": [{"path": "a", "weight": 0}]}, "dataset.sources", "number 1, weight"),
        ({"sources": [{"path": "a", "pth": 1}]}, "dataset.sources", "did you mean path?"),
        ({"sources": [{"path": "a"}], "format": "text"}, "dataset.path", "each says for itself"),
        ({"path": "a", "format": "custom"}, "dataset.mapping", "needs a mapping"),
        ({"path": "a", "format": "text", "mapping": {"columns": {"a": "text"}}}, "dataset.mapping",
         "goes with the format custom"),
        ({"path": "a", "mapping": {"columns": {"a": "user"}}}, "dataset.mapping", "is the answer"),
        ({"path": "a", "mapping": {"assistant": "yes"}}, "dataset.mapping", "no {column}"),
        ({"path": "a", "fixes": [{"code": "drop_rows"}]}, "dataset.fixes", "a finding"),
        ({"path": "a", "fixes": [{"code": "x"}]}, "dataset.fixes", "number 1"),
        ({"path": "a", "chat_template": "x"}, "dataset.chat_template", "chatml"),
    ],
)  # fmt: skip
def test_mistakes_name_their_field(dataset: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(JobError) as caught:
        job_with(dataset)
    (problem,) = caught.value.problems
    assert problem.field == field and message in problem.message


def test_paths_beside_the_job_file_are_made_absolute(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl", "test.jsonl"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    document = {"model": {"id": "demo"}, "dataset": {
        "sources": [{"path": "a.jsonl"}, {"path": "b.jsonl"}, {"path": "demo"}],
        "held_out_path": "test.jsonl"}}  # fmt: skip
    (tmp_path / "job.json").write_text(json.dumps(document), encoding="utf-8")
    job = load_job(tmp_path / "job.json")
    assert isinstance(job, TrainingJob)
    paths = [source.path for source in job.dataset.sources]
    assert paths == [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"), "demo"]
    assert job.dataset.held_out_path == str(tmp_path / "test.jsonl")
