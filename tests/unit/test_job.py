"""Jobs: one document, strict, all mistakes at once, each with its place."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from training_backend.errors import JobError, UserError
from training_backend.job import ExportJob, TrainingJob, load_job, parse_job

SMALLEST = {
    "version": 1,
    "name": "first try",
    "model": {"id": "owner/model"},
    "dataset": {"path": "rows.jsonl"},
    "lora": {"r": 16, "lora_alpha": 32},
    "training": {"max_steps": 20},
}

# Every field with a value that is not its default.
FULL: dict[str, Any] = {
    "kind": "training",
    "version": 1,
    "name": "Grüße / 👋",
    "model": {"id": "owner/model", "revision": "v2", "adapter": "/adapters/first"},
    "dataset": {
        "path": "/data/rows.csv",
        "format": "custom",
        "encoding": "latin-1",
        "delimiter": ";",
        "sheet": "Two",
        "subset": "main",
        "split": "test",
        "skip_bad_lines": True,
        "mapping": {
            "columns": {},
            "user": "{question}",
            "assistant": "{answer}",
            "system": "{topic}",
            "system_prompt": "Be brief.",
        },
        "sources": [],
        "held_out_path": "/data/test.csv",
        "max_rows": 500,
        "loss_on": "last_answer",
        "chat_template": "chatml",
        "chunk_length": 512,
        "fixes": [{"code": "drop_rows", "finding": None, "rows": [3]}, {"code": "deduplicate"}],
    },
    "quantization": {
        "load_in_4bit": False,
        "bnb_4bit_quant_type": "fp4",
        "bnb_4bit_use_double_quant": False,
        "bnb_4bit_compute_dtype": "float32",
    },
    "lora": {
        "r": 8,
        "lora_alpha": 24,
        "lora_dropout": 0.05,
        "target_modules": ["q_proj", "v_proj"],
        "layers_to_transform": [2, 3],
        "modules_to_save": "none",
        "use_rslora": True,
        "use_dora": True,
        "init_lora_weights": "gaussian",
        "loraplus_lr_ratio": 8.0,
    },
    "training": {
        "method": "lora",
        "objective": "sft",
        "beta": 0.3,
        "num_train_epochs": 1.5,
        "max_steps": 20,
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 2,
        "max_length": 256,
        "packing": True,
        "padding_free": False,
        "train_sampling_strategy": "random",
        "activation_checkpointing": False,
        "activation_checkpointing_every_n_layers": 2,
        "lr_scheduler_type": "linear",
        "warmup_steps": 5.0,
        "optim": "sgd",
        "weight_decay": 0.01,
        "max_grad_norm": 0.5,
        "neftune_noise_alpha": 5.0,
        "torch_compile": True,
        "fast_paths": False,
        "save_steps": 7,
        "save_total_limit": 2,
        "logging_steps": 2,
        "tensorboard": True,
        "halve_batch_when_out_of_memory": True,
        "seed": 7,
    },
    "evaluation": {
        "held_out_fraction": 0.1,
        "eval_steps": 9,
        "keep_best": False,
        "early_stopping_patience": 3,
        "prompts": ["Hello?", "And now?"],
        "max_new_tokens": 12,
        "task_metric_rows": 30,
    },
}

SECTIONS = ("model", "dataset", "quantization", "lora", "training", "evaluation")


def changed(**sections: Any) -> dict[str, Any]:
    """The smallest job with some sections' keys, or whole sections, replaced."""
    document: dict[str, Any] = json.loads(json.dumps(SMALLEST))
    for section, value in sections.items():
        if isinstance(value, dict) and isinstance(document.get(section), dict):
            document[section].update(value)
        else:
            document[section] = value
    return document


def problems(document: Any) -> dict[str, str]:
    with pytest.raises(JobError) as caught:
        parse_job(document)
    return {problem.field: problem.message for problem in caught.value.problems}


def section_of(name: str) -> type[BaseModel]:
    section = TrainingJob.model_fields[name].annotation
    assert isinstance(section, type) and issubclass(section, BaseModel)
    return section


