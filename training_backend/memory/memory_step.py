"""The largest moments of a training step: a traced model's coefficients with a job's settings."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from training_backend.computer.devices import Device
from training_backend.job import TrainingJob
from training_backend.memory import memory_traces
from training_backend.memory.memory_traces import (
    Attention,
    HeadName,
    Poly,
    Trace,
    TraceNeeded,
    bytes_of,
    growth_values,
)


def step_bytes(trace: Trace, job: TrainingJob, device: Device, gradients: int) -> tuple[int, int]:
    """Activations and gradients at the top of the backward pass with the loss, and at its bottom.

    A step that accumulates has all gradients from the second batch on; in others they grow as
    the backward pass comes down.

    Args:
        gradients: their bytes once all are there.

    Raises:
        TraceNeeded: when such a step was not traced.
    """
    training = job.training
    accumulates = training.gradient_accumulation_steps > 1
    values = growth_values(rows(job), length(job), job.lora.r, accumulates)
    attention = _attention(trace, job, device)
    names = [
        memory_traces.step_name(
            device.kind != "cpu", job.quantization.load_in_4bit, recomputed, attention
        )
        for recomputed in (False, True)
    ]
    if any(name not in trace.steps for name in names):
        raise TraceNeeded
    steps = [trace.steps[name] for name in names]  # layers that keep everything, and recompute
    every = training.activation_checkpointing_every_n_layers
    count = len(trace.layers)
    recomputes = [
        training.activation_checkpointing and index % every == 0 for index in range(count)
    ]

    def most(moments: Iterable[Poly]) -> float:
        return max((bytes_of(moment, values) for moment in moments), default=0.0)

    # What all layers before one keep: while going forward, and once the pass has turned.
    first = steps[recomputes[0]]
    held, kept = [bytes_of(first.first_held, values)], [bytes_of(first.first_kept, values)]
    for kind, recomputed in zip(trace.layers, recomputes, strict=True):
        held.append(held[-1] + bytes_of(steps[recomputed].held[kind], values))
        kept.append(kept[-1] + bytes_of(steps[recomputed].kept[kind], values))

    def present(index: int) -> float:
        """Gradients of the layers above this one, or all."""
        if accumulates:
            return gradients
        return gradients * (count - 1 - index) / count

    head = trace.heads[_head_name(device)]
    last = count - 1
    end = steps[recomputes[last]]
    top = max(
        held[last] + most(end.forward) + present(last),
        held[last] + most(end.end) + most(head.forward) + present(last),
        kept[last] + most(end.turn) + most(head.backward) + present(last),
        *(
            kept[index] + most(steps[recomputes[index]].backward) + present(index)
            for index in range(max(0, last - every), last + 1)
        ),
    )
    return int(top), int(most(first.bottom) + present(0))


def rows(job: TrainingJob) -> int:
    """Rows at once; packing puts all of them into a single one, and so does going unpadded."""
    return 1 if _in_one_row(job) else job.training.per_device_train_batch_size


def length(job: TrainingJob) -> int:
    """Tokens in each of these rows, at the most."""
    joined = job.training.per_device_train_batch_size if _in_one_row(job) else 1
    return joined * job.training.max_length


def _in_one_row(job: TrainingJob) -> bool:
    training = job.training
    return training.packing or (training.padding_free and training.per_device_train_batch_size > 1)


def _attention(trace: Trace, job: TrainingJob, device: Device) -> Attention:
    """Rows of different lengths, or packed ones, need a mask; so does a window within a row."""
    training, window = job.training, trace.sliding_window
    spared = device.kind == "cpu" and trace.skips_padding
    if _in_one_row(job) or (training.per_device_train_batch_size > 1 and not spared):
        return "mask"
    return "window" if window and training.max_length >= window else "plain"


def _head_name(device: Device) -> HeadName:
    if device.kind == "cpu":
        return "cpu"
    # An imagined card is one as people mostly have it: with Triton, as PyTorch for Linux brings.
    triton = device.imagined or importlib.util.find_spec("triton") is not None
    return "card" if triton and device.kind in ("cuda", "xpu") else "card_without_triton"
