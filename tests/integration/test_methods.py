"""Every method: it learns, resumes exactly, and merges into what plain PEFT makes of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_merge import compare_with_peft
from training_backend import runs
from training_backend.job import parse_job
from training_backend.runs import Run

STEPS, SAVED = 4, 2
IN_16_BIT = {"quantization": {"load_in_4bit": False}}

METHODS = {
    "LoRA in NF4": {},
    "rsLoRA in FP4, constants in full": {
        "lora": {"use_rslora": True},
        "quantization": {"bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": False},
    },
    "DoRA in 4-bit": {"lora": {"use_dora": True}},
    "pre-training on plain text": {
        "dataset": {"path": str(Path(__file__).parents[2] / "docs" / "memory.md")}
    },
    "LoRA+, norms in full, noise, like lengths": {
        "lora": {
            "loraplus_lr_ratio": 8.0,
            "init_lora_weights": "gaussian",
            "modules_to_save": ["norm"],
        },
        "training": {"neftune_noise_alpha": 5.0, "train_sampling_strategy": "group_by_length"},
    },
    "words in full": {"lora": {"modules_to_save": ["embed_tokens", "lm_head"]}, **IN_16_BIT},
    "PiSSA": {"lora": {"init_lora_weights": "pissa"}, **IN_16_BIT},
    "OLoRA": {"lora": {"init_lora_weights": "olora", "use_rslora": True}, **IN_16_BIT},
    "attention of one block": {
        "lora": {
            "target_modules": "attention",
            "layers_to_transform": [1],
            "init_lora_weights": "orthogonal",
        },
        **IN_16_BIT,
    },
}
# Of the 14 layers and 5 norms of the tiny model.
CHANGED = {
    "attention of one block": 4,
    "LoRA+, norms in full, noise, like lengths": 19,
    "words in full": 16,
}


@pytest.fixture(scope="module")
def untied_model(make_model: Any) -> Path:
    """With an output layer of its own."""
    folder: Path = make_model(tie_word_embeddings=False)
    return folder


def _losses(events: list[Any]) -> dict[int, tuple[float, float]]:
    return {e.step: (e.loss, e.grad_norm) for e in events if e.type == "MetricsLogged"}


def _weights(run: Run) -> bytes:
    return (run.adapter / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("name", METHODS)
def test_a_method_learns_resumes_exactly_and_merges_as_peft_does(
    backend: Any, do: Any, job_document: Any, tiny_model: Path, untied_model: Path,
    tmp_path: Path, name: str,
) -> None:  # fmt: skip
    base = untied_model if name == "words in full" else tiny_model
    training = {"max_steps": STEPS, "save_steps": SAVED, "learning_rate": 0.01, "warmup_steps": 0.0,
                "lr_scheduler_type": "constant", "per_device_train_batch_size": 8}  # fmt: skip
    # The demo's answers to customers, where the method does not say otherwise.
    sections = {"model": {"id": str(base)}, "dataset": {"path": "demo"}, **METHODS[name]}
    job = job_document(**{**sections, "training": {**training, **sections.get("training", {})}})
    whole = do(job)
    assert whole.exit_code == 0, whole.terminal
    losses, weights = _losses(whole.events), _weights(whole.run)
    assert losses[STEPS][0] < losses[1][0] - 0.05

    shutil.rmtree(whole.run.adapter)
    shutil.rmtree(whole.run.checkpoints / f"checkpoint-{STEPS}")
    resumed = do(whole.run)
    assert resumed.exit_code == 0, resumed.terminal
    began = resumed.events.index(resumed.of("RunStarted")[-1])
    assert resumed.events[began].resumed_from_step == SAVED
    again = _losses(resumed.events[began:])
    assert again == {step: told for step, told in losses.items() if step > SAVED}
    assert _weights(whole.run) == weights

    exported = do({"kind": "export", "run": str(whole.run.folder), "out": str(tmp_path / "out")})
    assert exported.exit_code == 0, exported.terminal
    found = backend(compare_with_peft, base, whole.run.adapter, tmp_path / "out")
    assert found["wrong"] == [] and found["missing"] == [] and found["same"]
    assert found["changed"] == CHANGED.get(name, 14)


def logits_differ(base: str, first: str, second: str) -> list[float]:
    """How far apart two adapters' logits are, and how far both are from the base's."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    ids = torch.arange(5, 60)[None]
    told = []
    for adapter in (None, first, second):
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        if adapter:
            model = PeftModel.from_pretrained(model, adapter)
        with torch.no_grad():
            told.append(model.eval()(ids).logits)
    untouched, one, other = told
    return [float((one - other).abs().max()), float((one - untouched).abs().max())]


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_an_adapter_that_took_its_start_from_the_base_is_saved_as_one_for_the_whole_base(
    backend: Any, do: Any, job_document: Any, tiny_model: Path, start: str
) -> None:
    done = do(
        job_document(
            lora={"init_lora_weights": start}, training={"learning_rate": 0.01}, **IN_16_BIT
        )
    )
    assert done.exit_code == 0, done.terminal
    # The checkpoint is as it was trained; PEFT takes the start out of the base again. It does so
    # with the start in full precision, of which the training had 16 bits.
    checkpoint = done.run.checkpoints / "checkpoint-3"
    apart, learned = backend(logits_differ, tiny_model, checkpoint, done.run.adapter)
    assert apart < 0.05 * learned
    job = {"kind": "export", "run": str(done.run.folder), "checkpoint": "checkpoint-3"}
    refused = do({**job, "out": str(done.run.folder.parent / "out")})
    assert refused.terminal.code == "adapter_does_not_fit" and start in refused.sentence


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lm_head", "one table"),
        ("embed_tokens", "one table"),
        ("mlp", "layers that get an adapter"),
        ("wte", "no part of that name"),
        ("q_proj", "layers that get an adapter"),
    ],
)
def test_a_part_that_cannot_be_trained_in_full_is_refused_with_its_reason(
    do: Any, job_document: Any, name: str, words: str
) -> None:
    done = do(job_document(lora={"modules_to_save": ["norm", name]}))
    assert done.terminal.code == "cannot_train_in_full"
    assert done.terminal.field == "lora.modules_to_save"
    assert name in done.sentence and words in done.sentence


