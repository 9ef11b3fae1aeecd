"""How much memory a job needs, part by part, before it starts.

Plain Python: it evaluates what was traced once per model (`memory_traces`), adds what follows
from the settings alone, and what was measured on this computer (`memory_records`). A step has
several moments that can be its peak: the turn from forward to backward with the loss, the
backward pass of one of the last layers, that of the first layer, and the optimizer's own step.
The answer is the largest of them. Every number has its formula and source in `docs/memory.md`.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from training_backend import memory_records, memory_traces
from training_backend.devices import Device
from training_backend.errors import UserError
from training_backend.job import TrainingJob
from training_backend.memory_traces import (
    LOSS_CHUNK,
    Attention,
    HeadName,
    Linear,
    Poly,
    Trace,
    bytes_of,
    growth_values,
)
from training_backend.model_config import config_of

PartName = Literal["weights", "adapter", "gradients", "optimizer", "activations", "overhead"]
Fit = Literal["comfortable", "tight", "does_not_fit"]

# Above this share of what is free it is tight: other programs grow, allocations fragment.
COMFORTABLE = 0.85
MIB = 2**20

# Not traced but observed; a probe on the card itself replaces them.
CONTEXT_BYTES = 450 * MIB  # the driver's context and the kernels of the libraries
WORKSPACE_BYTES = 32 * MIB  # cuBLAS, by PyTorch's default for its newest cards
FRAGMENTATION = 0.03  # what PyTorch's allocator holds beyond what is in use
PROCESS_BYTES = 1200 * MIB  # on the processor: libraries, the model's file, what malloc keeps
LIBRARIES_BYTES = 600 * MIB  # of a process that computes nothing
DRIVER_RAM_BYTES = 1500 * MIB  # what the driver's libraries take of the RAM


@dataclass(frozen=True)
class Part:
    """One part of the memory: bytes, the formula with its numbers filled in, and its source."""

    name: PartName
    bytes: int
    formula: str
    source: str


@dataclass(frozen=True)
class Needs:
    """What else a job needs: RAM and disk in bytes."""

    training_ram: int
    training_disk: int
    merge_ram: int
    merge_disk: int
    gguf_ram: int
    gguf_disk: int


@dataclass(frozen=True)
class Estimate:
    """The memory of a job on a device. `measured` is true when a probe replaced the estimate."""

    parts: tuple[Part, ...]
    total_bytes: int
    device: Device
    fit: Fit
    needs: Needs
    measured: bool = False

    def part(self, name: PartName) -> Part:
        return next(part for part in self.parts if part.name == name)


class TraceNeeded(Exception):
    """This model has not been traced for such settings; ask the helper for "trace"."""


def fit_of(total_bytes: int, device: Device) -> Fit:
    """Whether so many bytes fit into what is free on the device."""
    if total_bytes > device.available_bytes:
        return "does_not_fit"
    share = total_bytes / max(1, device.available_bytes)
    return "tight" if share > COMFORTABLE else "comfortable"


def optimizer_name(job: TrainingJob, device: Device) -> str:
    """The optimizer that the job means: "auto" is paged 8-bit AdamW on a card, AdamW elsewhere."""
    if job.training.optim != "auto":
        return job.training.optim
    return "paged_adamw_8bit" if device.kind in ("cuda", "xpu") else "adamw_torch"


def estimate_job(job: TrainingJob, device: Device, *, corrected: bool = True) -> Estimate:
    """The memory that a job needs at its peak, on full batches at `max_length`.

    Needs neither weights nor data. Takes a few milliseconds.

    Args:
        corrected: whether to heed what was measured on this computer.

    Raises:
        TraceNeeded: when the model, or such settings of it, were never traced.
        UserError: when the model is not known at all, or the method's memory is not.
    """
    _refuse_unknown(job)
    config = config_of(job)
    trace = memory_traces.find(memory_traces.fingerprint(config, job)) if config else None
    if trace is None:
        raise TraceNeeded
    found = evaluate(trace, job, device)
    if not corrected:
        return found
    measured = memory_records.measured(job, device)
    total = found.total_bytes + memory_records.correction(device) if measured is None else measured
    return _with_total(found, total, measured is not None)


def _refuse_unknown(job: TrainingJob) -> None:
    """Raises `UserError` for methods whose memory no formula here tells."""
    lora = job.lora
    unknown = {
        "training.objective": ("dpo", job.training.objective == "dpo"),
        "training.method": ("training every weight", job.training.method == "full"),
        "lora.modules_to_save": ("parts trained in full", lora.modules_to_save != "none"),
        "lora.layers_to_transform": ("LoRA on some blocks", lora.layers_to_transform != "all"),
    }
    for field, (what, is_so) in unknown.items():
        if is_so:
            raise UserError(
                "estimate_unknown",
                "How much memory {what} takes is not known beforehand.",
                "Start with a batch size of 1, and raise it while memory is left."
                if what == "dpo"
                else "Measure it by one real step: the button Measure, or the command probe.",
                field=field,
                what=what,
            )


def estimate_parameters(parameters: int, job: TrainingJob, device: Device) -> int:
    """Total bytes for a model of which only its number of parameters is known.

    Interpolated between the traces that come with the program, on a logarithmic scale.
    """
    known = sorted(memory_traces.shipped(), key=lambda trace: trace.parameters)
    below = [trace for trace in known if trace.parameters <= parameters][-1:] or known[:1]
    above = [trace for trace in known if trace.parameters > parameters][:1] or known[-1:]
    small, large = below[0], above[0]
    low, high = (evaluate(trace, job, device).total_bytes for trace in (small, large))
    if small is large:  # smaller or larger than all: by its weights
        per_parameter = _weight_bytes(small, job) / small.parameters
        return max(0, int(low + (parameters - small.parameters) * per_parameter))
    share = math.log(parameters / small.parameters) / math.log(large.parameters / small.parameters)
    return int(low * (high / low) ** share)


def evaluate(trace: Trace, job: TrainingJob, device: Device) -> Estimate:
    """What a traced model needs with these settings on this device."""
    card = device.kind != "cpu"
    weights = _weight_bytes(trace, job)
    adapted = [linear for linear in trace.linears if linear.adapted]
    sizes = _trained_sizes(adapted, job)
    trained = sum(sizes)
    optimizer = _optimizer_bytes(optimizer_name(job, device), sizes, adapted, job)
    gradients = 4 * trained
    accumulates = job.training.gradient_accumulation_steps > 1

    # Beside weights, adapter and optimizer: the largest of several moments.
    top, bottom = _step_bytes(trace, job, device, gradients)
    update = gradients + _update_bytes(optimizer_name(job, device), adapted, job.lora.r, card)
    peak = max(top, bottom, update)
    held = gradients if accumulates or peak > top else 0
    activations = peak - held

    inner = weights + 4 * trained + optimizer.bytes + peak
    overhead = _overhead(device, inner, activations)
    parts = (
        _weights_part(trace, job, weights),
        Part(
            "adapter",
            4 * trained,
            f"{trained:,} trained numbers × 4 bytes: rank {job.lora.r} × (rows + columns) of "
            f"{sum(x.count for x in adapted):,} layers"
            + (", and a length for each row" if job.lora.use_dora else ""),
            "LoRA (arXiv 2106.09685), section 4.1; held in 32-bit",
        ),
        Part(
            "gradients",
            held,
            f"{trained:,} trained numbers × 4 bytes"
            if held
            else "0: without accumulation none are held at the peak",
            "PyTorch keeps gradients in the type of the trained numbers",
        ),
        optimizer,
        _activations_part(trace, job, device, activations),
        overhead,
    )
    total = sum(part.bytes for part in parts)
    return Estimate(
        parts, total, device, fit_of(total, device), _needs(trace, job, device, total, trained)
    )


# --- the step --------------------------------------------------------------------------------


def _step_bytes(trace: Trace, job: TrainingJob, device: Device, gradients: int) -> tuple[int, int]:
    """Activations and gradients at the top of the backward pass with the loss, and at its bottom.

    A step that accumulates has all gradients from the second batch on; in others they grow as
    the backward pass comes down.
    """
    training = job.training
    accumulates = training.gradient_accumulation_steps > 1
    values = growth_values(_batch(job), _length(job), job.lora.r, accumulates)
    attention = _attention(trace, job)
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


def _batch(job: TrainingJob) -> int:
    """Rows at once; packing puts all of them into a single one."""
    return 1 if job.training.packing else job.training.per_device_train_batch_size


def _length(job: TrainingJob) -> int:
    rows = job.training.per_device_train_batch_size if job.training.packing else 1
    return rows * job.training.max_length


def _attention(trace: Trace, job: TrainingJob) -> Attention:
    """Rows of different lengths, or packed ones, need a mask; so does a window within a row."""
    if job.training.packing or job.training.per_device_train_batch_size > 1:
        return "mask"
    window = trace.sliding_window
    return "window" if window and job.training.max_length >= window else "plain"


def _head_name(device: Device) -> HeadName:
    if device.kind == "cpu":
        return "cpu"
    # An imagined card is one as people mostly have it: with Triton, as PyTorch for Linux brings.
    triton = device.imagined or importlib.util.find_spec("triton") is not None
    return "card" if triton and device.kind in ("cuda", "xpu") else "card_without_triton"


# --- the parts -------------------------------------------------------------------------------


def _weight_bytes(trace: Trace, job: TrainingJob) -> int:
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


def _weights_part(trace: Trace, job: TrainingJob, weights: int) -> Part:
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


# Running means that bitsandbytes keeps of each trained number, a byte each.
_MEANS_IN_8BIT = {"adamw_8bit": 2, "paged_adamw_8bit": 2, "lion_8bit": 1, "ademamix_8bit": 3}


def _paged(name: str) -> str:
    return "; it can give way to RAM when the card is full" if "paged" in name else ""


def _trained_sizes(adapted: list[Linear], job: TrainingJob) -> list[int]:
    """Numbers in each trained tensor: A and B of every layer, with DoRA also its rows' lengths."""
    rank = job.lora.r
    sizes: list[int] = []
    for x in adapted:
        of_one = (rank * x.columns, rank * x.rows, *((x.rows,) if job.lora.use_dora else ()))
        sizes += of_one * x.count
    return sizes


