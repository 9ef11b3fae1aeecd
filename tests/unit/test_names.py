"""Names that people and files give never decide where something is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.models.export_sources import fresh_folder
from training_backend import paths, runs
from training_backend.job import parse_job
from training_backend.starting_points import presets

PLAIN = re.compile(r"[\w-]+")
RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


@settings(max_examples=40, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(name=st.text(min_size=1, max_size=60))
@example(name="../../etc/passwd")
@example(name="..\\..\\windows\\system32")
@example(name="C:\\x")
@example(name="con")
@example(name="LPT1")
@example(name="a\nb\x00c")
@example(name=".hidden. ")
@example(name="\u202egnp.exe")
def test_a_name_becomes_one_plain_folder_in_its_place(lorasmith_home: Path, name: str) -> None:
    document = {"name": name, "model": {"id": "demo"}, "dataset": {"path": "demo"}}
    run = runs.create(parse_job(document))
    export = fresh_folder(name)
    for made, place in ((run.folder, paths.runs_dir()), (export, paths.exports_dir())):
        assert made.parent == place and PLAIN.fullmatch(made.name), made
        assert not RESERVED.fullmatch(made.name)
    assert run.training_job().name == name  # and is kept as it is


@pytest.mark.parametrize("title", ["../../x", "con", "AUX", "a/b\\c", "<b>", "ok", "…"])
def test_a_preset_is_one_file_among_the_presets(lorasmith_home: Path, title: str) -> None:
    presets.save_own(title, {"lora.r": 8})
    (made,) = (path for path in lorasmith_home.rglob("*") if path.is_file())
    assert made.parent == lorasmith_home / "presets"
    assert re.fullmatch(r"[a-z0-9-]+\.json", made.name) and not RESERVED.fullmatch(made.name)
    assert [preset.title for preset in presets.own_presets()] == [title]