def test_a_part_in_4_bits_is_not_trained_in_full(do: Any, job_document: Any) -> None:
    done = do(job_document(lora={"modules_to_save": ["mlp"], "target_modules": "attention"}))
    assert done.terminal.field == "lora.modules_to_save" and "4 bits" in done.sentence


def test_training_goes_on_from_an_adapter_with_dora(do: Any, job_document: Any) -> None:
    first = do(job_document(lora={"use_dora": True}, training={"learning_rate": 0.01}))
    sections = {"model": {"adapter": str(first.run.adapter)}, "training": {"learning_rate": 0.01}}
    second = do(job_document(lora={"use_dora": True}, **sections))
    assert second.exit_code == 0, second.terminal
    losses = [event.loss for done in (first, second) for event in done.of("MetricsLogged")]
    assert losses[3] < losses[0] and losses[5] < losses[2]
    plain = do(job_document(**sections))
    assert plain.terminal.field == "lora.use_dora"


def without_compilers(folder: str) -> int:
    """As `work`, on a computer that has no compiler."""
    import queue
    import shutil
    from pathlib import Path
    from unittest import mock

    from training_backend import worker
    from training_backend.runs import Run

    with mock.patch.object(shutil, "which", return_value=None):
        return worker._work(Run(Path(folder)), queue.Queue())


def test_compiling_is_refused_where_nothing_can_compile(
    backend: Any, job_document: Any, lorasmith_home: Path
) -> None:
    run = runs.create(parse_job(job_document(training={"torch_compile": True})))
    assert backend(without_compilers, run.folder) == 1
    last: Any = run.events()[-1]
    assert (last.code, last.field) == ("no_compiler", "training.torch_compile")