def test_the_smallest_useful_job_takes_the_documented_defaults() -> None:
    job = parse_job(SMALLEST)
    assert isinstance(job, TrainingJob)
    assert (job.name, job.model.id, job.dataset.path) == ("first try", "owner/model", "rows.jsonl")
    assert (job.lora.r, job.lora.lora_alpha, job.training.max_steps) == (16, 32, 20)
    assert job.quantization.load_in_4bit and job.quantization.bnb_4bit_quant_type == "nf4"
    assert job.lora.target_modules == "all-linear"
    assert job.training.logging_steps == 1
    assert job.dataset.format == "auto"
    assert job.evaluation.prompts == ()


def test_every_field_survives_the_way_through_json() -> None:
    job = parse_job(FULL)
    assert json.loads(job.model_dump_json()) == FULL
    assert parse_job(json.loads(job.model_dump_json())) == job
    defaults = parse_job(SMALLEST).model_dump(mode="json")
    for section in SECTIONS:  # FULL really has every field, none at its default
        assert FULL[section].keys() == section_of(section).model_fields.keys()
        for key, value in FULL[section].items():
            assert value != defaults[section][key] or (section, key) in {
                ("model", "id"),
                ("training", "max_steps"),
                ("training", "train_sampling_strategy"),  # with packing
                ("training", "padding_free"),  # with packing
                ("training", "method"),  # with an adapter to start from
                ("training", "objective"),  # with data of other forms
                ("lora", "modules_to_save"),  # with an adapter to start from
                ("dataset", "sources"),  # in the place of a path; test_job_data.py
            }


def test_an_export_job_survives_the_way_through_json() -> None:
    document = {
        "kind": "export",
        "version": 1,
        "name": "mine",
        "run": "/runs/a",
        "checkpoint": "checkpoint-5",
        "format": "adapter",
        "quantization": "q4_k_m",
        "dtype": "float16",
        "max_shard_gb": 5.0,
        "base": "4-bit",
        "verify": False,
        "prompts": ["Who are you?"],
        "out": "/out",
    }
    job = parse_job(document)
    assert isinstance(job, ExportJob)
    assert json.loads(job.model_dump_json()) == document
    assert problems({"kind": "export"}) == {"run": "is missing", "out": "is missing"}


def test_all_mistakes_are_told_at_once_each_with_its_place() -> None:
    found = problems(
        {
            "version": 2,
            "model": {},
            "dataset": {"path": ""},
            "lora": {"r": 0, "lora_alfa": 3},
            "training": {"learning_rate": "fast", "optim": "best"},
            "quantisation": {},
        }
    )
    assert found.keys() == {
        "version",
        "model.id",
        "dataset.path",
        "lora.r",
        "lora.lora_alfa",
        "training.learning_rate",
        "training.optim",
        "quantisation",
    }
    assert found["model.id"] == "is missing"
    assert found["lora.r"] == "input should be greater than or equal to 1, not 0"
    assert found["training.learning_rate"] == 'input should be a valid number, not "fast"'
    assert "'adamw_8bit'" in found["training.optim"]


