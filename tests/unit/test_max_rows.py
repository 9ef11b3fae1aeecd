"""A bound on the rows to learn from: chosen by the seed, while what is tested on stays the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.byte_tokenizer import byte_tokenizer
from training_backend.data.lint import lint
from training_backend.data.training_rows import TrainingRows, training_rows
from training_backend.job import TrainingJob, parse_job

ROWS = 40


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"prompt": f"Say {n}.", "completion": f"It is {n}."} for n in range(ROWS)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def job(data: Path, max_rows: int | None, seed: int = 1, **dataset: Any) -> TrainingJob:
    made = parse_job({
        "model": {"id": "x"},
        "dataset": {"path": str(data), "max_rows": max_rows, **dataset},
        "training": {"max_length": 64, "seed": seed, "gradient_accumulation_steps": 1},
        "evaluation": {"held_out_fraction": 0.25},
    })  # fmt: skip
    assert isinstance(made, TrainingJob)
    return made


def prepared(data: Path, max_rows: int | None, seed: int = 1) -> TrainingRows:
    return training_rows(job(data, max_rows, seed), byte_tokenizer())


def texts(rows: Any) -> set[tuple[int, ...]]:
    return {tuple(ids) for ids in rows["input_ids"]}


def test_sizes_are_nested_and_what_is_tested_on_is_the_same_for_all(data: Path) -> None:
    few, more, all_rows = (prepared(data, count) for count in (8, 20, None))
    assert [len(one.train) for one in (few, more, all_rows)] == [8, 20, 30]
    assert texts(few.train) < texts(more.train) < texts(all_rows.train)
    assert few.held_out is not None and more.held_out is not None and all_rows.held_out is not None
    assert texts(few.held_out) == texts(more.held_out) == texts(all_rows.held_out)
    assert not texts(all_rows.train) & texts(few.held_out)


def test_the_choice_is_the_seeds_and_not_the_first_rows(data: Path) -> None:
    assert texts(prepared(data, 8).train) == texts(prepared(data, 8).train)
    assert texts(prepared(data, 8).train) != texts(prepared(data, 8, seed=2).train)


def test_data_that_has_fewer_rows_is_used_whole_and_that_is_said(data: Path) -> None:
    found = prepared(data, 500)
    assert len(found.train) == 30
    told = {code: text.format(**values) for code, text, values in found.warnings}
    assert told["fewer_rows"] == "There are 30 rows to learn from, fewer than the 500 asked for."
    assert "fewer_rows" not in {code for code, _, _ in prepared(data, 30).warnings}


def test_the_steps_said_beforehand_are_those_of_the_rows_learned_from(data: Path) -> None:
    tokenizer = byte_tokenizer()
    for count, batches in ((8, 4), (20, 10), (None, 15), (500, 15)):
        asked = job(data, count)
        assert lint(asked, tokenizer).numbers.steps_per_epoch(asked) == batches