def _optimizer_bytes(name: str, counts: list[int], adapted: list[Linear], job: TrainingJob) -> Part:
    """The optimizer's states of the trained tensors, of which `counts` are the sizes."""
    trained = sum(counts)
    if name in ("adamw_torch", "adamw_torch_fused", "paged_adamw_32bit"):
        return Part(
            "optimizer",
            8 * trained,
            f"{trained:,} trained numbers × 8 bytes: two running means in 32-bit" + _paged(name),
            "AdamW (arXiv 1711.05101), as PyTorch holds it",
        )
    if name in _MEANS_IN_8BIT:
        means = _MEANS_IN_8BIT[name]
        small = sum(n for n in counts if n < 4096)
        size = 4 * small + sum(n + 4 * math.ceil(n / 256) for n in counts if n >= 4096)
        return Part(
            "optimizer",
            means * size,
            f"{trained - small:,} trained numbers × {means} bytes and {means} scales for every 256 "
            "of them"
            + (f"; {small:,} in small matrices × {4 * means} bytes" if small else "")
            + _paged(name),
            "8-bit optimizers (arXiv 2110.02861), as bitsandbytes holds them",
        )
    if name == "adafactor":
        edges = sum(x.count * (2 * job.lora.r + x.rows + x.columns) for x in adapted)
        if job.lora.use_dora:  # what has one dimension is not factored
            edges += sum(x.count * x.rows for x in adapted)
        return Part(
            "optimizer",
            4 * edges,
            f"{edges:,} row and column means × 4 bytes",
            "Adafactor (arXiv 1804.04235), factored and without momentum",
        )
    return Part("optimizer", 0, "0: plain SGD keeps no state", "PyTorch's SGD without momentum")


