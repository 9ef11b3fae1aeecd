"""What a job file from anywhere says, what it would change, and what of ours is not shared."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training_backend.errors import JobError, UserError
from training_backend.job import TrainingJob, parse_job
from training_backend.starting_points import presets, recipes
from training_backend.starting_points.recipes import Recipe

WHOLE: dict[str, Any] = {
    "version": 1,
    "name": "support",
    "model": {"id": "owner/name", "revision": "v2"},
    "dataset": {"path": "owner/rows", "split": "test", "loss_on": "last_answer"},
    "lora": {"r": 8},
    "evaluation": {"prompts": ["Who are you?"]},
}


def made(document: dict[str, Any]) -> TrainingJob:
    job = parse_job(document)
    assert isinstance(job, TrainingJob)
    return job


def read(tmp_path: Path, content: Any) -> Recipe:
    path = tmp_path / "file.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return recipes.read(path)


def values(job: TrainingJob) -> dict[str, Any]:
    return recipes.of_job("", job).values


# ------------------------------------------------------------------------------------ reading


def test_a_job_file_says_everything_with_the_defaults_of_what_it_leaves_out(
    tmp_path: Path,
) -> None:
    recipe = read(tmp_path, WHOLE)
    job = made(WHOLE)
    assert recipe.values == values(job)
    assert recipe.values["training.learning_rate"] == 2e-4
    assert recipe.values["dataset.split"] == "test"
    assert all(recipe.names(part) for part in recipes.PARTS) and not recipe.missing
    assert recipes.changes(recipe, values(job).__getitem__) == []


def test_what_it_would_change_is_told_in_the_order_of_a_job(tmp_path: Path) -> None:
    now = values(made({**WHOLE, "name": "mine", "lora": {"r": 16}, "model": {"id": "demo"}}))
    found = recipes.changes(read(tmp_path, WHOLE), now.__getitem__)
    assert [(one.part, one.field, one.now, one.then) for one in found] == [
        ("settings", "name", "mine", "support"),
        ("model", "model.id", "demo", "owner/name"),
        ("model", "model.revision", None, "v2"),
        ("settings", "lora.r", 16, 8),
    ]


def test_a_recipe_without_model_and_data_leaves_both_as_they_are(tmp_path: Path) -> None:
    recipe = read(tmp_path, {"lora": {"r": 8}})
    assert not recipe.names("model") and not recipe.names("data")
    assert {field.partition(".")[0] for field in recipe.values} == {
        "quantization", "lora", "training", "evaluation",
    }  # fmt: skip
    assert "evaluation.prompts" not in recipe.values and recipe.values["training.seed"] == 42
    partly = read(tmp_path, {"lora": {"r": 8}, "dataset": {"loss_on": "everything"}})
    assert not partly.names("data")
    assert [field for field in partly.values if field.startswith("dataset.")] == ["dataset.loss_on"]


def test_a_preset_says_settings_only(tmp_path: Path) -> None:
    preset = presets.presets()[-1]
    recipe = read(tmp_path, preset.model_dump(mode="json"))
    assert (recipe.title, recipe.values) == (preset.title, preset.values)
    assert not recipe.names("model") and not recipe.names("data") and recipe.names("settings")


def test_paths_beside_the_file_are_found_and_others_are_said(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "llama").mkdir()
    job = {
        "model": {"id": "llama", "adapter": "/elsewhere/adapter"},
        "dataset": {"path": "rows.jsonl", "held_out_path": r"C:\data\test.jsonl"},
    }
    recipe = read(tmp_path, job)
    assert recipe.values["model.id"] == str(tmp_path / "llama")
    assert recipe.values["dataset.path"] == str(tmp_path / "rows.jsonl")
    assert recipe.missing == {
        "model": ("/elsewhere/adapter",), "data": (r"C:\data\test.jsonl",),
    }  # fmt: skip
    assert (
        read(tmp_path, {**job, "model": {"id": "demo"}, "dataset": {"path": "demo"}}).missing == {}
    )


def test_a_folder_of_a_server_is_not_even_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = r"\\nas\share"
    looked_at: list[str] = []
    for name in ("exists", "lexists", "isdir", "isfile"):
        kept = getattr(os.path, name)
        monkeypatch.setattr(
            os.path, name, lambda path, kept=kept: looked_at.append(str(path)) or kept(path)
        )
    job = {"model": {"id": server, "adapter": server}, "dataset": {"path": rf"{server}\x.csv"}}
    recipe = read(tmp_path, job)
    assert recipe.missing == {"model": (server, server), "data": (rf"{server}\x.csv",)}
    document, _ = recipes.shareable(made(job))
    assert "nas" not in json.dumps(document)
    assert looked_at and not [path for path in looked_at if server in path]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "job_not_json"),
        (b'{"lora": {"r": 8}', "job_not_json"),
        ('{"name": "ü"}'.encode("utf-16"), "job_not_text"),
        (b'{"name": "\xe9"}', "job_not_text"),
        (b"\x89PNG\r\n\x1a\n\x00", "job_not_text"),
        (b"[" * 100_000, "job_unreadable"),
        (b"[]", "not_a_job_file"),
        (b"null", "not_a_job_file"),
        (b"{}", "not_a_job_file"),
        (b'{"name": "left-pad", "version": "1.0.0"}', "not_a_job_file"),
        (b'{"version": "1.0", "model": {"type": "BPE"}}', "not_a_job_file"),
        (b'{"peft_type": "LORA", "r": 8}', "not_a_job_file"),
        (b'{"version": 2, "lora": {"rank": 8}}', "job_of_newer_version"),
        (b'{"version": ' + b"9" * 400 + b', "lora": {}}', "job_of_newer_version"),
        (b'{"kind": "export", "run": "r", "out": "o"}', "job_of_other_kind"),
        (b'{"kind": "probe", "job": {}}', "job_of_other_kind"),
        (b'{"values": {"model.id": "x"}, "title": "t", "description": ""}', "not_a_preset"),
        (b'{"values": {}}', "not_a_preset"),
    ],
)
def test_what_is_no_training_job_is_refused_in_a_sentence(
    tmp_path: Path, content: bytes, code: str
) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, content)
    assert caught.value.code == code
    assert caught.value.message.count(". ") == 0
    assert "file.json" in caught.value.message


def test_all_mistakes_are_told_with_their_places(tmp_path: Path) -> None:
    with pytest.raises(JobError) as caught:
        read(tmp_path, {**WHOLE, "lora": {"rank": 8, "lora_alpha": 0}, "training": {"seed": None}})
    assert {problem.field for problem in caught.value.problems} == {
        "lora.rank", "lora.lora_alpha", "training.seed",
    }  # fmt: skip
    for content in (b'{"lora": {"lora_dropout": NaN}}', b'{"lora": {"r": 1e999}}',
                    b'{"kind": "party", "lora": {}}', b'{"version": 0, "lora": {}}',
                    b'{"model": {}, "lora": {}}', b'{"dataset": [], "lora": {}}'):  # fmt: skip
        with pytest.raises(JobError):
            read(tmp_path, content)


def test_a_huge_file_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    with path.open("wb") as file:
        file.truncate(recipes.MOST_BYTES + 1)
    with pytest.raises(UserError, match="too large for a job file"):
        recipes.read(path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has none of these")
def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", tmp_path, tmp_path / "gone.json", Path("/dev/zero")):
        with pytest.raises(UserError):
            recipes.read(path)


# ------------------------------------------------------------------------------------ sharing


def test_ids_on_the_hub_stay_in_what_is_shared() -> None:
    document, left_out = recipes.shareable(made(WHOLE))
    assert left_out == []
    assert made(document) == made(WHOLE)


def test_folders_of_this_computer_are_left_out_and_named(tmp_path: Path) -> None:
    secret = tmp_path / "canary"
    secret.mkdir()
    job = made(
        {
            **WHOLE,
            "model": {"id": str(secret), "adapter": str(secret / "adapter")},
            "dataset": {
                "path": str(secret / "rows.csv"),
                "held_out_path": str(secret / "test.csv"),
                "encoding": "latin-1",
                "loss_on": "last_answer",
                "fixes": [{"code": "drop_rows", "rows": [4]}],
            },
        }
    )
    document, left_out = recipes.shareable(job)
    assert "canary" not in json.dumps(document)
    assert left_out == [
        ("model.id", str(secret)),
        ("model.adapter", str(secret / "adapter")),
        ("dataset.path", str(secret / "rows.csv")),
        ("dataset.held_out_path", str(secret / "test.csv")),
        ("dataset.fixes", "drop rows"),
    ]
    recipe = read(tmp_path, document)
    assert not recipe.names("model") and not recipe.names("data")
    assert recipe.values["dataset.loss_on"] == "last_answer"
    assert not {"dataset.encoding", "dataset.fixes"} & recipe.values.keys()
    assert recipe.values["lora.r"] == 8


def test_of_a_mixture_the_sources_on_the_hub_stay(tmp_path: Path) -> None:
    sources = [{"path": "owner/rows", "weight": 3}, {"path": str(tmp_path)}, {"path": "demo"}]
    document, left_out = recipes.shareable(made({**WHOLE, "dataset": {"sources": sources}}))
    assert left_out == [("dataset.path", str(tmp_path))]
    kept = made(document).dataset.resolved_sources()
    assert [(source.path, source.weight) for source in kept] == [("owner/rows", 3), ("demo", None)]


def test_a_model_in_the_hubs_cache_is_shared_by_its_id(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--owner--name" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    document, left_out = recipes.shareable(made({**WHOLE, "model": {"id": str(snapshot)}}))
    assert left_out == []
    assert document["model"] == {"id": "owner/name", "revision": "a" * 40, "adapter": None}


_paths = st.sampled_from(
    ["demo", "owner/name", "/home/canary/x", r"C:\canary\x.jsonl", "canary.csv"]
)


@given(
    model=_paths,
    adapter=st.none() | _paths.filter(lambda path: "canary" in path),
    sources=st.lists(_paths, min_size=1, max_size=3),
    held_out=st.none() | _paths,
)
def test_whatever_is_shared_names_nothing_of_this_computer_and_can_be_read_again(
    model: str, adapter: str | None, sources: list[str], held_out: str | None
) -> None:
    job = made(
        {
            "model": {"id": model, "adapter": adapter},
            "dataset": {"sources": [{"path": path} for path in sources], "held_out_path": held_out},
        }
    )
    document, left_out = recipes.shareable(job)
    assert "canary" not in json.dumps(document)
    assert ("canary" in repr(left_out)) == ("canary" in repr(job))
    whole, unsaid = recipes._filled(document)
    kept = recipes._recipe("", made(whole), unsaid)
    assert kept.names("model") == ("canary" not in model)
    assert kept.names("data") == any("canary" not in path for path in sources)
    assert not kept.missing


def test_a_saved_file_is_the_job_again_and_a_folder_that_is_not_there_is_said(
    tmp_path: Path,
) -> None:
    job = made(WHOLE)
    recipes.save(tmp_path / "mine.json", job.model_dump(mode="json"))
    assert recipes.read(tmp_path / "mine.json").values == values(job)
    with pytest.raises(UserError, match="cannot be written"):
        recipes.save(tmp_path / "gone" / "mine.json", {})