@pytest.mark.parametrize(
    ("document", "place", "nearest"),
    [
        (changed(lora={"alpha": 3}), "lora.alpha", "lora_alpha"),
        (changed(training={"epochs": 3}), "training.epochs", "num_train_epochs"),
        (changed(training={"max_step": 3}), "training.max_step", "max_steps"),
        (changed(lora={"rank": 3}), "lora.rank", "r"),
        (changed(lora={"dropout": 0.1}), "lora.dropout", "lora_dropout"),
        (changed(training={"lr": 3}), "training.lr", "learning_rate"),
        (changed(training={"batch_size": 3}), "training.batch_size", "per_device_train_batch_size"),
        (
            changed(training={"gradient_checkpointing": True}),
            "training.gradient_checkpointing",
            "activation_checkpointing",
        ),
        (changed(training={"max_seq_length": 3}), "training.max_seq_length", "max_length"),
        (changed(trainning={}), "trainning", "training"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(
    document: dict[str, Any], place: str, nearest: str
) -> None:
    assert problems(document) == {place: f"unknown key; did you mean {nearest}?"}


def test_an_unknown_key_like_no_other_is_only_called_unknown() -> None:
    assert problems(changed(training={"zzzzzz": 1})) == {"training.zzzzzz": "unknown key"}


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("lora", "r", "16"),
        ("lora", "r", 16.0),
        ("lora", "r", True),
        ("lora", "r", None),
        ("lora", "target_modules", "q_proj"),
        ("lora", "target_modules", []),
        ("lora", "target_modules", ["q_proj", " "]),
        ("lora", "target_modules", [5]),
        ("training", "packing", 1),
        ("training", "packing", "true"),
        ("training", "learning_rate", "2e-4"),
        ("training", "learning_rate", False),
        ("evaluation", "prompts", "one question"),
        ("evaluation", "prompts", [1]),
        ("model", "id", 5),
        ("model", "revision", 1),
    ],
)
def test_types_are_strict(section: str, key: str, value: Any) -> None:
    assert problems(changed(**{section: {key: value}})).keys() == {f"{section}.{key}"}


@pytest.mark.parametrize("value", [None, [], "all", 5])
def test_a_section_that_is_no_object_is_one_mistake(value: Any) -> None:
    assert problems(changed(lora=value)).keys() == {"lora"}


def test_whole_numbers_are_numbers_too() -> None:
    job = parse_job(changed(training={"num_train_epochs": 2, "warmup_steps": 10}))
    assert isinstance(job, TrainingJob)
    assert (job.training.num_train_epochs, job.training.warmup_steps) == (2.0, 10.0)


def test_every_number_has_bounds_that_hold() -> None:
    """Its bounds are allowed, beyond them, NaN and infinity are not."""
    numbers = 0
    tested = {"dataset": {"held_out_path": "test.jsonl"}}  # without it there is nothing to stop by
    for section in SECTIONS:
        for key, schema in section_of(section).model_json_schema()["properties"].items():
            if schema.get("type") not in {"integer", "number"}:
                continue
            numbers += 1
            low = schema.get("minimum", schema.get("exclusiveMinimum"))
            high = schema["maximum"]
            allowed = [high] if "minimum" not in schema else [low, high]
            beyond = [low - 1, high + 1, 10**400, -(10**400)]
            beyond += [float("nan"), float("inf"), float("-inf")]
            if "exclusiveMinimum" in schema:
                beyond.append(low)
            for value in allowed:
                parse_job(changed(**{**tested, section: {key: value}}))
            for value in beyond:
                found = problems(changed(**{**tested, section: {key: value}}))
                assert found.keys() == {f"{section}.{key}"}, (key, value)
                assert len(found[f"{section}.{key}"]) < 200
    assert numbers > 15


def test_every_field_says_how_a_form_shows_it() -> None:
    for section in SECTIONS:
        for key, field in section_of(section).model_fields.items():
            extra = field.json_schema_extra
            assert field.title and field.description, f"{section}.{key}"
            assert field.description.endswith("."), f"{section}.{key}"
            assert isinstance(extra, dict)
            assert extra.keys() == {"unit", "advanced", "special", "form", "aliases"}, (
                f"{section}.{key}"
            )
    for key in ("model", "dataset"):  # chosen on pages of their own
        for field in section_of(key).model_fields.values():
            assert isinstance(field.json_schema_extra, dict) and not field.json_schema_extra["form"]


@pytest.mark.parametrize("section", ["model", "dataset", "training"])
@pytest.mark.parametrize("key", ["token", "hf_token", "hub_token", "password", "api_key"])
def test_there_is_no_field_for_a_secret(section: str, key: str) -> None:
    assert problems(changed(**{section: {key: "hf_x"}})).keys() == {f"{section}.{key}"}


def test_a_job_cannot_be_changed() -> None:
    job = parse_job(SMALLEST)
    with pytest.raises(ValidationError):
        job.name = "other"
    assert isinstance(job, TrainingJob)
    with pytest.raises(ValidationError):
        job.lora.r = 8


@pytest.mark.parametrize("document", [None, [], "job", 5, [SMALLEST]])
def test_what_is_no_object_is_no_job(document: Any) -> None:
    assert problems(document) == {"": "a job is one JSON object"}


def test_values_that_json_cannot_hold_are_mistakes_too() -> None:
    assert "is not JSON" in problems(changed(lora={"r": {1}}))[""]
    assert "is not JSON" in problems(changed(lora={"r": 10**5000}))[""]
    nested: list[Any] = []
    nested.append(nested)
    assert "is not JSON" in problems(changed(name=nested))[""]


def test_half_an_emoji_in_a_job_is_a_mistake() -> None:
    assert "Invalid JSON" in problems(changed(name="\ud83d"))[""]


def test_a_name_is_neither_empty_nor_endless() -> None:
    assert problems(changed(name="")).keys() == {"name"}
    found = problems(changed(name="x" * 10_000))
    assert found["name"].startswith("string should have at most 120 characters")
    assert len(found["name"]) < 200


# ------------------------------------------------------------------------------------ files


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def failure(path: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        load_job(path)
    return caught.value


def test_a_job_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps(SMALLEST), encoding="utf-8-sig")
    assert load_job(path) == parse_job(SMALLEST)


def test_bad_json_is_told_with_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text('{\n "name": "x",\n "lora": ]\n}')
    error = failure(path)
    assert (error.code, error.params["line"], error.params["column"]) == ("job_not_json", 3, 10)
    assert f"{path} is not valid JSON" in str(error)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "job_not_json"),
        (b'{"name": "\xe9"}', "job_not_text"),
        ('{"name": "ü"}'.encode("utf-16"), "job_not_text"),
        (b'{"seed": ' + b"1" * 5000 + b"}", "job_unreadable"),
        (b"[" * 100_000, "job_unreadable"),
        (b"\x00" * 100, "job_not_json"),
    ],
)
def test_a_file_that_is_no_json_is_told_without_a_traceback(
    tmp_path: Path, content: bytes, code: str
) -> None:
    path = tmp_path / "job.json"
    path.write_bytes(content)
    assert failure(path).code == code