def _update_bytes(name: str, adapted: list[Linear], rank: int, card: bool) -> int:
    """What the optimizer takes for a moment while it updates the trained numbers."""
    sizes = [rank * max(x.rows, x.columns) for x in adapted]
    largest = max(sizes, default=0)
    if name == "adamw_torch" and card:  # all at once, for speed
        return 4 * rank * sum(x.count * (x.rows + x.columns) for x in adapted)
    return 8 * largest if name in ("adamw_torch", "adafactor") else 0


def _activations_part(trace: Trace, job: TrainingJob, device: Device, size: int) -> Part:
    training = job.training
    every = training.activation_checkpointing_every_n_layers
    if not training.activation_checkpointing:
        kept = "every layer keeps what its backward pass needs"
    elif every == 1:
        kept = "every layer keeps its input and is computed again"
    else:
        kept = f"one layer in {every} keeps its input only and is computed again"
    chunk = min(_batch(job) * _length(job), LOSS_CHUNK)
    return Part(
        "activations",
        size,
        f"{_batch(job):,} × {_length(job):,} tokens through {len(trace.layers)} layers of width "
        f"{trace.hidden_size:,}; {kept}; the loss takes {chunk:,} tokens of a vocabulary of "
        f"{trace.vocabulary:,} at a time",
        "Traced: every tensor of one step of this model, followed from its making to its end",
    )


def _overhead(device: Device, inner: int, activations: int) -> Part:
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


def _with_total(found: Estimate, total: int, measured: bool) -> Estimate:
    """The estimate with another total, the difference put to what no formula tells."""
    difference = total - found.total_bytes
    if not difference:
        return found if not measured else _replaced(found, found.parts, total, True)
    last = found.part("overhead")
    word = "measured here" if measured else "measured here with other settings"
    changed = Part(
        last.name,
        last.bytes + difference,
        f"{last.formula}; {difference / MIB:+,.0f} MiB {word}",
        last.source,
    )
    parts = (*(part for part in found.parts if part is not last), changed)
    return _replaced(found, parts, total, measured)


def _replaced(found: Estimate, parts: tuple[Part, ...], total: int, measured: bool) -> Estimate:
    fit = fit_of(total, found.device)
    return Estimate(parts, total, found.device, fit, found.needs, measured)


# --- RAM and disk ----------------------------------------------------------------------------


def _needs(trace: Trace, job: TrainingJob, device: Device, total: int, trained: int) -> Needs:
    """RAM and disk of training, of merging (tensor by tensor) and of a GGUF file made after it."""
    adapted = [x for x in trace.linears if x.adapted]
    sizes = _trained_sizes(adapted, job)
    optimizer = _optimizer_bytes(optimizer_name(job, device), sizes, adapted, job).bytes
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
