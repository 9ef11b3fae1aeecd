"""A model of the Hub through the processes of the program: asked for, downloaded, trained on."""

from __future__ import annotations

import json
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub_server import HubServer
from tests.integration.test_helper import Helper
from tests.leaks import holds, leaks
from tests.model_files import model_files
from training_backend import preferences, runs
from training_backend.hub import downloads, hub_cache, hub_token
from training_backend.job import parse_job
from training_backend.lifecycle.launch import Worker
from training_backend.preferences import Preferences
from training_backend.protocol import RunFailed
from training_backend.starting_points import recipes

ID = "acme/tiny"
WEIGHTS = "model.safetensors"
CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def asked(hub: HubServer) -> Iterator[Helper]:
    found = Helper()
    yield found
    found.commands.close()
    found.process.join(120)
    found.answers.close()


@pytest.fixture
def job_file(hub: HubServer, tmp_path: Path) -> Path:
    """Three steps on a model of the Hub, named by its address."""
    rows = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "!"}]}
        for n in range(8)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = {
        "model": {"id": f"https://huggingface.co/{ID}"},
        "dataset": {"path": str(tmp_path / "rows.jsonl")},
        "quantization": {"load_in_4bit": False},
        "lora": {"r": 2, "lora_alpha": 4},
        "training": {"max_steps": 3, "save_steps": 2, "max_length": 64},
    }
    path = tmp_path / "job.json"
    path.write_text(json.dumps(job))
    return path


def test_the_helper_looks_for_models_downloads_pauses_and_discards(
    asked: Helper, hub: HubServer
) -> None:
    hub.add(ID, model_files())
    total = sum(map(len, model_files().values()))
    asked.ask(1, "search_models", query="tiny", max_parameters=None)
    _, kind, found = asked.result()
    assert kind == "done"
    assert [entry["id"] for entry in found["models"]] == [ID] and found["left_out"] == 0

    asked.ask(2, "model_info", model=ID)
    info = asked.result()[2]
    assert (info["total_bytes"], info["on_disk_bytes"], info["problem"]) == (total, 0, "")
    assert {"name": WEIGHTS, "bytes": len(model_files()[WEIGHTS])} in info["files"]

    hub.fault(WEIGHTS, held_at=100_000)
    asked.ask(3, "download_model", model=ID)
    while True:
        _, kind, progress = asked.answer()
        assert kind == "progress"
        if progress["phase"] == "downloading" and progress["file"] == WEIGHTS:
            break
    assert progress["total_bytes"] == total and progress["done_bytes"] > 0
    asked.ask(3, "cancel")
    assert asked.result()[:2] == (3, "stopped")
    asked.ask(4, "model_info", model=ID)
    assert 0 < asked.result()[2]["on_disk_bytes"] < total

    asked.ask(5, "download_model", model=ID)  # goes on
    _, kind, done = asked.result()
    assert (kind, Path(done["folder"])) == ("done", downloads.whole_model(ID))
    assert hub.downloads(WEIGHTS)[-1].range is not None

    hub.add("acme/other", model_files(seed=1))
    hub.fault(WEIGHTS, cut_at=100, times=99)
    asked.ask(6, "download_model", model="acme/other")
    while asked.answer()[2].get("phase") != "waiting":
        pass
    asked.ask(6, "cancel")
    assert asked.result()[:2] == (6, "stopped")
    asked.ask(7, "discard_download", model="acme/other")
    assert asked.result()[1] == "done"
    assert not hub_cache.repo_folder(hub_cache.folder(), "acme/other").exists()


def test_a_running_helper_obeys_the_switch_and_explains_refusals(
    asked: Helper, hub: HubServer
) -> None:
    hub.add(ID, model_files(), gated=True)
    asked.ask(1, "download_model", model=ID)
    _, kind, error = asked.result()
    assert (kind, error["code"], error["field"]) == ("failed", "hub_gated", "model.id")
    assert error["params"]["licence_page"] == f"{hub.url}/{ID}"
    asked.ask(2, "check_token")
    assert asked.result()[2] == {"name": ""}
    hub_token.store(hub.token)  # after the helper was started
    asked.ask(3, "check_token")
    assert asked.result()[2] == {"name": "tester"}

    preferences.save(Preferences(work_offline=True))
    before = len(hub.asked)
    for number, (kind_of, document) in enumerate(
        [
            ("search_models", {"query": "tiny"}),
            ("model_info", {"model": ID}),
            ("download_model", {"model": ID}),
            ("check_token", {}),
        ],
        start=4,
    ):
        asked.ask(number, kind_of, **document)
        assert asked.result()[2]["code"] == "hub_offline"
    assert len(hub.asked) == before
    preferences.save(Preferences())
    asked.ask(9, "download_model", model=ID)
    assert asked.result()[1] == "done"


