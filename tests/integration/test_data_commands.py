"""`preview` and `lint` on the command line: what they print, and how they fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY

ROWS = [
    {"conversations": [{"from": "human", "value": f"Question {number}?"},
                       {"from": "gpt", "value": answer}]}
    for number, answer in enumerate(["First.", "", "Third.", "Fourth <|im_end|> more.", "First."])
]  # fmt: skip


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "training_backend", *map(str, arguments)],
        cwd=REPOSITORY, capture_output=True, encoding="utf-8",
    )  # fmt: skip


@pytest.fixture
def job_file(home_with_demo_model: Path, demo_model_dir: Path, tmp_path: Path) -> Path:
    return write_job(tmp_path, demo_model_dir, ROWS)


def write_job(folder: Path, model: Path, rows: list[Any], **dataset: Any) -> Path:
    data = folder / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    job = folder / "job.json"
    job.write_text(
        json.dumps({
            "version": 1, "model": {"id": str(model)},
            "dataset": {"path": "rows.jsonl", **dataset}, "training": {"max_length": 128},
        }), encoding="utf-8",
    )  # fmt: skip
    return job


def test_preview_prints_rows_with_tokens_and_mask(job_file: Path) -> None:
    done = run("preview", job_file, "--rows", "2", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    first, second = document["rows"]
    assert document["format"] == "sharegpt"
    assert first["index"] == 0 and not first["truncated"]
    assert first["n_tokens"] == first["n_tokens_full"] == len(first["tokens"])
    learned = "".join(token["text"] for token in first["tokens"] if token["trained"])
    assert learned == "First.<|im_end|>"
    assert "".join(token["text"] for token in first["tokens"]) == first["text"]
    assert second["problem"] == "rows.jsonl, row 2 has an empty answer."

    later = json.loads(run("preview", job_file, "--rows", "1", "--start", "3", "--json").stdout)
    assert [row["index"] for row in later["rows"]] == [3]


def test_lint_prints_findings_by_row(job_file: Path) -> None:
    done = run("lint", job_file, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    found = {finding["code"]: finding for finding in document["findings"]}
    assert document["rows"] == 5
    assert {"code", "severity", "count", "rows", "message", "fix"} <= found["empty_answer"].keys()
    assert (found["empty_answer"]["rows"], found["empty_answer"]["fix"]) == ([1], "drop_rows")
    assert found["control_tokens"]["rows"] == [3]
    assert document["numbers"]["rows"] == 4
    for_people = run("lint", job_file)
    assert "An empty answer in 1 row. (row 2)" in for_people.stdout


def test_a_file_that_no_row_of_can_be_used_is_linted_too(
    home_with_demo_model: Path, demo_model_dir: Path, tmp_path: Path
) -> None:
    job = write_job(tmp_path, demo_model_dir, [ROWS[1]])
    document = json.loads(run("lint", job, "--json").stdout)
    assert [finding["code"] for finding in document["findings"]] == ["empty_answer"]
    refused = run("train", job)
    assert refused.returncode == 1
    assert "No row of rows.jsonl can be trained on: row 1 has an empty answer." in refused.stderr


def test_mistakes_are_one_clear_sentence(
    home_with_demo_model: Path, demo_model_dir: Path, tmp_path: Path
) -> None:
    job = write_job(tmp_path, demo_model_dir, [{"alpha": 1}])
    for command in ("preview", "lint"):
        done = run(command, job)
        assert done.returncode == 1
        assert "The columns alpha are of no known form." in done.stderr
        assert "Traceback" not in done.stderr
    assert run("preview", job, "--rows", "0").returncode == 2
