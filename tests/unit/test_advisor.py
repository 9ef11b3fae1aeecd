"""The advice holds what the papers and practice say, fits the device, and is a valid job."""

from __future__ import annotations

import pytest

from app.forms import specs
from training_backend import vram
from training_backend.computer.devices import parse_device
from training_backend.job import TrainingJob, parse_job
from training_backend.memory import make_fit
from training_backend.starting_points import advisor
from training_backend.starting_points.advisor import GOALS, Goal
from training_backend.starting_points.presets import presets


def job(model: str) -> TrainingJob:
    made = parse_job({"version": 1, "model": {"id": model}, "dataset": {"path": "demo"}})
    assert isinstance(made, TrainingJob)
    return made


def advised(model: str, goal: Goal, device: str, **known: object) -> dict[str, object]:
    found, _ = advisor.advise(job(model), goal, parse_device(device), **known)  # type: ignore[arg-type]
    assert len({item.field for item in found}) == len(found)
    assert all(item.reason.endswith(".") for item in found)
    return {item.field: item.value for item in found}


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("device", ["cuda:8GiB", "cuda:24GiB", "cuda:80GiB", "cpu:16GiB"])
@pytest.mark.parametrize("model", ["demo", "Qwen/Qwen3-4B", "meta-llama/Llama-3.1-8B-Instruct"])
def test_the_advice_is_a_valid_job_that_fits_where_anything_does(
    goal: Goal, device: str, model: str
) -> None:
    values = advised(model, goal, device)
    changed = make_fit.changed(job(model), values)
    again = parse_job(changed.model_dump(mode="json"))
    assert isinstance(again, TrainingJob)
    assert changed.lora.lora_alpha == 2 * changed.lora.r
    assert changed.lora.target_modules == "all-linear"
    _, remarks = advisor.advise(job(model), goal, parse_device(device))
    fits = vram.estimate_job(changed, parse_device(device)).fit == "comfortable"
    assert fits != any("does not fit" in remark for remark in remarks)


def test_16_bit_where_it_fits_and_4_bit_where_memory_is_short() -> None:
    llama = "meta-llama/Llama-3.1-8B-Instruct"
    assert advised(llama, "style", "cuda:80GiB")["quantization.load_in_4bit"] is False
    assert advised(llama, "style", "cuda:12GiB")["quantization.load_in_4bit"] is True


def test_a_start_is_rank_16_and_reasoning_gets_32() -> None:
    assert advised("demo", "style", "cuda:24GiB")["lora.r"] == 16
    assert advised("demo", "reasoning", "cuda:24GiB")["lora.r"] == 32
    assert advised("demo", "format", "cuda:24GiB")["lora.r"] == 8


def test_a_small_model_learns_a_style_at_a_higher_rate() -> None:
    small = advised("demo", "style", "cuda:24GiB", parameters=134_515_008)
    large = advised("Qwen/Qwen3-8B", "style", "cuda:24GiB", parameters=8_190_735_360)
    assert small["training.learning_rate"] == 1e-3
    assert large["training.learning_rate"] == 2e-4


def test_few_rows_are_kept_from_being_learned_by_heart() -> None:
    assert advised("demo", "style", "cuda:24GiB", rows=80)["lora.lora_dropout"] == 0.05
    assert advised("demo", "style", "cuda:24GiB", rows=5_000)["lora.lora_dropout"] == 0.0
    _, remarks = advisor.advise(job("demo"), "style", parse_device("cuda:24GiB"), rows=80)
    assert any("80 rows are few" in remark for remark in remarks)
    assert advised("demo", "style", "cuda:24GiB", rows=50_000)["training.num_train_epochs"] == 1.0


def test_new_facts_come_with_a_warning() -> None:
    _, remarks = advisor.advise(job("demo"), "facts", parse_device("cuda:24GiB"))
    assert any("retrieval" in remark for remark in remarks)


def test_the_limit_follows_the_rows() -> None:
    lengths = [(120, 900), (700, 99), (6000, 1)]
    values = advised("demo", "style", "cuda:24GiB", lengths=lengths)
    assert values["training.max_length"] == 1024


def test_every_preset_is_valid_and_names_settings_that_the_form_shows() -> None:
    shown = {spec.field for spec in specs()}
    titles = [preset.title for preset in presets()]
    assert titles == [
        "Quick demo", "Balanced", "Thorough", "Tiny data", "Long documents", "Maximum quality",
    ]  # fmt: skip
    for preset in presets():
        assert preset.values.keys() <= shown
        assert preset.values.keys() == presets()[0].values.keys()  # so that one undoes another
        changed = make_fit.changed(job("demo"), preset.values)
        again = parse_job(changed.model_dump(mode="json"))
        assert again == changed


def test_the_advice_keeps_to_what_other_settings_allow() -> None:
    pissa = make_fit.changed(
        job("Qwen/Qwen3-4B"),
        {"lora.init_lora_weights": "pissa", "quantization.load_in_4bit": False},
    )
    for device in ("cuda:8GiB", "cuda:80GiB"):
        found, _ = advisor.advise(pissa, "style", parse_device(device))
        values = {item.field: item.value for item in found}
        parse_job(make_fit.changed(pissa, values).model_dump(mode="json"))


def test_the_shape_of_an_adapter_to_start_from_stays() -> None:
    going_on = make_fit.changed(job("Qwen/Qwen3-4B"), {"model.adapter": "/some/adapter"})
    found, _ = advisor.advise(going_on, "reasoning", parse_device("cuda:24GiB"))
    assert found and not any(item.field.startswith("lora.") for item in found)
