"""The parts of the memory that training takes: bytes, and how they come about in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from training_backend.computer.devices import Device
from training_backend.job import TrainingJob
from training_backend.memory import memory_step
from training_backend.memory.memory_traces import LOSS_CHUNK, LOSS_PIECE, Linear, Trace

PartName = Literal["weights", "adapter", "gradients", "optimizer", "activations", "overhead"]

MIB = 2**20

# Not traced but observed; a probe on the card itself replaces them.
CONTEXT_BYTES = 450 * MIB  # the driver's context and the kernels of the libraries
WORKSPACE_BYTES = 32 * MIB  # cuBLAS, by PyTorch's default for its newest cards
FRAGMENTATION = 0.03  # what PyTorch's allocator holds beyond what is in use
PROCESS_BYTES = 1200 * MIB  # on the processor: libraries, the model's file, what malloc keeps


@dataclass(frozen=True)
class Part:
    """One part of the memory: bytes, the formula with its numbers filled in, and its source."""

    name: PartName
    bytes: int
    formula: str
    source: str


def weight_bytes(trace: Trace, job: TrainingJob) -> int:
    """Bytes of the frozen base model, in 16-bit or in 4-bit."""
    if not job.quantization.load_in_4bit:
        return 2 * trace.parameters
    double = job.quantization.bnb_4bit_use_double_quant
    packed = (x.count * bytes_in_4bit(x.rows * x.columns, double) for x in trace.linears
              if x.quantised)  # fmt: skip
    return 2 * trace.other_weights + sum(packed)


def bytes_in_4bit(elements: int, double: bool) -> int:
    """One layer's weight as bitsandbytes holds it: half a byte each, and scales by blocks of 64.

    The scales are fp32, or with double quantisation one byte each with an fp32 scale of their
    own by blocks of 256 (QLoRA, arXiv 2305.14314, section 3), beside small tables.
    """
    blocks = math.ceil(elements / 64)
    tables = 16 * 4
    if not double:
        return math.ceil(elements / 2) + 4 * blocks + tables
    return math.ceil(elements / 2) + blocks + 4 * math.ceil(blocks / 256) + tables + 4


def weights_part(trace: Trace, job: TrainingJob) -> Part:
    """The frozen base model."""
    weights = weight_bytes(trace, job)
    if not job.quantization.load_in_4bit:
        return Part(
            "weights",
            weights,
            f"{trace.parameters:,} parameters × 2 bytes",
            "16-bit weights, tied ones counted once",
        )
    double = job.quantization.bnb_4bit_use_double_quant
    inside = trace.parameters - trace.other_weights
    bits = 4 + (8 / 64 + 32 / 64 / 256 if double else 32 / 64)
    return Part(
        "weights",
        weights,
        f"{inside:,} parameters × {bits:.3f} bits, and {trace.other_weights:,} × 2 bytes in "
        "16-bit: embeddings, norms and the output layer",
        "QLoRA (arXiv 2305.14314), section 3: blocks of 64"
        + (" with double quantisation" if double else ""),
    )


def trained_sizes(adapted: list[Linear], job: TrainingJob) -> list[int]:
    """Numbers in each trained tensor: A and B of every layer, with DoRA also its rows' lengths."""
    rank = job.lora.r
    sizes: list[int] = []
    for x in adapted:
        of_one = (rank * x.columns, rank * x.rows, *((x.rows,) if job.lora.use_dora else ()))
        sizes += of_one * x.count
    return sizes


def adapter_part(adapted: list[Linear], job: TrainingJob) -> Part:
    """The trained numbers, in 32-bit."""
    trained = sum(trained_sizes(adapted, job))
    return Part(
        "adapter",
        4 * trained,
        f"{trained:,} trained numbers × 4 bytes: rank {job.lora.r} × (rows + columns) of "
        f"{sum(x.count for x in adapted):,} layers"
        + (", and a length for each row" if job.lora.use_dora else ""),
        "LoRA (arXiv 2106.09685), section 4.1; held in 32-bit",
    )


def gradients_part(held: int, trained: int) -> Part:
    """The `held` bytes of gradients that are there at the peak."""
    return Part(
        "gradients",
        held,
        f"{trained:,} trained numbers × 4 bytes"
        if held
        else "0: without accumulation none are held at the peak",
        "PyTorch keeps gradients in the type of the trained numbers",
    )


def activations_part(trace: Trace, job: TrainingJob, device: Device, size: int) -> Part:
    """What the step itself takes at its peak, which `memory_step` found to be `size` bytes."""
    training = job.training
    every = training.activation_checkpointing_every_n_layers
    if not training.activation_checkpointing:
        kept = "every layer keeps what its backward pass needs"
    elif every == 1:
        kept = "every layer keeps its input and is computed again"
    else:
        kept = f"one layer in {every} keeps its input only and is computed again"
    rows, length = memory_step.rows(job), memory_step.length(job)
    ours = device.kind == "cpu" and trace.skips_padding
    chunk = min(rows * length, LOSS_PIECE if ours else LOSS_CHUNK)
    return Part(
        "activations",
        size,
        f"{rows:,} × {length:,} tokens through {len(trace.layers)} layers of width "
        f"{trace.hidden_size:,}; {kept}; the loss takes {chunk:,} tokens of a vocabulary of "
        f"{trace.vocabulary:,} at a time",
        "Traced: every tensor of one step of this model, followed from its making to its end",
    )


def overhead_part(device: Device, activations: int) -> Part:
    """What is not a tensor: of a card's driver, or of the process."""
    if device.kind == "cpu":
        return Part(
            "overhead",
            PROCESS_BYTES,
            f"{PROCESS_BYTES // MIB:,} MiB for the program, its libraries and what the system's "
            "allocator keeps",
            "Measured on Linux with the demo model; the memory test measures yours",
        )
    fragments = int(FRAGMENTATION * activations)
    return Part(
        "overhead",
        CONTEXT_BYTES + WORKSPACE_BYTES + fragments,
        f"{CONTEXT_BYTES // MIB:,} MiB for the driver and its kernels, {WORKSPACE_BYTES // MIB} "
        f"MiB for matrix products, {FRAGMENTATION:.0%} of the activations lost between tensors",
        "An assumption from common cards; the memory test measures yours",
    )
