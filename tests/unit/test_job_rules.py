"""Settings that cannot go together are refused at the field that one would change."""

from __future__ import annotations

from typing import Any

import pytest

from training_backend.errors import JobError
from training_backend.job import TrainingJob, parse_job


def document(**sections: dict[str, Any]) -> dict[str, Any]:
    return {"model": {"id": "owner/model"}, "dataset": {"path": "rows.jsonl"}, **sections}


def refused(**sections: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(JobError) as caught:
        parse_job(document(**sections))
    return {problem.field: problem.message for problem in caught.value.problems}


IN_16_BIT: dict[str, Any] = {"load_in_4bit": False}
ALPACA = {"path": "rows.jsonl", "format": "alpaca"}
FROM_ADAPTER = {"id": "owner/model", "adapter": "/first"}


@pytest.mark.parametrize(
    ("sections", "field", "words"),
    [
        ({"lora": {"init_lora_weights": "pissa"}}, "lora.init_lora_weights", "4 bits"),
        ({"lora": {"init_lora_weights": "olora"}}, "lora.init_lora_weights", "4 bits"),
        ({"lora": {"init_lora_weights": "orthogonal"}}, "lora.init_lora_weights", "4-bit"),
        (
            {"lora": {"init_lora_weights": "orthogonal", "r": 5}, "quantization": IN_16_BIT},
            "lora.init_lora_weights",
            "even rank",
        ),
        (
            {"lora": {"init_lora_weights": "pissa", "use_dora": True}, "quantization": IN_16_BIT},
            "lora.init_lora_weights",
            "DoRA",
        ),
        (
            {
                "lora": {"init_lora_weights": "olora"},
                "quantization": IN_16_BIT,
                "model": FROM_ADAPTER,
            },
            "lora.init_lora_weights",
            "its own beginning",
        ),
        (
            {"lora": {"modules_to_save": ["norm"]}, "model": FROM_ADAPTER},
            "lora.modules_to_save",
            "trains no parts in full",
        ),
        ({"training": {"method": "full"}}, "training.method", "in 4 bits"),
        (
            {"training": {"method": "full"}, "quantization": IN_16_BIT, "model": FROM_ADAPTER},
            "training.method",
            "with lora",
        ),
        *(
            ({**sections, "training": {"objective": "dpo", **training}}, field, words)
            for sections, training, field, words in (
                ({"dataset": ALPACA}, {}, "training.objective", "a rejected answer"),
                (
                    {"quantization": IN_16_BIT},
                    {"method": "full"},
                    "training.objective",
                    "beside an adapter",
                ),
                ({"model": FROM_ADAPTER}, {}, "training.objective", "merge that adapter"),
                (
                    {"quantization": IN_16_BIT, "lora": {"init_lora_weights": "olora"}},
                    {},
                    "lora.init_lora_weights",
                    "as it was",
                ),
                ({}, {"packing": True}, "training.packing", "cannot be packed"),
                (
                    {},
                    {"neftune_noise_alpha": 5.0},
                    "training.neftune_noise_alpha",
                    "compare noise",
                ),
                (
                    {},
                    {"train_sampling_strategy": "group_by_length"},
                    "training.train_sampling_strategy",
                    "random order",
                ),
                ({}, {"padding_free": True}, "training.padding_free", "are padded"),
            )
        ),
        (
            {"training": {"packing": True, "train_sampling_strategy": "group_by_length"}},
            "training.train_sampling_strategy",
            "one length already",
        ),
        (
            {"training": {"padding_free": True, "packing": True}},
            "training.padding_free",
            "no padding already",
        ),
        (
            {"training": {"padding_free": True, "train_sampling_strategy": "group_by_length"}},
            "training.train_sampling_strategy",
            "does not matter",
        ),
        (
            {"evaluation": {"early_stopping_patience": 2}},
            "evaluation.early_stopping_patience",
            "no rows are held out",
        ),
        (
            {"evaluation": {"task_metric_rows": 20}},
            "evaluation.task_metric_rows",
            "no rows are held out",
        ),
    ],
)
def test_what_cannot_go_together_is_refused_with_its_reason(
    sections: dict[str, Any], field: str, words: str
) -> None:
    found = refused(**sections)
    assert found.keys() == {field}
    assert words in found[field]


@pytest.mark.parametrize(
    "sections",
    [
        {"evaluation": {"held_out_fraction": 0.1}},
        {"dataset": {"path": "rows.jsonl", "held_out_path": "test.jsonl"}},
    ],
)
def test_answers_can_be_compared_where_rows_are_held_out(sections: dict[str, Any]) -> None:
    evaluation = {"task_metric_rows": 20, **sections.pop("evaluation", {})}
    parse_job(document(**sections, evaluation=evaluation))


def test_every_conflict_is_told_at_once_also_of_a_job_to_be_probed() -> None:
    sections = {
        "lora": {"init_lora_weights": "pissa"},
        "training": {"packing": True, "train_sampling_strategy": "group_by_length"},
    }
    both = {"lora.init_lora_weights", "training.train_sampling_strategy"}
    assert refused(**sections).keys() == both
    with pytest.raises(JobError) as caught:
        parse_job({"kind": "probe", "job": document(**sections)})
    assert {problem.field for problem in caught.value.problems} == both


@pytest.mark.parametrize("start", ["default", "gaussian", "orthogonal", "olora", "pissa"])
def test_every_start_goes_with_16_bit(start: str) -> None:
    sections: dict[str, Any] = {"lora": {"init_lora_weights": start}, "quantization": IN_16_BIT}
    assert isinstance(parse_job(document(**sections)), TrainingJob)


@pytest.mark.parametrize(
    "sections",
    [
        {"evaluation": {"early_stopping_patience": 2, "held_out_fraction": 0.1}},
        {
            "evaluation": {"early_stopping_patience": 2},
            "dataset": {"path": "rows.jsonl", "held_out_path": "test.jsonl"},
        },
    ],
)
def test_early_stopping_goes_with_rows_to_test_on(sections: dict[str, Any]) -> None:
    assert isinstance(parse_job(document(**sections)), TrainingJob)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("layers_to_transform", [], "name each block once"),
        ("layers_to_transform", [1, 1], "name each block once"),
        ("layers_to_transform", [-1], "name each block once"),
        ("modules_to_save", [], "write none"),
        ("modules_to_save", [" "], "write none"),
        ("target_modules", [], "write all-linear"),
    ],
)
def test_a_list_that_names_nothing_is_refused_at_its_field(
    key: str, value: Any, words: str
) -> None:
    assert words in refused(lora={key: value})[f"lora.{key}"]


def test_basic_mode_shows_at_most_eight_settings() -> None:
    shown = [
        f"{section}.{key}"
        for section, info in TrainingJob.model_fields.items()
        for key, field in getattr(info.annotation, "model_fields", {}).items()
        if field.json_schema_extra["form"] and not field.json_schema_extra["advanced"]
    ]
    assert 1 <= len(shown) <= 8
