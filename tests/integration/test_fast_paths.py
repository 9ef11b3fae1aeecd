"""The fast paths of a training on the processor: the same numbers by a shorter way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training_backend import runs
from training_backend.job import parse_job
from training_backend.lifecycle import checkpoints


def loss_and_gradient(batch: int, length: int, learned: float, bias: bool) -> dict[str, float]:
    """How far our loss is from PyTorch's on whole scores, in 32 bits, by the largest number."""
    import torch

    from training_backend.training.fast_loss import learned_loss

    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(24, 300, bias=bias).requires_grad_(False)
    states = torch.randn(batch, length, 24, generator=generator)
    labels = torch.randint(300, (batch, length), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) >= learned] = -100
    labels[:, 0] = 7  # which is not told from anything
    found = []
    for own in (True, False):
        hidden = states.clone().requires_grad_()
        if own:
            loss = learned_loss(hidden, head, labels)
        else:
            scores = head(hidden)[:, :-1].flatten(0, 1)
            loss = torch.nn.functional.cross_entropy(
                scores, labels[:, 1:].flatten(), reduction="sum"
            )
            loss = loss / max(1, int((labels[:, 1:] != -100).sum()))
        (3 * loss).backward()
        found.append((loss.detach(), hidden.grad))
    (loss, gradient), (right, right_gradient) = found
    learned_here = int((labels[:, 1:] != -100).sum())
    with torch.no_grad():
        of_a_thousand = learned_loss(states, head, labels, count=1000)
    return {
        "loss": float(right),
        "off": float((loss - right).abs()),
        "gradient": float(right_gradient.abs().max()),
        "gradient_off": float((gradient - right_gradient).abs().max()),
        "counted_off": abs(float(of_a_thousand) - float(right) * learned_here / 1000),
    }  # fmt: skip


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("batch", "length", "learned"), [(3, 190, 0.7), (2, 40, 0.3), (1, 129, 1)])
def test_our_loss_is_that_of_whole_scores(
    backend: Any, batch: int, length: int, learned: float, bias: bool
) -> None:
    found = backend(loss_and_gradient, batch, length, learned, bias)
    assert found["loss"] > 1 and found["gradient"] > 1e-4
    assert found["off"] < 1e-6 * found["loss"]
    assert found["counted_off"] < 1e-6 * found["loss"]
    assert found["gradient_off"] < 2e-6 * found["gradient"]


def test_a_batch_with_nothing_to_learn_has_no_loss_and_no_gradient(backend: Any) -> None:
    found = backend(loss_and_gradient, 2, 20, 0.0, False)
    assert found["loss"] == found["off"] == found["gradient"] == found["gradient_off"] == 0


def adapter_errors() -> dict[str, list[float]]:
    """Errors of one adapted layer against 64 bits: PEFT's forward, then the shortened one."""
    import torch
    from peft import LoraConfig, get_peft_model

    from training_backend.training.fast_paths import shorten_adapters

    torch.manual_seed(0)
    base = torch.nn.Sequential(torch.nn.Linear(64, 96, bias=False))
    weight = base[0].weight.detach().clone()
    model = get_peft_model(base.bfloat16(), LoraConfig(r=8, lora_alpha=20, target_modules=["0"]))
    layer = model.base_model.model[0]
    a, b = (x.default.weight for x in (layer.lora_A, layer.lora_B))
    torch.nn.init.normal_(b, std=0.1)
    x = torch.randn(5, 30, 64).bfloat16()
    along = torch.randn(5, 30, 96).bfloat16()
    exact = [t.detach().double().requires_grad_() for t in (x, a, b)]
    weight = weight.bfloat16().double()
    answer = exact[0] @ weight.T + 2.5 * (exact[0] @ exact[1].T) @ exact[2].T
    right = [answer, *torch.autograd.grad((answer * along).sum(), exact)]
    errors = {"long": [], "short": []}
    for name in errors:
        if name == "short":
            shorten_adapters(model)
        inputs = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            answer = model(inputs)
        assert answer.dtype is torch.bfloat16 and answer.shape == right[0].shape
        found = [answer, *torch.autograd.grad((answer * along).sum(), (inputs, a, b))]
        errors[name] = [
            float((f.double() - r).norm() / r.norm()) for f, r in zip(found, right, strict=True)
        ]
    # Answers are made without autocast, and by the base alone where the adapter is off.
    plain = torch.randn(2, 64)
    shortened = model(plain.bfloat16())
    with model.disable_adapter(), torch.autocast("cpu", torch.bfloat16):
        alone = model(plain.bfloat16())
    assert torch.equal(alone, base[0].base_layer(plain.bfloat16()))
    assert not torch.equal(alone, shortened)
    layer.forward = layer._long_forward
    assert torch.equal(model(plain.bfloat16()), shortened)
    return errors


def test_the_short_way_through_an_adapter_is_no_less_exact(backend: Any) -> None:
    errors = backend(adapter_errors)
    for short, long in zip(errors["short"], errors["long"], strict=True):
        assert 0 < short < 1.05 * long < 0.01


def _told(run: Any) -> dict[str, list[Any]]:
    events = run.events()
    saved = checkpoints.newest_verified(run.checkpoints)
    assert saved is not None
    state = json.loads((saved.folder / "trainer_state.json").read_text())
    return {
        "losses": [e.loss for e in events if e.type == "MetricsLogged"],
        "held out": [e.loss for e in events if e.type == "EvaluationLogged"],
        "tokens": [e["num_tokens"] for e in state["log_history"] if "loss" in e],
        "accuracy": [e for e in state["log_history"] if "mean_token_accuracy" in e],
    }


