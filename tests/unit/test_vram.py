from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from training_backend import vram
from training_backend.computer.devices import parse_device
from training_backend.errors import UserError
from training_backend.job import TrainingJob, parse_job
from training_backend.memory import memory_traces
from training_backend.memory.memory_needs import Needs
from training_backend.models import curated
from training_backend.models.model_config import config_of, demo_config, remember_config
from training_backend.vram import Estimate, TraceNeeded, estimate_job

CARD = parse_device("cuda:24GiB")
CPU = parse_device("cpu:16GiB")
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
SOME = ("demo", LLAMA, "google/gemma-3-1b-it", "Qwen/Qwen3-8B", "microsoft/Phi-4-mini-instruct")

pytestmark = pytest.mark.usefixtures("lorasmith_home")


def job(model: str = LLAMA, **sections: dict[str, Any]) -> TrainingJob:
    document = {"model": {"id": model}, "dataset": {"path": "not there.jsonl"}, **sections}
    found = parse_job(document)
    assert isinstance(found, TrainingJob)
    return found


def total(
    model: str = LLAMA, device: Any = CARD, in_4bit: bool = True, r: int = 16, **t: Any
) -> int:
    wanted = job(model, quantization={"load_in_4bit": in_4bit}, lora={"r": r}, training=t)
    return estimate_job(wanted, device).total_bytes


@pytest.mark.parametrize("model", SOME)
@pytest.mark.parametrize("device", [CARD, CPU], ids=["card", "cpu"])
@pytest.mark.parametrize("in_4bit", [True, False])
def test_more_work_never_takes_less_memory(model: str, device: Any, in_4bit: bool) -> None:
    def rising(name: str, values: list[Any], **fixed: Any) -> None:
        found = [total(model, device, in_4bit, **{**fixed, name: value}) for value in values]
        assert all(a <= b for a, b in pairwise(found)), (name, values, found)

    for recomputes in (True, False):
        fixed = {"activation_checkpointing": recomputes}
        rising("per_device_train_batch_size", [1, 2, 3, 8, 64], **fixed)
        rising("max_length", [64, 500, 1024, 4000, 5000, 16384], **fixed)
        rising("r", [1, 8, 16, 64, 256], **fixed)
        rising("gradient_accumulation_steps", [1, 2, 8], **fixed)


@pytest.mark.parametrize("model", SOME)
def test_recomputing_fewer_layers_lies_between_all_and_none(model: str) -> None:
    everything = total(model)
    nothing = total(model, activation_checkpointing=False)
    found = [total(model, activation_checkpointing_every_n_layers=k) for k in (2, 3, 4)]
    assert everything < found[0] < found[1] < found[2] < nothing
    # So seldom that only the first layer is.
    assert total(model, activation_checkpointing_every_n_layers=1000) <= nothing


@pytest.mark.parametrize("model", SOME)
@pytest.mark.parametrize("device", [CARD, CPU], ids=["card", "cpu"])
def test_the_parts_sum_to_the_total_and_explain_themselves(model: str, device: Any) -> None:
    for accumulate in (1, 4):
        wanted = job(model, training={"gradient_accumulation_steps": accumulate})
        found = estimate_job(wanted, device)
        assert sum(part.bytes for part in found.parts) == found.total_bytes
        assert [part.name for part in found.parts] == [
            "weights", "adapter", "gradients", "optimizer", "activations", "overhead",
        ]  # fmt: skip
        assert all(part.bytes >= 0 and part.formula and part.source for part in found.parts)
        assert not any("{" in part.formula for part in found.parts)


def test_a_published_model_takes_what_its_size_says() -> None:
    parts = {part.name: part.bytes for part in estimate_job(
        job(quantization={"load_in_4bit": False}), CARD).parts}  # fmt: skip
    assert parts["weights"] == 2 * 8_030_261_248
    # r 16 on all seven projections of 32 layers, as PEFT counts it.
    assert parts["adapter"] == 4 * 41_943_040
    assert parts["gradients"] == parts["adapter"]


def test_an_embedding_that_is_the_output_layer_too_counts_once() -> None:
    found = estimate_job(job("demo", quantization={"load_in_4bit": False}), CPU)
    assert found.part("weights").bytes == 2 * 134_515_008


def test_double_quantisation_saves_about_three_eighths_of_a_bit() -> None:
    def weights(double: bool) -> int:
        wanted = job(quantization={"bnb_4bit_use_double_quant": double})
        return estimate_job(wanted, CARD).part("weights").bytes

    quantised = 8_030_261_248 - 2 * 128256 * 4096 - 65 * 4096
    saved = 8 * (weights(False) - weights(True)) / quantised
    assert saved == pytest.approx(0.373, abs=0.002)


@pytest.mark.parametrize(
    ("optim", "bytes_each"),
    [("adamw_torch", 8.0), ("adamw_8bit", 2.03), ("paged_adamw_8bit", 2.03), ("sgd", 0.0)],
)
def test_optimizers_differ_by_their_states(optim: str, bytes_each: float) -> None:
    part = estimate_job(job(training={"optim": optim}), CARD).part("optimizer")
    assert part.bytes / 41_943_040 == pytest.approx(bytes_each, rel=0.01)


