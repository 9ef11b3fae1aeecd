"""Making a job fit: every change helps, keeps the effective batch, and the plan is honest."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training_backend import vram
from training_backend.computer.devices import Device, parse_device
from training_backend.job import TrainingJob, parse_job
from training_backend.memory import make_fit

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


def job(model: str = LLAMA, *, in_4bit: bool = False, **training: Any) -> TrainingJob:
    asked = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2} | training
    made = parse_job(
        {
            "version": 1,
            "model": {"id": model},
            "dataset": {"path": "demo"},
            "quantization": {"load_in_4bit": in_4bit},
            "lora": {"r": 64, "lora_alpha": 128},
            "training": asked,
        }
    )
    assert isinstance(made, TrainingJob)
    return made


def effective_batch(made: TrainingJob) -> int:
    training = made.training
    return training.per_device_train_batch_size * training.gradient_accumulation_steps


@settings(max_examples=40, deadline=None)
@given(
    model=st.sampled_from(["demo", "Qwen/Qwen3-4B", LLAMA]),
    gib=st.sampled_from([2, 6, 8, 12, 24, 80]),
    rows=st.sampled_from([1, 2, 6, 8]),
    length=st.sampled_from([256, 1024, 4096]),
    recomputes=st.booleans(),
    in_4bit=st.booleans(),
    packing=st.booleans(),
)
def test_every_change_needs_less_and_keeps_the_effective_batch(
    model: str, gib: int, rows: int, length: int, recomputes: bool, in_4bit: bool, packing: bool
) -> None:
    device = parse_device(f"cuda:{gib}GiB")
    asked = job(
        model,
        in_4bit=in_4bit,
        per_device_train_batch_size=rows,
        max_length=length,
        activation_checkpointing=recomputes,
        packing=packing,
    )
    before = vram.estimate_job(asked, device).total_bytes
    for change in make_fit.suggestions(asked, device):
        changed = make_fit.changed(asked, change.changes)
        after = vram.estimate_job(changed, device)
        assert before - after.total_bytes == change.saved_bytes > 0
        assert after.total_bytes == change.total_bytes and after.fit == change.fit
        assert effective_batch(changed) == effective_batch(asked)
    plan = make_fit.plan(asked, device)
    changed = make_fit.changed(asked, plan.changes)
    after = vram.estimate_job(changed, device)
    assert (after.total_bytes, after.fit != "does_not_fit") == (plan.total_bytes, plan.fits)
    assert effective_batch(changed) == effective_batch(asked)


def test_a_plan_takes_the_least_harmful_changes_first() -> None:
    plan = make_fit.plan(job(activation_checkpointing=False), parse_device("cuda:24GiB"))
    assert plan.fits
    assert [step.code for step in plan.steps] == ["micro_batch", "checkpointing"]
    # 16-bit training is kept: more quantisation is not the first thing to do.
    assert "quantization.load_in_4bit" not in plan.changes


def test_a_change_that_a_later_one_made_needless_is_left_out() -> None:
    device = parse_device("cuda:12GiB")
    plan = make_fit.plan(job(activation_checkpointing=False), device)
    assert plan.fits
    for step in plan.steps:
        others = {
            field: value
            for other in plan.steps
            if other is not step
            for field, value in other.changes.items()
        }
        without = make_fit.changed(job(activation_checkpointing=False), others)
        assert vram.estimate_job(without, device).fit == "does_not_fit" or step is plan.steps[-1]


def test_where_nothing_helps_the_plan_says_so() -> None:
    plan = make_fit.plan(job("demo"), Device("cuda", "tiny card", 200 * 2**20, imagined=True))
    assert not plan.fits
    assert plan.steps


def test_a_smaller_model_of_the_same_family_is_the_last_resort() -> None:
    big = job("meta-llama/Llama-3.3-70B-Instruct", in_4bit=True)
    found = make_fit.suggestions(big, parse_device("cuda:16GiB"))
    assert found[-1].code == "smaller_model"
    assert found[-1].changes["model.id"] == "meta-llama/Llama-3.1-8B-Instruct"
    assert found[-1].fits


def test_a_shorter_limit_says_what_it_cuts_of_these_rows() -> None:
    lengths = [(200, 90), (3000, 10)]
    found = make_fit.suggestions(job(max_length=4096), parse_device("cuda:24GiB"), lengths=lengths)
    shorter = next(change for change in found if change.code == "max_length")
    assert shorter.changes["training.max_length"] < 3000
    assert "10 % of your rows" in shorter.cost


def test_free_memory_is_offered_for_speed_only_as_far_as_it_fits_comfortably() -> None:
    device = parse_device("cuda:24GiB")
    asked = job("Qwen/Qwen3-0.6B", in_4bit=True, per_device_train_batch_size=1, max_length=512)
    assert vram.estimate_job(asked, device).fit == "comfortable"
    found = make_fit.faster(asked, device)
    assert {change.code for change in found} == {
        "less_checkpointing", "larger_batch", "sixteen_bit",
    }  # fmt: skip
    for change in found:
        assert change.fit == "comfortable"
        assert effective_batch(make_fit.changed(asked, change.changes)) == effective_batch(asked)
    assert make_fit.faster(job(), device) == []


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_the_optimizer_in_8_bits_pages_only_on_a_card(kind: str) -> None:
    found = make_fit.suggestions(job(optim="adamw_torch"), parse_device(f"{kind}:24GiB"))
    eight = next(change for change in found if change.code == "optimizer")
    wanted = "paged_adamw_8bit" if kind == "cuda" else "adamw_8bit"
    assert eight.changes == {"training.optim": wanted}


@pytest.mark.parametrize("gib", [8, 12, 24, 40])
def test_a_plan_goes_no_further_than_it_must(gib: int) -> None:
    asked = job(activation_checkpointing=False, max_length=2048)
    device = parse_device(f"cuda:{gib}GiB")
    plan = make_fit.plan(asked, device)
    assert plan.fits and plan.steps
    for step in plan.steps:
        others = {
            field: value
            for other in plan.steps
            if other is not step
            for field, value in other.changes.items()
        }
        without = make_fit.changed(asked, others)
        offered = make_fit.suggestions(without, device)
        milder = next(option for option in offered if option.code == step.code)
        assert milder.changes == step.changes


@pytest.mark.parametrize("start", ["pissa", "olora", "orthogonal"])
def test_nothing_is_offered_that_the_other_settings_do_not_allow(start: str) -> None:
    asked = job()
    asked = make_fit.changed(asked, {"lora.init_lora_weights": start, "lora.r": 36})
    device = parse_device("cuda:16GiB")
    changes = [one.changes for one in make_fit.suggestions(asked, device)]
    changes.append(make_fit.plan(asked, device).changes)
    for change in changes:
        assert "quantization.load_in_4bit" not in change
        parse_job(make_fit.changed(asked, change).model_dump(mode="json"))


def test_the_rank_of_an_adapter_to_start_from_stays() -> None:
    asked = make_fit.changed(job(), {"model.adapter": "/some/adapter"})
    for device in ("cuda:6GiB", "cuda:16GiB"):
        found = make_fit.suggestions(asked, parse_device(device))
        assert found and not any("lora.r" in change.changes for change in found)


def test_where_it_is_tight_the_offers_make_it_comfortable() -> None:
    device = parse_device("cuda:24GiB")
    asked = job(per_device_train_batch_size=8, activation_checkpointing=True)
    total = vram.estimate_job(asked, device).total_bytes
    tight = Device("cuda", "a card", int(total * 1.05), imagined=True)
    assert vram.estimate_job(asked, tight).fit == "tight"
    found = {one.code: one for one in make_fit.suggestions(asked, tight)}
    assert found["four_bit"].fit == found["micro_batch"].fit == "comfortable"


def test_the_cost_of_recomputing_counts_from_what_is_recomputed_now() -> None:
    device = parse_device("cuda:6GiB")  # so small that every kind goes as far as it can

    def cost(**training: Any) -> str:
        found = make_fit.suggestions(job(**training), device)
        return next(change.cost for change in found if change.code == "checkpointing")

    assert "33 %" in cost(activation_checkpointing=False)
    assert "17 %" in cost(activation_checkpointing_every_n_layers=2)  # 1 - 2.5 / 3
