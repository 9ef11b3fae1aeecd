"""Optimizers, schedules and number types: what is offered works, and costs what is said."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from training_backend.job_training import Optimizer, Scheduler

OPTIMIZERS = [name for name in get_args(Optimizer) if name != "auto"]
SCHEDULERS = get_args(Scheduler)


def steps_of_all(names: list[str], schedules: list[str]) -> dict[str, Any]:
    """Real optimizers on a quadratic bowl: bytes of state and the loss; rates of all schedules."""
    import tempfile

    import torch
    from transformers import Trainer, get_scheduler

    from training_backend import train
    from training_backend.job import parse_job

    found: dict[str, Any] = {}
    for name in names:
        torch.manual_seed(0)
        model = torch.nn.Module()
        model.a = torch.nn.Parameter(torch.randn(16, 576))  # as LoRA's A of a layer of SmolLM2
        model.b = torch.nn.Parameter(torch.randn(192, 16))
        job = parse_job({"model": {"id": "demo"}, "dataset": {"path": "x"},
                         "training": {"optim": name, "learning_rate": 0.05}})  # fmt: skip
        arguments = train._arguments(job, tempfile.gettempdir(), False)
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
        optimizer = kind(model.parameters(), **settings)
        losses = []
        for _ in range(8):
            loss = sum((p**2).mean() for p in model.parameters())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss))
        states = [
            value
            for state in optimizer.state.values()
            for key, value in state.items()
            # 1 KB tables that all layers share, and counters
            if isinstance(value, torch.Tensor) and value.ndim and not key.startswith("qmap")
        ]
        found[name] = [sum(value.nbytes for value in states), losses[0], losses[-1]]
    for name in schedules:
        job = parse_job({"model": {"id": "demo"}, "dataset": {"path": "x"},
                         "training": {"lr_scheduler_type": name}})  # fmt: skip
        arguments = train._arguments(job, tempfile.gettempdir(), False)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = get_scheduler(
            name, optimizer, 10, 100, scheduler_specific_kwargs=arguments.lr_scheduler_kwargs
        )
        rates = []
        for _ in range(100):
            rates.append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
        found[name] = [rates[0], max(rates), rates[-1]]
    return found


def test_every_optimizer_learns_and_holds_the_bytes_of_the_estimate(backend: Any) -> None:
    from training_backend.job import TrainingJob, parse_job
    from training_backend.memory.memory_optimizer import optimizer_part
    from training_backend.memory.memory_traces import Linear

    shape = Linear(rows=192, columns=576, count=1, adapted=True, quantised=True)
    job = parse_job({"model": {"id": "demo"}, "dataset": {"path": "x"}})
    assert isinstance(job, TrainingJob) and job.lora.r == 16
    found = backend(steps_of_all, OPTIMIZERS, [])
    for name in OPTIMIZERS:
        held, first, last = found[name]
        assert last < first, name
        assert held == optimizer_part(name, [shape], job).bytes, name


def test_every_schedule_warms_up_and_ends_where_its_name_says(backend: Any) -> None:
    found = backend(steps_of_all, [], list(SCHEDULERS))
    ends = {
        "linear": 0.0, "cosine": 0.0, "polynomial": 0.0, "cosine_with_min_lr": 0.1,
        "constant": 1.0, "constant_with_warmup": 1.0, "inverse_sqrt": 0.33,
    }  # fmt: skip
    assert ends.keys() == set(SCHEDULERS)
    for name, end in ends.items():
        first, most, last = found[name]
        assert most == pytest.approx(1.0)
        assert first == pytest.approx(1.0 if name == "constant" else 0.0)
        assert last == pytest.approx(end, abs=0.02), name


def chosen_types(bf16: bool) -> dict[str, Any]:
    """What is chosen on a card with or without bfloat16."""
    import tempfile
    from unittest import mock

    import torch

    from training_backend import train
    from training_backend.job import parse_job
    from training_backend.models import base_model

    job = parse_job({"model": {"id": "demo"}, "dataset": {"path": "x"}})
    told: dict[str, Any] = {}

    def remember(**settings: Any) -> None:
        told.update({key: settings[key] for key in ("fp16", "bf16", "use_cpu", "optim")})

    with (
        mock.patch.object(torch.cuda, "is_available", return_value=True),
        mock.patch.object(torch.cuda, "is_bf16_supported", return_value=bf16),
        mock.patch.object(train, "SFTConfig", remember),
    ):
        told["weights"] = str(base_model.precision())
        with mock.patch("inspect.signature") as signature:
            signature.return_value.parameters = {"activation_checkpointing": None}
            train._arguments(job, tempfile.gettempdir(), False)
    return told


def test_a_card_without_bfloat16_takes_float16_and_scales_the_loss(backend: Any) -> None:
    common = {"use_cpu": False, "optim": "paged_adamw_8bit"}
    with_it = {"fp16": False, "bf16": True, "weights": "torch.bfloat16", **common}
    without = {"fp16": True, "bf16": False, "weights": "torch.float16", **common}
    assert backend(chosen_types, True) == with_it
    assert backend(chosen_types, False) == without
