"""Benchmarks by lm-eval, where that extra is installed: CONTRIBUTING.md says how."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="needs the extra `benchmarks`"
)

# A task file is YAML, of which JSON is a part.
TASK = {
    "task": "two_words",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    rows = [{"question": f"{n} is", "choices": ["even", "odd"], "answer": n % 2} for n in range(9)]
    data = tmp_path / "test.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = {**TASK, "dataset_kwargs": {"data_files": {"test": str(data)}}}
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "two_words.yaml").write_text(json.dumps(task), encoding="utf-8")
    return folder


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_trained_and_the_base_model_are_measured(
    do: Any, job_document: Any, command_line: Any, tasks: Path, method: str
) -> None:
    training = {"method": method, "max_steps": 1}
    done = do(job_document(training=training, quantization={"load_in_4bit": method == "lora"}))
    assert done.exit_code == 0
    answer = command_line(
        "benchmark", done.run.id, "--tasks", "two_words", "--include", tasks, "--base",
        "--limit", "6", "--json",
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    (result,) = json.loads(answer.stdout)["results"]
    assert (result["task"], result["metric"], result["samples"]) == ("two_words", "acc", 6)
    for model in ("trained", "base"):
        assert result[model]["value"] in [count / 6 for count in range(7)]
        assert 0 <= result[model]["stderr"] < 0.3


def test_an_unknown_task_is_told_with_its_nearest(
    do: Any, job_document: Any, command_line: Any, tasks: Path
) -> None:
    done = do(job_document(training={"max_steps": 1}))
    answer = command_line("benchmark", done.run.id, "--tasks", "two_wirds", "--include", tasks)
    assert answer.returncode == 1
    assert "Did you mean two_words" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_data_that_cannot_be_had_is_told_before_a_model_is_loaded(
    do: Any, job_document: Any, command_line: Any, tasks: Path
) -> None:
    done = do(job_document(training={"max_steps": 1}))
    (tasks.parent / "test.jsonl").unlink()
    answer = command_line("benchmark", done.run.id, "--tasks", "two_words", "--include", tasks)
    assert answer.returncode == 1
    assert "two_words cannot be loaded" in answer.stderr
    assert "Traceback" not in answer.stderr and "The trained model" not in answer.stderr
