"""A report on a run tells what happened and nothing private: canaries are looked for in it."""

from __future__ import annotations

import base64
import json
import platform
import urllib.parse
import zipfile
from pathlib import Path
from typing import Any

import pytest

from training_backend import runs
from training_backend.__main__ import main
from training_backend.errors import UserError
from training_backend.hub import hub_token
from training_backend.job import parse_job
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import (
    AnswersScored,
    CheckpointSaved,
    Event,
    Heartbeat,
    LogLine,
    MemorySampled,
    MetricsLogged,
    PhaseChanged,
    RunFailed,
    RunInterrupted,
    RunStarted,
    SampleGenerated,
    Score,
    ScoredAnswer,
    WarningRaised,
)
from training_backend.runs import Run
from training_backend.summaries import redaction, run_report

USER = "annabeth"
TOKEN = "hf_CanaryOfTheKeyring0123456789"
OTHER_TOKEN = "canary-of-another-service"
PROMPT = "canary-prompt"
ROW = "canary-row"
NAME = "canary-name"
CANARIES = (USER, TOKEN, OTHER_TOKEN, PROMPT, ROW, NAME, "canary")

LOG = f"""{ROW} printed by some library
/home/{USER}/.venv/lib/python3.11/site-packages/torch/cuda/memory.py:413: FutureWarning: {ROW}
Traceback (most recent call last):
  File "/home/{USER}/{NAME}/training_backend/train.py", line 71, in run
    return _run(job, reporter, resume_from)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "C:\\Users\\{USER}\\venv\\Lib\\site-packages\\trl\\trainer.py", line 12, in step
    loss = self.compute(inputs)
  File "<template>", line 3, in top-level template code
    {{{{ "{PROMPT}" }}}}
KeyError: '{ROW}'
torch.AcceleratorError: CUDA error: an illegal memory access was encountered
pushed to https://{USER}:{OTHER_TOKEN}@example.org
mail to {USER}@example.org, token {TOKEN}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A failed run of somebody whose name, token and data are canaries, wherever they can stand."""
    person = tmp_path / "home" / USER
    monkeypatch.setenv("HOME", str(person))
    monkeypatch.setenv("USERPROFILE", str(person))
    for name in ("USER", "USERNAME", "LOGNAME"):
        monkeypatch.setenv(name, USER)
    monkeypatch.setenv("LORASMITH_HOME", str(person / "state"))
    monkeypatch.setenv("SOME_API_KEY", OTHER_TOKEN)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    data = person / NAME / "rows.jsonl"
    data.parent.mkdir(parents=True)
    data.write_text("{}")
    assert hub_token.store(TOKEN) == "file"
    made = runs.create(parse_job(_job(data)))
    made.log_path.write_text(LOG)
    writer = JournalWriter(made.folder)
    for event in _events(made, data):
        writer.append(event)
    writer.close()
    return made


def _job(data: Path) -> dict[str, Any]:
    return {
        "name": NAME,
        "model": {"id": "HuggingFaceTB/SmolLM2-135M", "adapter": str(data.parent)},
        "dataset": {
            "path": str(data),
            "mapping": {"user": f"{ROW} {{q}}", "assistant": "{a}", "system_prompt": PROMPT},
            "fixes": [
                {"code": "fill_placeholders", "values": {f"{ROW} key": ROW}},
                {"code": "drop_rows", "rows": list(range(200))},
            ],
        },
        "lora": {"r": 8, "target_modules": ["q_proj", "v_proj"]},
        "training": {"max_steps": 20, "learning_rate": 1e-4},
        "evaluation": {"prompts": [PROMPT]},
    }


def _events(run: Run, data: Path) -> list[Event]:
    error = UserError("bad_row", "Row {row} of {path} holds {text}.", "Look at {path}.",
                      row=7, path=data, text=ROW)  # fmt: skip
    answer = ScoredAnswer(question=PROMPT, reference=ROW, before=ROW, after=ROW)
    return [
        RunStarted(run_id=run.id, folder=str(run.folder), pid=1),
        PhaseChanged(phase="waiting", detail=f"{NAME} is using it"),
        MemorySampled(
            device="cuda:0",
            device_name="NVIDIA GeForce RTX 4090",
            process_bytes=2**33,
            device_used_bytes=2**34,
            device_total_bytes=24 * 2**30,
        ),
        Heartbeat(),
        MetricsLogged(step=3, total_steps=20, epoch=0.1, loss=1.25, grad_norm=0.5),
        SampleGenerated(step=3, prompt=PROMPT, answer=ROW),
        AnswersScored(
            step=3, rows=1, scores=(Score(name="f1", before=0.1, after=0.2),), examples=(answer,)
        ),
        CheckpointSaved(step=3, path=str(run.checkpoints / "checkpoint-3"), bytes=12),
        LogLine(message=ROW),
        WarningRaised(code="w", message=f"Too long: {ROW}", params={"what": ROW}),
        WarningRaised(code="w", message=f"Too long: ['{ROW}']", params={"what": [ROW]}),
        RunInterrupted(cause="signal", code="crashed", detail="It crashed.", log_tail=LOG),
        RunStarted(run_id=run.id, folder=str(run.folder), pid=1, attempt=2),
        RunFailed.of(error),
    ]


def _forms(canary: str) -> list[str]:
    return [canary, urllib.parse.quote(canary), base64.b64encode(canary.encode()).decode()[:-4]]


