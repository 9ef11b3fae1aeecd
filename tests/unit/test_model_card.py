"""The model card: what a run came to, and nothing that is private."""

from __future__ import annotations

import itertools
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training_backend import runs
from training_backend.hub import push
from training_backend.hub.push_files import PICTURE
from training_backend.job import ExportJob, TrainingJob, VerifyJob, parse_job
from training_backend.lifecycle.journal import JournalWriter
from training_backend.models.export_form import form_of
from training_backend.protocol import (
    AnswersScored,
    EvaluationLogged,
    Event,
    MetricsLogged,
    PhaseChanged,
    RunCompleted,
    RunStarted,
    SampleGenerated,
    Score,
    ScoredAnswer,
)
from training_backend.runs import Run
from training_backend.summaries import card_facts, loss_picture, model_card, push_draft
from training_backend.summaries.model_card import OURS

SECRET = "xSECRETx"
REPO = "tester/mine"
HASH = "ab" * 32


def job(**changed: Any) -> TrainingJob:
    """With a canary wherever a person or their data could be told."""
    document: dict[str, Any] = {
        "name": f"run {SECRET}",
        "model": {"id": "Qwen/Qwen3-0.6B", "revision": "c" * 40},
        "dataset": {"path": f"/data/{SECRET}.jsonl"},
        "lora": {"r": 8},
        "training": {"max_steps": 40},
        "evaluation": {"prompts": [SECRET]},
    }
    for section, values in changed.items():
        document[section] = {**document[section], **values}
    found = parse_job(document)
    assert isinstance(found, TrainingJob)
    return found


def make_run(asked: TrainingJob, *more: Event) -> Run:
    run = runs.create(asked)
    scored = ScoredAnswer(question=SECRET, reference=SECRET, before=SECRET, after=SECRET)
    events: list[Event] = [
        RunStarted(run_id=run.id, folder=str(run.folder), pid=1),
        PhaseChanged(
            phase="training", total_steps=40, trainable_parameters=5_000_000,
            total_parameters=500_000_000, rows=216, trained_token_share=0.55,
        ),
        SampleGenerated(step=0, prompt=SECRET, answer=SECRET),
        *(
            MetricsLogged(step=n, total_steps=40, epoch=1.0, loss=3.0 - n / 40)
            for n in range(1, 41)
        ),
        EvaluationLogged(step=20, epoch=0.5, loss=2.5),
        EvaluationLogged(step=40, epoch=1.0, loss=2.0),
        AnswersScored(
            step=40, rows=24, examples=(scored,),
            scores=(Score(name="f1", before=0.196, after=0.342, margin=0.047),),
        ),
        *more,
        RunCompleted(folder=str(run.adapter), step=40),
    ]  # fmt: skip
    writer = JournalWriter(run.folder)
    for event in events:
        writer.append(event)
    writer.close()
    (run.folder / "inputs.json").write_text(json.dumps({"base": "", "data": HASH}))
    return run


