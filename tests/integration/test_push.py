"""A push through the helper and the command line: shown, sent, paused, gone on with."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hub_server import HubServer
from tests.integration.test_helper import Helper
from tests.model_files import model_files
from training_backend import preferences
from training_backend.hub import hub_token
from training_backend.preferences import Preferences

REPO = "tester/mine"
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
def export(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, content in model_files().items():
        if name != "README.md":
            (folder / name).write_bytes(content)
    return folder


def test_the_helper_shows_a_push_sends_it_pauses_and_goes_on(
    asked: Helper, hub: HubServer, export: Path
) -> None:
    asked.ask(1, "push_account")
    _, kind, error = asked.result()
    assert (kind, error["code"], error["field"]) == ("failed", "hub_token_missing", "push.token")
    hub_token.store(hub.token)  # after the helper was started
    asked.ask(2, "push_account")
    assert asked.result()[2]["owners"] == ("tester", "acme")
    asked.ask(3, "push_draft", folder=str(export), repo="")
    draft = asked.result()[2]
    assert draft["repo"] == "mine" and draft["card"].startswith("---\n")
    assert {file["name"] for file in draft["files"]} == {path.name for path in export.iterdir()}

    how = {"folder": str(export), "repo": REPO, "card": draft["card"], "picture": None,
           "private": True, "renew": False}  # fmt: skip
    hub.fault("part", pause=0.05, times=99)
    asked.ask(4, "push", **how)
    while asked.answer()[2].get("phase") != "uploading":
        pass
    asked.ask(4, "cancel")
    assert asked.result()[:2] == (4, "stopped")
    assert hub.models[REPO].files.keys() == {".gitattributes"}
    hub.faults.clear()
    asked.ask(5, "push", **how)
    _, kind, done = asked.result()
    assert (kind, done["url"], done["private"]) == ("done", f"{hub.url}/{REPO}", True)
    assert hub.models[REPO].files[WEIGHTS] == (export / WEIGHTS).read_bytes()

    preferences.save(Preferences(work_offline=True))
    asked.ask(6, "push", **how)
    assert asked.result()[2]["code"] == "hub_offline"


def test_the_command_line_shows_a_push_and_sends_it(
    command_line: CommandLine, hub: HubServer, export: Path
) -> None:
    hub_token.store(hub.token)
    own = export.parent / "own.md"
    own.write_text("# My words\n")
    shown = command_line("push", export, "--repo", "mine", "--preview", "--json", "--card", own)
    document = json.loads(shown.stdout)
    assert (document["form"], document["card"]) == ("safetensors", "# My words\n")
    assert not hub.asked

    refused = command_line("push", export, "--repo", "google/mine")
    assert refused.returncode == 1 and "does not belong to google" in refused.stderr
    assert "Traceback" not in refused.stderr

    sent = command_line("push", export, "--repo", "mine")
    assert (sent.returncode, sent.stdout) == (0, f"{hub.url}/{REPO} (private)\n")
    assert (
        hub.models[REPO].private and b'model="tester/mine"' in hub.models[REPO].files["README.md"]
    )
    assert hub.token not in sent.stdout + sent.stderr