@pytest.mark.parametrize(
    "sections",
    [
        {"quantization": {"load_in_4bit": True}},
        {"training": {"gradient_accumulation_steps": 2, "activation_checkpointing": False}},
        {"training": {"packing": True}},
        {"dataset": {"loss_on": "everything"}, "lora": {"use_dora": True}},
    ],
    ids=["4-bit", "accumulated", "packed", "everything, DoRA"],
)
def test_fast_paths_give_the_losses_of_the_long_ones(
    do: Any, job_document: Any, lorasmith_home: Path, sections: dict[str, Any]
) -> None:
    told = []
    for fast in (True, False):
        document = job_document(**{"quantization": {"load_in_4bit": False}, **sections})
        document["training"] |= {"fast_paths": fast, "per_device_train_batch_size": 3}
        document["evaluation"] = {"held_out_fraction": 0.2, "eval_steps": 2}
        told.append(_told(do(document).run))
    fast_told, long_told = told
    assert len(long_told["losses"]) == 3 and len(long_told["held out"]) >= 1
    for name in ("losses", "held out"):
        assert fast_told[name] == pytest.approx(long_told[name], rel=3e-4)
        assert fast_told[name] != long_told[name]  # there are two ways
    assert fast_told["tokens"] == long_told["tokens"] and fast_told["tokens"][0] > 50
    assert long_told["accuracy"] and not fast_told["accuracy"]


@pytest.mark.parametrize("fast", [True, False])
def test_rows_without_padding_give_the_losses_of_padded_ones(
    do: Any, job_document: Any, write_rows: Any, lorasmith_home: Path, fast: bool
) -> None:
    data = write_rows(
        [
            {"messages": [
                {"role": "user", "content": f"What is {n} and {n}?"},
                {"role": "assistant", "content": f"It is {2 * n}, as I said." * (1 + n % 4)},
            ]}
            for n in range(24)
        ]
    )  # fmt: skip
    told = []
    for padding_free in (True, False):
        document = job_document(
            dataset={"path": str(data)},
            quantization={"load_in_4bit": False},
            evaluation={"held_out_fraction": 0.25, "eval_steps": 1},
            training={
                "fast_paths": fast, "padding_free": padding_free, "per_device_train_batch_size": 4,
                "max_length": 70,
            },
        )  # fmt: skip
        told.append(_told(do(document).run))
    without, padded = told
    assert len(padded["losses"]) == len(padded["held out"]) == 3
    for name in ("losses", "held out"):
        assert without[name] == pytest.approx(padded[name], rel=5e-4)
    assert without["tokens"] == padded["tokens"]


def batches_without_padding(folder: str) -> list[list[Any]]:
    """As `work`; of each batch the shape, its places, and whether there is a mask of padding."""
    import queue
    from pathlib import Path

    from training_backend import train, worker
    from training_backend.runs import Run

    seen = []

    class Spy(train._Trainer):
        def training_step(self, model, inputs, *rest):
            places = inputs["position_ids"][0]
            seen.append([
                list(inputs["input_ids"].shape), int((places == 0).sum()),
                "attention_mask" in inputs,
            ])  # fmt: skip
            return super().training_step(model, inputs, *rest)

    kept, train._Trainer = train._Trainer, Spy
    try:
        assert worker._work(Run(Path(folder)), queue.Queue()) == 0
    finally:
        train._Trainer = kept
    return seen


def test_rows_without_padding_lie_end_to_end_in_one(
    backend: Any, job_document: Any, lorasmith_home: Path
) -> None:
    training = {"padding_free": True, "per_device_train_batch_size": 4}
    run = runs.create(parse_job(job_document(training=training)))
    for shape, rows, masked in backend(batches_without_padding, run.folder):
        assert shape[0] == 1 and shape[1] > 100 and rows == 4 and not masked


def plain_losses(configs: list[dict[str, Any]]) -> list[bool]:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from training_backend.training.fast_paths import has_plain_loss

    sizes = {
        "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "head_dim": 16,
        "num_key_value_heads": 2, "num_hidden_layers": 1, "vocab_size": 64, "pad_token_id": 0,
    }  # fmt: skip
    found = []
    for settings in configs:
        trained = settings.pop("trained", False)
        with torch.device("meta"):
            config = AutoConfig.for_model(**{**sizes, **settings})
            model = AutoModelForCausalLM.from_config(config).requires_grad_(trained)
        found.append(has_plain_loss(model))
    return found


def test_models_with_another_loss_keep_to_the_long_way(backend: Any) -> None:
    kinds: list[tuple[dict[str, Any], bool]] = [
        ({"model_type": "llama"}, True),
        ({"model_type": "qwen3"}, True),
        ({"model_type": "gemma3_text"}, True),
        ({"model_type": "llama", "trained": True}, False),  # every weight, the head's too
        ({"model_type": "gemma2"}, False),  # caps its scores
        ({"model_type": "granite", "logits_scaling": 8.0}, False),
        ({"model_type": "cohere", "logit_scale": 0.06}, False),
        ({"model_type": "mixtral", "num_local_experts": 2}, False),  # a loss for its router
    ]
    assert backend(plain_losses, [settings for settings, _ in kinds]) == [is_ for _, is_ in kinds]


def test_without_fast_paths_another_trace_is_asked_for(job_document: Any) -> None:
    from training_backend.memory import memory_traces

    prints = {
        memory_traces.fingerprint({"model_type": "llama"}, parse_job(job_document(training=t)))  # type: ignore[arg-type]
        for t in ({}, {"fast_paths": False}, {"torch_compile": True})
    }
    assert len(prints) == 2