def make_export(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names or ("config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return folder


@pytest.fixture
def export(lorasmith_home: Path, tmp_path: Path) -> Path:
    return make_export(tmp_path / "export")


def test_a_card_tells_what_the_run_came_to_and_nothing_private(export: Path) -> None:
    found = model_card.write(export, REPO, make_run(job()))
    text = found.text
    assert SECRET not in text and str(Path.home()) not in text and "/data" not in text
    for said in (
        "# mine", "216 rows", "55% of their tokens", HASH, "5,000,000 of 500,000,000", "(1.00%)",
        "40 steps", "2.0000 after step 40", "perplexity 7.389", "19.6% | 34.2% | 4.7 points",
        "| Rank (`r`) | 8 |", "(`learning_rate`)", "(`optim`)", "(`seed`)", "Lorasmith 0.1.0",
        "transformers ", "Qwen/Qwen3-0.6B", "version `cccccccccccc`", f"]({PICTURE})",
        'pipeline("text-generation", model="tester/mine")',
    ):  # fmt: skip
        assert said in text, said
    assert found.picture is not None and found.picture.startswith(b"\x89PNG")
    push.check_card(text)


def test_the_head_of_a_card_is_what_the_hub_reads(export: Path) -> None:
    from huggingface_hub import ModelCard

    data = ModelCard(model_card.write(export, REPO, make_run(job())).text).data
    assert (data.base_model, data.license) == ("Qwen/Qwen3-0.6B", "apache-2.0")
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-generation")
    assert data.get("base_model_relation") == "finetune" and data.datasets is None
    assert data.tags == ["lorasmith", "lora", "sft"]


def test_nothing_known_has_no_heading(export: Path) -> None:
    """As of an adapter that was copied here without its journal."""
    text = model_card.write(export, REPO, runs.create(job())).text
    assert "### Data" not in text and "## Training" not in text
    lines = [line for line in text.splitlines() if line]
    pairs = list(itertools.pairwise(lines))
    assert not [one for one, after in pairs if one.startswith("## ") and after.startswith("#")]


def test_data_and_bases_of_the_hub_are_named_and_folders_never(
    export: Path, tmp_path: Path
) -> None:
    from huggingface_hub import ModelCard

    there = make_run(job(dataset={"path": "owner/rows"}))
    card = model_card.write(export, REPO, there).text
    assert ModelCard(card).data.datasets == ["owner/rows"]
    base = tmp_path / f"base-{SECRET}"
    base.mkdir()
    own = make_run(job(model={"id": str(base), "revision": None}))
    text = model_card.write(export, REPO, own).text
    assert SECRET not in text and "base_model" not in text


@pytest.mark.parametrize(
    ("names", "form", "said"),
    [
        (("config.json", "model.safetensors"), "safetensors", "pipeline("),
        (("adapter_config.json", "adapter_model.safetensors"), "adapter", "--lora-modules mine="),
        (("mine-Q8_0.gguf",), "gguf", "ollama run hf.co/tester/mine"),
    ],
)
def test_each_form_says_how_it_is_used(
    lorasmith_home: Path, tmp_path: Path, names: tuple[str, ...], form: str, said: str
) -> None:
    folder = make_export(tmp_path / "export", *names)
    assert form_of(folder) == form
    assert said in model_card.write(folder, REPO, make_run(job())).text


def test_a_gguf_adapter_and_four_bits_are_told_from_whole_models(tmp_path: Path) -> None:
    head = struct.pack("<4sIQQ", b"GGUF", 3, 0, 2)
    key = struct.pack("<Q", 12) + b"general.type" + struct.pack("<IQ", 8, 7) + b"adapter"
    folder = make_export(tmp_path / "a", "x")
    (folder / "a.gguf").write_bytes(head + key)
    assert form_of(folder) == "gguf_adapter"
    four = make_export(tmp_path / "b")
    (four / "config.json").write_text('{"quantization_config": {"load_in_4bit": true}}')
    assert form_of(four) == "bnb_4bit"
    assert form_of(make_export(tmp_path / "c", "notes.txt")) is None


def test_a_resumed_runs_numbers_replace_those_of_the_attempt_before(export: Path) -> None:
    again = (
        RunStarted(run_id="x", folder="x", pid=2, attempt=2, resumed_from_step=20),
        *(MetricsLogged(step=n, total_steps=40, epoch=1.0, loss=0.5) for n in range(21, 41)),
    )
    run = make_run(job(), *again)
    points = card_facts.read(run).training
    assert [step for step, _ in points] == list(range(1, 41)) and points[-1] == (40, 0.5)
    assert "the loss was 0.500" in model_card.write(export, REPO, run).text


def test_the_proofs_verdict_stands_in_the_card_as_text(export: Path) -> None:
    proof = {
        "verdict": "different",
        "message": "It answers differently: <b>the adapter</b> was not applied.",
        "checks": [
            {"name": "kl", "message": "Next | word", "value": 0.5, "limit": 0.01, "passed": False},
            {"name": "x", "message": "Same answers", "value": None, "limit": None, "passed": True},
        ],
    }
    (export / "proof.json").write_text(json.dumps(proof))
    text = model_card.write(export, REPO, make_run(job())).text
    assert r"\<b\>the adapter\</b\> was not applied" in text
    assert r"| Next \| word | 0.5 | 0.01 | no |" in text and "| Same answers |  |  | yes |" in text
    assert push_draft.draft(export, REPO).verdict == "different"
    (export / "proof.json").write_text('{"verdict": "<b>", "message": 5, "checks": "x"}')
    assert push_draft.draft(export, REPO).verdict == ""
    assert "answer as the training" not in model_card.write(export, REPO, make_run(job())).text


def test_our_card_in_the_folder_tells_the_newest_verdict_and_a_changed_one_stays(
    export: Path,
) -> None:
    card = export / "README.md"

    def told(message: str) -> str:
        (export / "proof.json").write_text(json.dumps({"message": message}))
        model_card.tell_verdict(export)
        return card.read_text(encoding="utf-8") if card.exists() else ""

    assert told("No card yet.") == ""
    (export / "proof.json").unlink()
    unproven = model_card.write(export, REPO, make_run(job())).text
    card.write_text(unproven, encoding="utf-8")
    for message in ("It answers alike.", "It answers *otherwise*."):
        told(message)
        assert card.read_text("utf-8") == model_card.write(export, REPO, make_run(job())).text
    told("")
    assert card.read_text("utf-8") == unproven
    for changed in (unproven.replace("# mine", "# ours"), unproven + "More.\n", "# Mine\n"):
        card.write_text(changed, encoding="utf-8")
        assert told("It answers alike.") == changed


def test_the_run_of_an_export_is_found_by_its_folder(export: Path) -> None:
    run = make_run(job())
    assert card_facts.run_of(export) is None
    made = runs.create(ExportJob(run=str(run.folder), out=str(export), checkpoint="checkpoint-20"))
    writer = JournalWriter(made.folder)
    writer.append(RunCompleted(folder=str(export)))
    writer.close()
    assert card_facts.run_of(export) == run
    draft = push_draft.draft(export, REPO)
    assert "as it was after step 20" in draft.card.text and not draft.is_own
    checked = runs.create(VerifyJob(folder=str(export), run=str(run.folder)))
    writer = JournalWriter(checked.folder)
    writer.append(RunCompleted(folder=str(export)))
    writer.close()
    assert card_facts.run_of(export) == run


def test_a_persons_own_card_is_kept_and_ours_written_anew(export: Path) -> None:
    (export / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    draft = push_draft.draft(export, REPO, make_run(job()))
    assert (draft.is_own, draft.card.picture) == (True, None)
    assert draft.card.text == "---\nlicense: mit\n---\n# Mine\n"
    written = model_card.write(export, REPO, make_run(job())).text
    (export / "README.md").write_text(written)
    assert not push_draft.draft(export, REPO).is_own
    assert push_draft.edited(written, written) == written
    changed = push_draft.edited(written + "More.\n", written)
    (export / "README.md").write_text(changed)
    (export / PICTURE).write_bytes(b"picture")
    draft = push_draft.draft(export, REPO)
    assert draft.is_own and OURS not in draft.card.text and draft.card.picture == b"picture"


def test_a_card_that_was_changed_in_the_folder_is_pushed_as_it_was_changed(export: Path) -> None:
    written = model_card.write(export, REPO, make_run(job())).text
    changed = written.replace("# mine", "# mine\n\nNot for medical advice.")
    (export / "README.md").write_text(changed, encoding="utf-8")
    draft = push_draft.draft(export, "tester/other", make_run(job()))
    assert draft.is_own and "Not for medical advice." in draft.card.text
    assert draft.card.text == model_card.without_marks(changed)
    assert OURS not in draft.card.text


def test_without_a_run_the_card_tells_what_the_folder_tells(
    lorasmith_home: Path, tmp_path: Path
) -> None:
    folder = make_export(tmp_path / "a", "adapter_config.json", "adapter_model.safetensors")
    config = {"base_model_name_or_path": "Qwen/Qwen3-0.6B", "revision": "main"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    found = model_card.write(folder, REPO)
    assert 'base_model: "Qwen/Qwen3-0.6B"' in found.text and found.picture is None
    assert "## Training" not in found.text and PICTURE not in found.text
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/home/x/y"}')
    assert "/home" not in model_card.write(folder, REPO).text


@pytest.mark.parametrize(
    ("name", "made"), [("My export (2)", "My-export-2"), ("...", "model"), ("ok_1.5", "ok_1.5")]
)
def test_a_folders_name_becomes_one_that_the_hub_takes(name: str, made: str) -> None:
    assert push_draft.name_for(Path("/x") / name) == made


# --- the picture ---------------------------------------------------------------------------------


def pixels(png: bytes) -> list[bytes]:
    """The rows of a PNG of ours, read by its standard."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    at, data = 8, b""
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        assert struct.unpack(">I", png[at + 8 + size : at + 12 + size])[0] == zlib.crc32(
            kind + body
        )
        if kind == b"IHDR":
            head = struct.unpack(">IIBBBBB", body)
            assert head == (loss_picture.WIDTH, loss_picture.HEIGHT, 8, 2, 0, 0, 0)
        data += body if kind == b"IDAT" else b""
        at += 12 + size
    rows = zlib.decompress(data)
    width = 1 + 3 * loss_picture.WIDTH
    return [rows[n : n + width] for n in range(0, len(rows), width)]


def has(rows: list[bytes], colour: tuple[int, int, int]) -> bool:
    numbers = np.frombuffer(b"".join(row[1:] for row in rows), np.uint8).reshape(-1, 3)
    return bool((numbers == colour).all(axis=1).any())


def test_the_curves_are_a_png_with_a_line_for_each() -> None:
    training = [(n, 3.0 - n / 100) for n in range(1, 101)]
    held_out = [(20, 2.9), (60, 2.6), (100, 2.4)]
    drawn = loss_picture.png(training, held_out)
    assert drawn is not None
    rows = pixels(drawn)
    assert len(rows) == loss_picture.HEIGHT
    assert has(rows, (59, 91, 219)) and has(rows, (217, 115, 13))
    without = loss_picture.png(training, [])
    assert without is not None and not has(pixels(without), (217, 115, 13))


@pytest.mark.parametrize(
    "training",
    [
        [(1, 2.0), (1, 2.0)],
        [(1, 0.0), (2, 0.0)],
        [(1, 1e9), (2, -3.0), (5_000_000, float("nan")), (3, float("inf"))],
        [(n, n * 1e-7) for n in range(3_000)],
    ],
)
def test_any_course_can_be_drawn(training: list[tuple[int, float]]) -> None:
    drawn = loss_picture.png(training, [(2, 1.0)])
    assert drawn is not None and len(pixels(drawn)) == loss_picture.HEIGHT


def test_too_few_reports_make_no_picture() -> None:
    assert loss_picture.png([], []) is None and loss_picture.png([(1, 2.0)], [(1, 2.0)]) is None
