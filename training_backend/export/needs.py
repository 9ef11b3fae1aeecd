"""What an export will take, told before it begins: the result's size, disk, memory and time.

Sizes come from the heads of the base model's files, tensor by tensor, and are exact to a few
per cent. Times are a guess: bytes and numbers, divided by how many of them a plain computer does
in a second (see docs/export.md for where the figures come from). Light: reads heads, no weights.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from training_backend.catalog import describe_model
from training_backend.errors import UserError
from training_backend.hub import hub_cache
from training_backend.job import GGUF_BITS, ExportJob, GgufQuantization
from training_backend.lifecycle.checkpoints import PREFIX
from training_backend.models import adapters
from training_backend.models.adapters import WEIGHTS, Adapter
from training_backend.models.demo_wheel import WHEEL_BYTES
from training_backend.models.model_folder import read_head, weight_files

Shape = tuple[int, ...]
Stage = Literal["download", "look", "merge", "copy", "convert", "pack", "save", "prove"]

SPARE_BYTES = 50_000_000  # free beside what is written
PAPERS_BYTES = 5_000_000  # tokenizer and settings, in a folder or in a GGUF file

# Memory. A merge works block by block, whatever the model; the rest is what a worker takes before
# any weight, with and without PyTorch.
MERGE_BYTES = 250_000_000
LIGHT_BYTES = 150_000_000
TORCH_BYTES = 450_000_000
PROOF_BYTES = 1_500_000_000  # PyTorch itself, and the distributions of one answer
# Time, by the slowest of what was measured; see docs/export.md.
DISK_RATE = 150e6  # bytes a second, read, computed and written
CONVERT_RATE = 120e6  # bytes of 16-bit weights a second
QUANTISE_RATE = 60e6
PACK_RATE = 60e6
DOWNLOAD_RATE = 5e6
LOOK_SECONDS = 12.0  # PyTorch and transformers are read once, by a process of its own
PROOF_SECONDS = 25.0
PROOF_TOKENS = 1_500  # in all, of both models; each costs a pass over the weights
MEMORY_RATE = 6e9  # bytes of weights a second

# A row that is no multiple of 256 wide keeps more bits, as does the table of tokens.
# https://github.com/ggml-org/llama.cpp/blob/master/src/llama-quant.cpp (`tensor_type_fallback`)
_K_BLOCK = 256
_NARROW_BITS = {"q4_k_m": 5.5, "q5_k_m": 6.0, "q6_k": 8.5}
_TABLES = ("embed_tokens", "lm_head", "wte")
_BNB_BITS = 4 + 8 / 64 + 32 / (64 * 256)  # NF4, double quantisation; arXiv:2305.14314, section 3


@dataclass(frozen=True)
class Material:
    """What an export is made of. Bytes.

    `tensors` are the base model's, by name: type and shape; `file_bytes` is its longest file.
    `adapter_bytes` is None for a model of which every weight was trained. `download_bytes` is what
    must come from the Hub first.
    """

    tensors: dict[str, tuple[str, Shape]]
    file_bytes: int
    adapter_bytes: int | None = None
    download_bytes: int = 0

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for _, shape in self.tensors.values())


@dataclass(frozen=True)
class Needs:
    """Bytes and seconds. `size_bytes` and `largest_file_bytes` are of the result, `disk_bytes` is
    the most that lies on the target drive at any time, the result included. `ram_bytes` is the most
    that writing takes; `proof_ram_bytes` what the check takes after it, 0 without one.
    """

    size_bytes: int
    largest_file_bytes: int
    disk_bytes: int
    ram_bytes: int
    proof_ram_bytes: int
    download_bytes: int = 0
    stages: dict[Stage, float] = field(default_factory=dict)

    @property
    def writing_seconds(self) -> float:
        return sum(seconds for stage, seconds in self.stages.items() if stage != "prove")

    @property
    def proof_seconds(self) -> float:
        return self.stages.get("prove", 0.0)


def material(run: str, checkpoint: str | None = None) -> Material:
    """Look at what would be exported; `run` and `checkpoint` as in an `ExportJob`.

    Raises `UserError` about field `run` or `checkpoint`; `OSError`.
    """
    source = adapters.find_source(ExportJob(run=run, checkpoint=checkpoint, out="nowhere"))
    if isinstance(source, Path):
        tensors, longest = _heads(source)
        if source.name.startswith(PREFIX):  # a checkpoint's 32 bits become 16
            tensors = {name: ("BF16", shape) for name, (_, shape) in tensors.items()}
            longest //= 2
        return Material(tensors, longest)
    size = (source.folder / WEIGHTS).stat().st_size
    folder = Path(source.base).expanduser()
    if source.run is not None and (folder / "config.json").is_file():
        return Material(*_heads(folder), size)
    known = describe_model(_base_id(source, folder))
    if known.location is not None:
        return Material(*_heads(known.location), size)
    parameters = known.parameters or (known.size_bytes or 0) // 2
    whole = known.size_bytes or 2 * parameters
    download = WHEEL_BYTES if known.source == "demo" else whole
    return Material(_imagined(parameters), whole, size, download)


def needs(of: Material, job: ExportJob) -> Needs:
    """What this job takes; of `job` only the form counts, not its run or place."""
    merged = sum(_bytes(kind, shape, job.dtype) for kind, shape in of.tensors.values())
    adapter = of.adapter_bytes or 0
    # A model of which every weight was trained is only copied.
    merging: Stage = "copy" if of.adapter_bytes is None else "merge"
    stages: dict[Stage, float] = {}
    if of.download_bytes:
        stages["download"] = of.download_bytes / DOWNLOAD_RATE
    match job.format:
        case "adapter" | "gguf_adapter":
            size = largest = adapter
            disk, ram = size, LIGHT_BYTES
            if job.format == "gguf_adapter":
                stages["look"] = LOOK_SECONDS
                ram = TORCH_BYTES
        case "safetensors":
            size = merged
            largest = _largest_file(of, merged, job.max_shard_gb)
            disk, ram = size, MERGE_BYTES
            stages[merging] = 2 + merged / DISK_RATE
        case "bnb_4bit":
            size = largest = sum(_packed(name, *tensor) for name, tensor in of.tensors.items())
            disk, ram = merged + size, max(MERGE_BYTES, TORCH_BYTES + 3 * _largest(of))
            stages["look"] = LOOK_SECONDS
            stages[merging] = 2 + merged / DISK_RATE
            stages["pack"] = LOOK_SECONDS + merged / PACK_RATE
        case "gguf":
            size = largest = gguf_bytes(of.tensors, job.quantization)
            direct = not _is_k_quant(job.quantization)
            disk = merged + (size if direct else merged)
            ram = max(MERGE_BYTES, TORCH_BYTES + 3 * _largest(of))
            seconds = merged / CONVERT_RATE + (0 if direct else merged / QUANTISE_RATE)
            stages["look"] = LOOK_SECONDS
            stages[merging] = 2 + merged / DISK_RATE
            stages["convert"] = LOOK_SECONDS + seconds
    stages["save"] = 1 + size / (4 * DISK_RATE)
    proof = 0
    if job.verify:
        weights = sum(_bytes(kind, shape, "auto") for kind, shape in of.tensors.values())
        proof = proof_bytes(of.parameters)
        stages["prove"] = PROOF_SECONDS + PROOF_TOKENS * weights / MEMORY_RATE
    if job.format != "gguf_adapter":
        size += PAPERS_BYTES
    return Needs(size, largest, disk + SPARE_BYTES, ram, proof, of.download_bytes, stages)


def proof_bytes(parameters: int, bits: int = 16) -> int:
    """The memory that the check takes: one model with so many bits a number, and what runs it."""
    return parameters * bits // 8 * 11 // 10 + PROOF_BYTES


def gguf_bytes(tensors: dict[str, tuple[str, Shape]], kind: GgufQuantization) -> int:
    """The length of a GGUF file with these tensors, its vocabulary aside."""
    bits = 0.0
    for name, (_, shape) in tensors.items():
        count = math.prod(shape)
        if len(shape) < 2:
            bits += 32.0 * count
        elif not _is_k_quant(kind):
            bits += GGUF_BITS[kind] * count
        else:
            table = any(part in name for part in _TABLES)
            wanted: GgufQuantization = "q6_k" if table else kind
            wide = shape[-1] % _K_BLOCK == 0
            bits += (GGUF_BITS[wanted] if wide else _NARROW_BITS[wanted]) * count
    return round(bits / 8)


def _is_k_quant(kind: GgufQuantization) -> bool:
    """Those are made from a 16-bit file that is written first; see gguf_export.py."""
    return "_k" in kind


def _base_id(adapter: Adapter, folder: Path) -> str:
    """What a base model is called whose folder is gone, or is not to be looked at."""
    known = hub_cache.origin(folder)
    if known is not None:
        return known[0]
    if adapter.run is not None and folder.is_absolute():
        return adapter.run.training_job().model.id
    return adapter.base


def _heads(folder: Path) -> tuple[dict[str, tuple[str, Shape]], int]:
    try:
        heads = [read_head(path) for path in weight_files(folder)]
        tensors = {name: tensor for head in heads for name, tensor in head.tensors.items()}
        return tensors, max((head.file_bytes for head in heads), default=0)
    except ValueError:
        raise UserError(
            "base_unreadable",
            "The weights in {folder} cannot be read.",
            "Download the model again.",
            field="run",
            folder=folder,
        ) from None


def _imagined(parameters: int) -> dict[str, tuple[str, Shape]]:
    """Tensors of a usual shape in place of a model's own, which is not here yet."""
    return {
        f"layers.{n}.weight": ("BF16", (max(1, parameters // 131_072), 4096)) for n in range(32)
    }


def _bytes(kind: str, shape: Shape, dtype: str) -> int:
    if dtype != "auto" and kind.startswith(("F", "BF")):
        return 2 * math.prod(shape)
    bits = re.search(r"\d+", kind)
    return math.prod(shape) * (int(bits[0]) if bits else 8) // 8


def _packed(name: str, kind: str, shape: Shape) -> int:
    """bitsandbytes packs the linear layers and leaves tables and vectors as they are."""
    if len(shape) != 2 or any(part in name for part in _TABLES):
        return _bytes(kind, shape, "bfloat16")
    return round(math.prod(shape) * _BNB_BITS / 8)


def _largest(of: Material) -> int:
    return max((_bytes(kind, shape, "auto") for kind, shape in of.tensors.values()), default=0)


def _largest_file(of: Material, merged: int, max_shard_gb: float | None) -> int:
    if max_shard_gb is None:
        return min(merged, of.file_bytes)
    return min(merged, max(round(max_shard_gb * 10**9), _largest(of)))