def test_auto_is_a_small_optimizer_on_a_card_and_the_plain_one_elsewhere() -> None:
    assert vram.optimizer_name(job(), CARD) == "paged_adamw_8bit"
    assert vram.optimizer_name(job(), CPU) == "adamw_torch"
    assert vram.optimizer_name(job(training={"optim": "sgd"}), CARD) == "sgd"


@pytest.mark.parametrize(
    ("gib", "fit"), [(2.0, "comfortable"), (1.02, "tight"), (0.98, "does_not_fit")]
)
def test_the_fit_is_by_what_is_free(gib: float, fit: str) -> None:
    needed = estimate_job(job(), CARD).total_bytes
    device = parse_device(f"cuda:{needed * gib / 2**20:.0f}MiB")
    assert estimate_job(job(), device).fit == fit


def test_every_model_of_the_catalogue_can_be_estimated_at_once() -> None:
    known = [(entry.id, entry.parameters) for entry in curated.models()]
    assert len(known) > 40
    for id, parameters in [*known, ("demo", 134_515_008)]:
        found = estimate_job(job(id, quantization={"load_in_4bit": False}), CARD)
        assert found.part("weights").bytes == 2 * (parameters or 0), id


def test_a_model_of_the_catalogue_with_other_layers_is_to_be_traced() -> None:
    estimate_job(job(), CARD)
    for lora in ({"target_modules": ["q_proj"]}, {"lora_dropout": 0.1}):
        with pytest.raises(TraceNeeded):
            estimate_job(job(lora=lora), CARD)


def test_a_model_that_nobody_knows_is_to_be_traced() -> None:
    with pytest.raises(TraceNeeded):
        estimate_job(job("some-owner/some-model"), CARD)


def test_what_is_no_model_is_said_in_a_sentence() -> None:
    with pytest.raises(UserError):
        estimate_job(job("/no/such/folder/anywhere"), CARD)


def test_a_folder_needs_only_its_config(tmp_path: Path) -> None:
    folder = tmp_path / "only a config"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(demo_config()))
    found = estimate_job(job(str(folder)), CPU)
    assert found == estimate_job(job("demo"), CPU)


def test_a_fetched_config_is_remembered_for_its_revision() -> None:
    remember_config("some-owner/some-model", None, demo_config())
    remember_config("some-owner/some-model", "v2", {**demo_config(), "num_hidden_layers": 3})
    assert config_of(job("some-owner/some-model")) == demo_config()
    estimate_job(job("some-owner/some-model"), CPU)
    revised = parse_job(
        {"model": {"id": "some-owner/some-model", "revision": "v2"}, "dataset": {"path": "d"}}
    )
    assert isinstance(revised, TrainingJob)
    assert (config_of(revised) or {})["num_hidden_layers"] == 3


def test_names_and_versions_in_a_config_do_not_call_for_another_trace() -> None:
    config = demo_config()
    print_ = memory_traces.fingerprint(config, job())
    other = {**config, "_name_or_path": "elsewhere", "transformers_version": "4.1", "dtype": "?"}
    assert memory_traces.fingerprint(other, job()) == print_
    wider = {**config, "hidden_size": 640}
    assert memory_traces.fingerprint(wider, job()) != print_


def test_a_trace_kept_here_is_found_and_a_damaged_one_is_not(lorasmith_home: Path) -> None:
    [shipped, *_] = memory_traces.shipped()
    kept = shipped.model_copy(update={"fingerprint": "0123"})
    assert memory_traces.find("0123") is None
    path = memory_traces.store(kept)
    assert path.is_relative_to(lorasmith_home)
    assert memory_traces.find("0123") == kept
    path.write_text("{")
    assert memory_traces.find("0123") is None
    memory_traces.store(kept.model_copy(update={"format": memory_traces.FORMAT + 1}))
    assert memory_traces.find("0123") is None


def test_a_size_alone_gives_a_total_between_its_neighbours() -> None:
    def guess(parameters: float) -> int:
        return vram.estimate_parameters(int(parameters), job(), CARD)

    sizes = [1e7, 1e8, 5e8, 1e9, 3e9, 8e9, 2e10, 7e10, 4e11]
    assert all(guess(a) < guess(b) for a, b in pairwise(sizes))
    for id in ("Qwen/Qwen3-8B", LLAMA, "Qwen/Qwen2.5-14B-Instruct"):
        known = estimate_job(job(id), CARD)
        parameters = (curated.entry(id) or pytest.fail(id)).parameters or 0
        assert guess(parameters) == pytest.approx(known.total_bytes, rel=0.2)


def test_ram_and_disk_grow_with_what_they_are_for() -> None:
    def needs(found: Estimate) -> Any:
        return found.needs

    small, large = (needs(estimate_job(job(id), CARD)) for id in ("demo", LLAMA))
    for name in Needs.__dataclass_fields__:
        assert 0 < getattr(small, name) < getattr(large, name), name
    assert large.merge_disk == 2 * 8_030_261_248
    assert large.merge_ram < 10 * 2**30  # tensor by tensor, not the whole model
    on_cpu = estimate_job(job("demo"), CPU)
    assert on_cpu.needs.training_ram == on_cpu.total_bytes
    more = needs(estimate_job(job(training={"save_total_limit": 9}), CARD))
    assert more.training_disk > 2 * large.training_disk
