"""What holds for all processes, and that each obeys the switch “work offline”."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from training_backend import preferences
from training_backend.preferences import Preferences

CONSTANTS = """
import huggingface_hub, datasets
from training_backend import preferences
def told():
    return [huggingface_hub.is_offline_mode(), datasets.config.HF_HUB_OFFLINE]
before = told()
preferences.apply_to_environment()
known = huggingface_hub.constants
print(before, told(), known.HF_HUB_DISABLE_TELEMETRY, known.HF_HUB_DISABLE_XET)
"""


@pytest.fixture(autouse=True)
def clean(lorasmith_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "")  # so that monkeypatch puts it back
        monkeypatch.delenv(name)
    monkeypatch.delenv("LORASMITH_SET_OFFLINE", raising=False)


def switch(on: bool) -> None:
    preferences.save(Preferences(work_offline=on))


def test_preferences_survive_and_damaged_ones_read_as_the_defaults(lorasmith_home: Path) -> None:
    chosen = Preferences(work_offline=True, models_folder="/big", gpu="GPU-1")
    preferences.save(chosen)
    assert preferences.load() == chosen
    (lorasmith_home / "preferences.json").write_text("{")
    assert preferences.load() == Preferences()
    switch(False)


def test_the_switch_works_both_ways_at_once() -> None:
    switch(True)
    assert preferences.is_offline() and os.environ["HF_HUB_OFFLINE"] == "1"
    switch(False)
    assert not preferences.is_offline() and "HF_HUB_OFFLINE" not in os.environ


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_who_starts_the_program_offline_stays_so(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    preferences.apply_to_environment()
    assert preferences.is_offline()
    switch(True)
    switch(False)
    assert preferences.is_offline() and os.environ[variable] == "1"
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    preferences.apply_to_environment()
    assert not preferences.is_offline()


def test_a_running_process_obeys_and_so_do_its_libraries(lorasmith_home: Path) -> None:
    def told(environment: dict[str, str]) -> str:
        return subprocess.check_output(
            [sys.executable, "-c", CONSTANTS],
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            encoding="utf-8",
        ).strip()

    (lorasmith_home).mkdir(exist_ok=True)
    file = lorasmith_home / "preferences.json"
    file.write_text(json.dumps({"work_offline": True}))
    assert told({}) == "[False, False] [True, True] True True"
    # A child that was started while the switch was on, after it went off.
    file.write_text(json.dumps({"work_offline": False}))
    ours = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "LORASMITH_SET_OFFLINE"), "1")
    assert told(ours) == "[True, True] [False, False] True True"