def test_a_missing_file_and_a_folder_are_told_as_such(tmp_path: Path) -> None:
    assert failure(tmp_path / "none.json").code == "job_missing"
    if os.name != "nt":  # Windows calls it a permission denied
        assert failure(tmp_path).code == "job_is_folder"
    assert failure(tmp_path / ("x" * 5_000)).code in {"job_unreadable", "job_missing"}


def test_mistakes_in_a_file_name_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "job.json", changed(lora={"r": -1}))
    assert str(failure(path)).startswith(f"{path} has 1 mistake(s): lora.r: ")


def test_relative_paths_are_looked_for_beside_the_job_file_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, here = tmp_path / "beside", tmp_path / "here"
    for folder in (beside, here):
        folder.mkdir()
        (folder / "rows.jsonl").touch()
    (here / "model").mkdir()
    monkeypatch.chdir(here)
    path = write(beside / "job.json", changed(model={"id": "model"}))
    job = load_job(path)
    assert isinstance(job, TrainingJob)
    assert job.dataset.path == str(beside / "rows.jsonl")
    assert job.model.id == str(here / "model")  # not beside the file, but here
    assert load_job(Path("../beside/job.json")) == job


def test_what_exists_nowhere_is_left_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("owner/model", "x" * 10_000, "~nobody-here/rows", "a\0b", "../../no/such"):
        document = changed(model={"id": name}, dataset={"path": name})
        job = load_job(write(tmp_path / "job.json", document))
        assert isinstance(job, TrainingJob)
        assert (job.model.id, job.dataset.path) == (name, name)


def test_demo_is_the_demo_also_beside_a_folder_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    document = changed(model={"id": "demo"}, dataset={"path": "demo"})
    job = load_job(write(tmp_path / "job.json", document))
    assert isinstance(job, TrainingJob)
    assert (job.model.id, job.dataset.path) == ("demo", "demo")


def test_an_empty_text_is_said_to_be_empty() -> None:
    with pytest.raises(JobError) as caught:
        parse_job({"name": "", "model": {"id": ""}, "dataset": {"path": ""}})
    said = {problem.field: problem.message for problem in caught.value.problems}
    assert said == dict.fromkeys(("name", "model.id", "dataset.path"), "must not be empty")


def test_the_address_of_a_models_page_is_taken_as_its_name() -> None:
    job = parse_job({
        "model": {"id": "https://huggingface.co/acme/tiny/tree/main"}, "dataset": {"path": "x"}
    })  # fmt: skip
    assert job.model.id == "acme/tiny"
    for id in ("models/mine", "./mine", "/models/mine", "demo"):
        assert parse_job({"model": {"id": id}, "dataset": {"path": "x"}}).model.id == id