def test_a_hub_model_is_fetched_trained_on_and_exported_and_its_token_is_nowhere(
    hub: HubServer, job_file: Path, command_line: CommandLine, lorasmith_home: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    canary = hub.token = "hf_canary~Zx/Q8+1=%end"
    hub_token.store(canary)
    commit = hub.add(ID, model_files(), gated=True)
    trained = command_line("train", job_file)
    assert trained.returncode == 0, trained.stderr
    run = Path(trained.stdout.strip())
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert events[-1]["type"] == "RunCompleted"
    for folder in (run / "adapter", *(run / "checkpoints").iterdir()):
        config = json.loads((folder / "adapter_config.json").read_text())
        assert (config["base_model_name_or_path"], config["revision"]) == (ID, commit)
    assert {asked.authorization for asked in hub.asked if asked.host == "hub"} == {
        f"Bearer {canary}"
    }
    assert {asked.authorization for asked in hub.asked if asked.host == "cdn"} == {None}

    # What is here is used without a question, also with the line cut by the switch.
    preferences.save(Preferences(work_offline=True))
    before = len(hub.asked)
    exported = command_line("export", run, "--no-verify", "--out", tmp_path / "merged")
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "merged" / WEIGHTS).is_file()
    # The same with a token of the environment, which the worker inherits, and all that is written.
    inherited = "hf_inherited~Zx/Q8+1=%end"
    monkeypatch.setenv("HF_TOKEN", inherited)
    job = json.loads(job_file.read_text())
    job["training"] |= {"tensorboard": True, "optim": "adamw_torch"}
    job["evaluation"] = {"prompts": ["Who?"], "max_new_tokens": 2, "held_out_fraction": 0.25}
    job_file.write_text(json.dumps(job))
    again = command_line("train", job_file, "--json")
    assert again.returncode == 0, again.stderr
    assert len(hub.asked) == before
    script = command_line("script", run, "--out", tmp_path / "made" / "script")
    report = command_line("report", run, "--out", tmp_path / "made" / "report.zip")
    assert script.returncode == report.returncode == 0, script.stderr + report.stderr
    document, _ = recipes.shareable(parse_job(job))
    recipes.save(tmp_path / "made" / "recipe.json", document)

    # A token that the Hub refuses is told of, and not told.
    preferences.save(Preferences())
    refused = "hf_refused~Zx/Q8+1=%end"
    monkeypatch.setenv("HF_TOKEN", refused)
    hub.add("acme/other", model_files(), gated=True)
    job["model"]["id"] = "acme/other"
    job_file.write_text(json.dumps(job))
    failed = command_line("train", job_file)
    assert failed.returncode == 1 and "token" in failed.stderr
    assert refused in {str(asked.authorization).removeprefix("Bearer ") for asked in hub.asked}

    kept = lorasmith_home / "hub-token"
    assert kept.read_text() == canary and stat.S_IMODE(kept.stat().st_mode) == 0o600
    places = [tmp_path, hub_cache.folder(), lorasmith_home]
    assert sum(1 for place in places for path in place.rglob("*") if path.is_file()) > 40
    assert leaks([tmp_path], inherited) == leaks([tmp_path], refused) == []
    assert set(leaks(places, canary)) == {str(kept)}
    for output in (trained, exported, again, script, report, failed):
        for secret in (canary, inherited, refused):
            assert not holds(output.stdout + output.stderr, secret)


def test_offline_a_model_that_is_not_here_is_refused_before_a_run_exists(
    hub: HubServer, job_file: Path, command_line: CommandLine, lorasmith_home: Path
) -> None:
    hub.add(ID, model_files())
    preferences.save(Preferences(work_offline=True))
    refused = command_line("train", job_file)
    assert refused.returncode == 1
    assert "work offline" in refused.stderr and ID in refused.stderr
    shown = command_line("preview", job_file)
    assert shown.returncode == 1 and "work offline" in shown.stderr
    assert not hub.asked
    assert not list((lorasmith_home / "runs").glob("*"))


def test_previewing_a_hub_model_fetches_its_tokenizer_and_no_weights(
    hub: HubServer, job_file: Path, command_line: CommandLine
) -> None:
    hub.add(ID, model_files())
    shown = command_line("preview", job_file, "--json")
    assert shown.returncode == 0, shown.stderr
    document: dict[str, Any] = json.loads(shown.stdout)
    assert document["rows"][0]["n_tokens"] > 0
    assert not hub.downloads(WEIGHTS)


def test_a_model_that_the_hub_refuses_ends_the_run_with_its_reason(
    hub: HubServer, job_file: Path, command_line: CommandLine
) -> None:
    hub.add(ID, model_files(), gated=True)
    failed = command_line("train", job_file)
    assert failed.returncode == 1
    assert f"{hub.url}/{ID}" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_trainer_that_was_spawned_before_the_switch_was_flipped_obeys(
    hub: HubServer, lorasmith_home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in model_files().items():
        (folder / name).write_bytes(content)
    worker = Worker()
    while not (lorasmith_home / "logs" / "idle-worker.log").exists():  # it has read the switch
        assert worker.is_alive()
        time.sleep(0.02)
    preferences.save(Preferences(work_offline=True))
    rows_of_the_hub = {"model": {"id": str(folder)}, "dataset": {"path": "acme/rows"}}
    run = runs.create(parse_job(rows_of_the_hub))
    worker.start(run)
    last = [event for event in worker.follow(run) if event is not None][-1]
    assert isinstance(last, RunFailed)
    assert (last.code, last.field) == ("hub_offline", "dataset.path")
    assert not hub.asked
    preferences.save(Preferences())