def test_no_canary_is_in_any_byte_of_the_report(run: Run, tmp_path: Path) -> None:
    out = tmp_path / run_report.file_name(run)
    run_report.save(run_report.texts(run), out)
    with zipfile.ZipFile(out) as file:
        found = {name: file.read(name).decode() for name in file.namelist()}
    found["names"] = " ".join([*found, out.name])
    assert len(found) == 6
    for name, text in found.items():
        for canary in CANARIES:
            for form in _forms(canary):
                assert form.lower() not in text.lower(), (name, canary)
        assert str(Path.home()) not in text and platform.node() not in text.split()


def test_what_happened_is_told(run: Run) -> None:
    texts = run_report.texts(run)
    summary = texts["summary.txt"]
    assert "Failed: bad_row" in summary
    assert "Row 7 of <path> holds <text>. Look at <path>." in summary
    assert "rows of data" in summary  # it says what is left out
    events = [json.loads(line) for line in texts["events.jsonl"].splitlines()]
    assert [event["seq"] for event in events] == [seq for seq in range(14) if seq != 3]
    by_type = {event["type"]: event for event in events}
    assert by_type["MetricsLogged"]["loss"] == 1.25
    assert by_type["MemorySampled"]["device_name"] == "NVIDIA GeForce RTX 4090"
    assert by_type["CheckpointSaved"]["path"] == "<folder>/checkpoint-3"
    assert by_type["RunInterrupted"]["code"] == "crashed"
    assert "Computer" in texts["computer.txt"] and "torch" in texts["computer.txt"]


def test_the_settings_are_told_as_far_as_they_are_no_texts_of_ones_own(run: Run) -> None:
    job = json.loads(run_report.texts(run)["job.json"])
    assert job["model"]["id"] == "HuggingFaceTB/SmolLM2-135M"
    assert job["lora"]["r"] == 8 and job["lora"]["target_modules"] == ["q_proj", "v_proj"]
    assert job["training"]["optim"] == run.training_job().training.optim
    assert job["dataset"]["skip_bad_lines"] is False and job["dataset"]["split"] == "train"
    assert job["evaluation"]["prompts"] == [f"<left out, {len(PROMPT)} characters>"]
    fixes = job["dataset"]["fixes"]
    assert fixes[0] == {"code": "fill_placeholders", "values": "<1 entries>"}
    assert fixes[1]["rows"] == "<200 entries>"


def test_of_a_log_tracebacks_stay_and_the_rest_is_left_out(run: Run) -> None:
    assert run_report.texts(run)["worker.log"].splitlines() == [
        "<1 line left out>",
        "torch/cuda/memory.py:413: FutureWarning",
        "Traceback (most recent call last):",
        '  File "training_backend/train.py", line 71, in run',
        "    return _run(job, reporter, resume_from)",
        "           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
        '  File "trl/trainer.py", line 12, in step',
        "    loss = self.compute(inputs)",
        '  File "<template>", line 3, in top-level template code',
        "<1 line left out>",
        "KeyError: <left out, 12 characters>",
        "torch.AcceleratorError: CUDA error: an illegal memory access was encountered",
        "<2 lines left out>",
    ]


def test_a_crash_report_stays_readable() -> None:
    crash = (
        "Fatal Python error: Segmentation fault\n\n"
        "Current thread 0x00007f01 (most recent call first):\n"
        '  File "/x/site-packages/torch/nn/linear.py", line 134 in forward\n'
        "Extension modules: numpy._core, torch._C (total: 2)"
    )
    assert redaction.log(crash) == crash.replace("/x/site-packages/", "")


def test_names_of_the_computer_are_taken_out_wherever_they_stand(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("USER", "bo")
    monkeypatch.setenv("LORASMITH_HOME", str(tmp_path))
    monkeypatch.setattr(platform, "node", lambda: "GRANDPA-PC")
    scrub = redaction.Scrubber(tmp_path / "20260101-000000-secret-plan")
    assert scrub("a robot of bo on grandpa-pc") == "a robot of <user> on <computer>"
    assert scrub("20260101-000000-secret-plan") == "<run>"
    assert scrub(r"C:\Users\Someone\x and C:\\Users\\Someone\\x") == r"<home>\x and <home>\\x"
    assert scrub("/home/someone/x") == "<home>/x"
    assert scrub("ghp_0123456789abcdefghij") == "<secret>"


def test_a_damaged_run_can_be_reported_too(run: Run) -> None:
    (run.folder / "job.json").write_text("{")
    (run.folder / "events.jsonl").write_bytes(b"\xff\n{}\n")
    run.log_path.unlink()
    texts = run_report.texts(run)
    assert texts["job.json"] == "The job cannot be read (job_not_json).\n"
    assert "state: queued" in texts["summary.txt"]
    assert texts.keys() == {"summary.txt", "job.json", "computer.txt"}


def test_of_many_numbers_the_last_ones_are_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_report, "MOST_NUMBERS", 5)
    writer = JournalWriter(run.folder)
    for step in range(20):
        writer.append(MetricsLogged(step=step, total_steps=20, epoch=0.1, loss=1.0))
    writer.close()
    events = [json.loads(one) for one in run_report.texts(run)["events.jsonl"].splitlines()]
    assert [e["step"] for e in events if e["type"] == "MetricsLogged"] == [15, 16, 17, 18, 19]


def test_a_place_that_cannot_be_written_is_said(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError) as told:
        run_report.save({"a.txt": "b"}, tmp_path / "no folder" / "x.zip")
    assert told.value.code == "report_not_written"


def test_the_command_saves_it_or_prints_it(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.zip"
    assert main(["report", run.id, "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert zipfile.is_zipfile(out)
    assert main(["report", run.id]) == 0
    printed = capsys.readouterr().out
    assert "----- summary.txt" in printed and "canary" not in printed
    assert main(["report", "no such run"]) == 1
