"""RAM and disk that a job needs beside the memory of its device."""

from __future__ import annotations

from dataclasses import dataclass

from training_backend.computer.devices import Device
from training_backend.job import TrainingJob
from training_backend.memory.memory_optimizer import optimizer_name, optimizer_part
from training_backend.memory.memory_parts import MIB
from training_backend.memory.memory_traces import Trace

LIBRARIES_BYTES = 600 * MIB  # of a process that computes nothing
DRIVER_RAM_BYTES = 1500 * MIB  # what the driver's libraries take of the RAM


@dataclass(frozen=True)
class Needs:
    """What else a job needs: RAM and disk in bytes."""

    training_ram: int
    training_disk: int
    merge_ram: int
    merge_disk: int
    gguf_ram: int
    gguf_disk: int


def needs(trace: Trace, job: TrainingJob, device: Device, total: int, trained: int) -> Needs:
    """RAM and disk of training, of merging (tensor by tensor) and of a GGUF file made after it."""
    adapted = [x for x in trace.linears if x.adapted]
    optimizer = optimizer_part(optimizer_name(job, device), adapted, job).bytes
    largest = max(
        [x.rows * x.columns for x in trace.linears] + [trace.vocabulary * trace.hidden_size]
    )
    libraries = LIBRARIES_BYTES + DRIVER_RAM_BYTES
    loading = 2 * largest  # weights are read one after the other, straight to where they go
    paged = optimizer if "paged" in optimizer_name(job, device) else 0
    checkpoint = 4 * trained + optimizer + 25 * MIB  # with tokenizer and state of the trainer
    whole = 2 * trace.parameters
    return Needs(
        training_ram=total if device.kind == "cpu" else libraries + loading + paged,
        training_disk=checkpoint * (job.training.save_total_limit + 1) + 4 * trained,
        merge_ram=LIBRARIES_BYTES + 12 * largest,  # one tensor: in 16-bit, and twice in 32-bit
        merge_disk=whole,
        gguf_ram=LIBRARIES_BYTES + 12 * largest,
        gguf_disk=2 * whole + trace.parameters * 34 // 32,  # merged, as F16, and as Q8_0
    )
