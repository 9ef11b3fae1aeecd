"""`diff`: in which settings jobs differ."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training_backend import runs
from training_backend.__main__ import main
from training_backend.job import parse_job

JOB = {"model": {"id": "owner/name"}, "dataset": {"path": "demo"}, "lora": {"r": 8}}


@pytest.fixture
def files(tmp_path: Path, lorasmith_home: Path) -> tuple[str, str]:
    paths = tmp_path / "a.json", tmp_path / "b.json"
    paths[0].write_text(json.dumps(JOB), "utf-8")
    paths[1].write_text(json.dumps({"name": "ü", "training": {"packing": True}}), "utf-8")
    return str(paths[0]), str(paths[1])


def test_two_jobs_differ_field_by_field(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", *files]) == 0
    assert capsys.readouterr().out.splitlines() == [
        'name              null -> "ü"',
        "lora.r            8 -> 16",
        "training.packing  false -> true",
    ]
    assert main(["diff", files[0], files[0]]) == 0
    assert capsys.readouterr().out == "They are the same.\n"


def test_one_job_differs_from_the_defaults_in_its_settings(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", files[0]]) == 0
    assert capsys.readouterr().out == "lora.r  16 -> 8\n"
    Path(files[0]).write_text('{"lora": {}}', "utf-8")
    assert main(["diff", files[0]]) == 0
    assert capsys.readouterr().out == "Nothing but defaults.\n"


def test_a_run_is_compared_by_its_id_as_json(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs.create(parse_job({**JOB, "lora": {"r": 4}}))
    assert main(["diff", run.id, files[0], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"part": "settings", "field": "lora.r", "now": 4, "then": 8}
    ]


def test_what_cannot_be_read_is_exit_code_1(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(files[1]).write_text("[]", "utf-8")
    for other in (files[1], "no-such-run", "gone.json"):
        assert main(["diff", files[0], other]) == 1
        told = capsys.readouterr()
        assert told.out == "" and told.err.strip()
