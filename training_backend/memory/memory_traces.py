"""What a training step of a model allocates, as documents that `vram` evaluates in plain Python.

A document comes from `trace_model` and covers one model with one choice of adapted layers, for
any batch size, length, rank, quantisation and checkpointing. Those of the catalogue's models
ship in `resources/memory_traces/`; those made here lie in `memory/traces/` below home. Light.
"""

from __future__ import annotations

import functools
import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from training_backend import paths
from training_backend.files import write_text_atomic
from training_backend.job import TrainingJob

FORMAT = 3  # of the documents; raise it when `trace_model` finds out something new

# How the bytes of a storage grow: each is what one coefficient is multiplied by. "chunk" is the
# tokens that TRL's loss looks at together, "piece" those of ours; "gradients*rank" counts where a
# step does not accumulate.
Growth = Literal[
    "1",
    "length",
    "tokens",
    "rank",
    "tokens*rank",
    "batch*length^2",
    "length^2",
    "chunk",
    "piece",
    "gradients*rank",
]
GROWTHS: tuple[Growth, ...] = get_args(Growth)
Poly = dict[Growth, float]


LOSS_CHUNK = 4096  # tokens that TRL's loss looks at together, at the most
LOSS_PIECE = 128  # learned tokens that our own loss looks at together (`fast_loss`)


def growth_values(batch: int, length: int, rank: int, accumulates: bool) -> dict[Growth, float]:
    """What the coefficients are multiplied by, for rows at once, their tokens, and the rank."""
    return {
        "1": 1,
        "length": length,
        "tokens": batch * length,
        "rank": rank,
        "tokens*rank": batch * length * rank,
        "batch*length^2": batch * length**2,
        "length^2": length**2,
        "chunk": min(batch * length, LOSS_CHUNK),
        "piece": min(batch * length, LOSS_PIECE),
        "gradients*rank": 0 if accumulates else rank,
    }


def bytes_of(poly: Poly, values: dict[Growth, float]) -> float:
    return sum(amount * values[growth] for growth, amount in poly.items())


class TraceNeeded(Exception):
    """This model has not been traced for such settings; ask the helper for "trace"."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Linear(_Document):
    """`count` linear layers of one shape in the whole model."""

    rows: int
    columns: int
    count: int
    adapted: bool
    quantised: bool


class Step(_Document):
    """One step with or without recomputation: bytes beside weights, gradients and optimizer.

    `held` is what one layer of each kind keeps during the forward pass, `kept` what it still
    keeps when the backward pass begins; the first layer keeps so much more than others of its
    kind (less, where its input needs no gradient). The rest is what is alive beside the layers
    before the current one, at the moments that can be the peak: while the last layer goes
    `forward`, at its `end`, at the `turn` to the backward pass, while a layer goes `backward`,
    and while the first one does (`bottom`). Only moments that are the peak for some settings
    are kept.
    """

    held: dict[str, Poly]
    kept: dict[str, Poly]
    first_held: Poly
    first_kept: Poly
    forward: tuple[Poly, ...]
    end: tuple[Poly, ...]
    turn: tuple[Poly, ...]
    backward: tuple[Poly, ...]
    bottom: tuple[Poly, ...]


class Head(_Document):
    """The loss, from the last hidden states to their gradient; added to `end` and `turn`."""

    forward: tuple[Poly, ...]
    backward: tuple[Poly, ...]


class Trace(_Document):
    """All of one model. `steps` are named by `step_name`, `heads` by `HeadName`.

    `skips_padding` says that the processor needs no mask for rows of different lengths.
    """

    format: int
    fingerprint: str
    versions: dict[str, str]
    model_type: str
    parameters: int
    layers: tuple[str, ...]
    linears: tuple[Linear, ...]
    other_weights: int
    hidden_size: int
    vocabulary: int
    sliding_window: int | None
    skips_padding: bool
    steps: dict[str, Step]
    heads: dict[str, Head]


HeadName = Literal["cpu", "card", "card_without_triton"]
Attention = Literal["plain", "window", "mask"]


def step_name(card: bool, in_4bit: bool, recomputed: bool, attention: Attention) -> str:
    return "-".join(
        (
            "card" if card else "cpu",
            "4bit" if in_4bit else "16bit",
            "recomputed" if recomputed else "kept",
            attention,
        )
    )


# What of a config says nothing about memory, or changes from one download to the next.
_IRRELEVANT = {
    "_name_or_path", "transformers_version", "torch_dtype", "dtype", "bos_token_id",
    "eos_token_id", "pad_token_id", "use_cache", "attn_implementation", "_attn_implementation",
    "architectures", "initializer_range", "rope_theta", "rope_scaling", "rope_parameters",
    "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "auto_map", "quantization_config",
    "max_position_embeddings", "unsloth_fixed", "cache_implementation", "is_llama_config",
    "rope_interleaved", "pretraining_tp",
}  # fmt: skip


def takes_fast_paths(job: TrainingJob) -> bool:
    """Whether a training on the processor takes the ways of `fast_paths` where it can."""
    return job.training.fast_paths and not job.training.torch_compile


def fingerprint(config: dict[str, Any], job: TrainingJob) -> str:
    """What a trace is found by: the config's shapes, the adapted layers, what changes a step."""
    targets = job.lora.target_modules
    document = {
        "format": FORMAT,
        "config": {key: value for key, value in config.items() if key not in _IRRELEVANT},
        "targets": targets
        if isinstance(targets, str)
        else sorted(name.strip() for name in targets),
        "dropout": job.lora.lora_dropout > 0,
        "wide": job.quantization.load_in_4bit
        and job.quantization.bnb_4bit_compute_dtype == "float32",
    }
    if job.lora.use_dora:
        document["dora"] = True
    if not takes_fast_paths(job):
        document["plain"] = True
    text = json.dumps(document, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def find(print_: str) -> Trace | None:
    """The stored trace with this fingerprint: first of this computer, then of the program."""
    return read(_folder() / f"{print_}.json") or _shipped(print_)


def read(path: Path) -> Trace | None:
    """The trace in a file; None when there is none, or of another format."""
    return _read(path, _stamp(path))


def store(trace: Trace, folder: Path | None = None) -> Path:
    """Keep a trace, by default on this computer; returns its file."""
    path = (folder or _folder()) / f"{trace.fingerprint}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(path, trace.model_dump_json() + "\n")
    return path


@functools.cache
def shipped() -> tuple[Trace, ...]:
    """All traces that come with the program."""
    names = (item.name for item in _resources().iterdir() if item.name.endswith(".json"))
    found = (_shipped(name.removesuffix(".json")) for name in sorted(names))
    return tuple(trace for trace in found if trace is not None)


def _folder() -> Path:
    return paths.home() / "memory" / "traces"


def _resources() -> Any:
    return resources.files("resources") / "memory_traces"


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@functools.lru_cache(maxsize=64)
def _read(path: Path, stamp: int) -> Trace | None:
    """`stamp` is when the file was written, 0 for none; with it the cache knows the file."""
    return _parse(path.read_text(encoding="utf-8")) if stamp else None


@functools.lru_cache(maxsize=256)
def _shipped(print_: str) -> Trace | None:
    try:
        return _parse((_resources() / f"{print_}.json").read_text(encoding="utf-8"))
    except OSError:
        return None


def _parse(text: str) -> Trace | None:
    try:
        trace = Trace.model_validate_json(text)
    except ValidationError:
        return None
    return trace if trace.format == FORMAT else None
