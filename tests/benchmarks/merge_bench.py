"""An export's merge beside `merge_and_unload` and beside copying the files.

    python tests/benchmarks/merge_bench.py [--sizes 1.5 3] [--repeats 3] [--folder /tmp]

Makes a checkpoint of each size (random weights in bfloat16, the shapes of Qwen2.5) and an adapter
for it (rank 16, all linear layers, float32), and does three things with it, one after the other,
each followed by `sync`, with the checkpoint in the system's cache:

    copy     `cp` of the weight files
    merge    `python -m training_backend export … --format safetensors --no-verify`
    peft     PEFT's merge_and_unload and save_pretrained, in bfloat16, in a process of its own

Prints the median time of each, all in all and without the start of Python and its imports, and the
largest memory: the sum of the peaks of resident memory of all processes that belong to it. Exits
with 1 when the merge takes more than a tenth of PEFT's memory or more than its time, all in all;
more memory for the larger model; or, once begun, more than twice the time of the copy. Needs five
times the largest checkpoint on the disk; everything is removed. For Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))

from training_backend.export import shards, tensor_file  # noqa: E402

RANK = 16
SHARD_BYTES = 5_000_000_000  # as on the Hub
GROWTH = 1.1  # of memory from the smaller to the larger model, at the most
POLL_SECONDS = 0.1  # what is looked at are peaks since the process began

SHAPES: dict[str, dict[str, int]] = {
    "0.5": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
            "num_attention_heads": 14, "num_key_value_heads": 2},
    "1.5": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
            "num_attention_heads": 12, "num_key_value_heads": 2},
    "3": {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
          "num_attention_heads": 16, "num_key_value_heads": 2},
}  # fmt: skip

PEFT = """
import sys, time
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base, adapter, out = sys.argv[1:]
began = time.perf_counter()
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
model.save_pretrained(out)
print(time.perf_counter() - began)
"""


@dataclass(frozen=True)
class Measured:
    seconds: float
    own: float  # seconds of these after the imports
    peak: int  # bytes


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=["1.5", "3"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where the files are made")
    options = parser.parse_args()
    good, peaks = True, []
    for size in options.sizes:
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="lorasmith-merge-") as folder:
            peak, kept = compare(size, Path(folder), options.repeats)
        peaks.append(peak)
        good = good and kept
    if len(peaks) > 1:
        print(f"memory of the merge, last size to first: {peaks[-1] / peaks[0]:.2f}")
        good = good and peaks[-1] <= GROWTH * peaks[0]
    return 0 if good else 1


def compare(size: str, folder: Path, repeats: int) -> tuple[int, bool]:
    """Makes the files, measures, and prints. Returns the merge's memory and whether all is met."""
    base, adapter, out = folder / "base", folder / "adapter", folder / "out"
    make_base(SHAPES[size], base)
    make_adapter(base, adapter)
    weights = sorted(base.glob("*.safetensors"))
    total = sum(path.stat().st_size for path in weights)
    python = [sys.executable]
    commands = {
        "copy": ["cp", *map(str, weights), str(out)],
        "merge": [*python, "-m", "training_backend", "export", str(adapter), "--format",
                  "safetensors", "--out", str(out), "--no-verify", "--json"],
        "peft": [*python, "-c", PEFT, str(base), str(adapter), str(out)],
    }  # fmt: skip
    found: dict[str, list[Measured]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            if name == "copy":
                out.mkdir()
            read_once(weights)
            found[name].append(measure(command, folder))
            check_whole(weights, out)
            shutil.rmtree(out)
    print(f"\n{size}B, {len(weights)} files, {total / 1e9:.2f} GB")
    for name, each in found.items():
        own = statistics.median(one.own for one in each)
        print(
            f"  {name:6}{statistics.median(one.seconds for one in each):7.2f} s, without imports"
            f"{own:7.2f} s ({min(one.own for one in each):.2f}-{max(one.own for one in each):.2f}),"
            f"{total / 1e9 / own:6.2f} GB/s, {max(one.peak for one in each) / 1e6:6.0f} MB"
        )
    seconds = {name: statistics.median(o.seconds for o in each) for name, each in found.items()}
    own_time = {name: statistics.median(o.own for o in each) for name, each in found.items()}
    peak = {name: max(o.peak for o in each) for name, each in found.items()}
    ratios = (
        peak["merge"] / peak["peft"],
        seconds["merge"] / seconds["peft"],
        own_time["copy"] / own_time["merge"],
    )
    print(
        f"  merge: {ratios[0]:.3f} of peft's memory (at most 0.1), {ratios[1]:.2f} of its time "
        f"(at most 1.0), {ratios[2]:.2f} of the copy's throughput (at least 0.5)",
        flush=True,
    )
    return peak["merge"], ratios[0] <= 0.1 and ratios[1] <= 1.0 and ratios[2] >= 0.5


def measure(command: list[str], folder: Path) -> Measured:
    """Time until all is on the disk, and the most memory of the command and its children."""
    subprocess.run(["sync"], check=True)
    environment = {**os.environ, "LORASMITH_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    peaks: dict[int, int] = {}
    began = time.perf_counter()
    with (folder / "words").open("w+") as words:
        process = psutil.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=words, stderr=subprocess.STDOUT
        )
        while process.poll() is None:
            peaks |= peaks_of(process)
            time.sleep(POLL_SECONDS)
        done = time.perf_counter()
        words.seek(0)
        said = words.read()
    if process.returncode:
        raise SystemExit(f"{command[:4]} failed:\n{said}")
    subprocess.run(["sync"], check=True)
    synced = time.perf_counter()
    own = own_seconds(said)
    seconds = synced - began
    return Measured(seconds, seconds if own is None else own + synced - done, sum(peaks.values()))


def own_seconds(said: str) -> float | None:
    """From the events of an export, or from what the process of PEFT prints; None: cp."""
    lines = said.splitlines()
    if not lines:
        return None
    if not lines[-1].startswith("{"):
        return float(lines[-1])
    events = [json.loads(line) for line in lines if line.startswith("{")]
    return float(events[-1]["time"] - events[0]["time"])


def peaks_of(process: psutil.Process) -> dict[int, int]:
    """The highest resident memory so far of a process and its children, by process id."""
    found = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        for pid in [process.pid, *(child.pid for child in process.children(recursive=True))]:
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        found[pid] = int(line.split()[1]) * 1024
    return found


def read_once(paths: list[Path]) -> None:
    """Has the system keep the files in memory."""
    for path in paths:
        with path.open("rb") as file:
            while file.read(2**24):
                pass


def check_whole(weights: list[Path], out: Path) -> None:
    """What was written must hold as many bytes of weights."""
    sizes = [
        sum(tensor.size for path in paths for tensor in heads(path))
        for paths in (weights, sorted(out.glob("*.safetensors")))
    ]
    if sizes[0] != sizes[1]:
        raise SystemExit(f"{out} holds {sizes[1]:,} bytes of weights instead of {sizes[0]:,}")


def heads(path: Path) -> list[tensor_file.TensorInfo]:
    with tensor_file.TensorFile(path) as file:
        return file.tensors


# ----------------------------------------------------------------------------------- the files


def make_base(shape: dict[str, int], folder: Path) -> None:
    folder.mkdir()
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    kv = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    tensors: list[tuple[str, tuple[int, ...]]] = [
        ("model.embed_tokens.weight", (151936, hidden)), ("model.norm.weight", (hidden,)),
    ]  # fmt: skip
    for number in range(shape["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        tensors += [
            (f"{layer}.input_layernorm.weight", (hidden,)),
            (f"{layer}.post_attention_layernorm.weight", (hidden,)),
            (f"{layer}.self_attn.q_proj.weight", (hidden, hidden)),
            (f"{layer}.self_attn.q_proj.bias", (hidden,)),
            (f"{layer}.self_attn.k_proj.weight", (kv, hidden)),
            (f"{layer}.self_attn.k_proj.bias", (kv,)),
            (f"{layer}.self_attn.v_proj.weight", (kv, hidden)),
            (f"{layer}.self_attn.v_proj.bias", (kv,)),
            (f"{layer}.self_attn.o_proj.weight", (hidden, hidden)),
            (f"{layer}.mlp.gate_proj.weight", (inner, hidden)),
            (f"{layer}.mlp.up_proj.weight", (inner, hidden)),
            (f"{layer}.mlp.down_proj.weight", (hidden, inner)),
        ]
    write(folder, tensors, "BF16", "", SHARD_BYTES)
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 151936,
        "tie_word_embeddings": True, "dtype": "bfloat16", **shape,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def make_adapter(base: Path, folder: Path) -> None:
    folder.mkdir()
    tensors: list[tuple[str, tuple[int, ...]]] = []
    for info in (info for path in sorted(base.glob("*.safetensors")) for info in heads(path)):
        if info.name.endswith("_proj.weight"):
            stem = f"base_model.model.{info.name.removesuffix('.weight')}"
            tensors += [
                (f"{stem}.lora_A.weight", (RANK, info.shape[1])),
                (f"{stem}.lora_B.weight", (info.shape[0], RANK)),
            ]
    write(folder, tensors, "F32", "adapter_", None)
    config: dict[str, Any] = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base),
        "r": RANK, "lora_alpha": 2 * RANK, "inference_mode": True,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj",
                           "gate_proj", "up_proj", "down_proj"],
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")


def write(
    folder: Path,
    tensors: list[tuple[str, tuple[int, ...]]],
    dtype: str,
    prefix: str,
    max_bytes: int | None,
) -> None:
    """Random weights; a row is drawn by its place, so that the same come out every time."""
    random = np.random.default_rng(0)
    noise = random.standard_normal(2**20, np.float32) * 0.02
    stored = tensor_file.from_float32(noise, dtype)
    width = 2 if dtype == "BF16" else 4

    def opened(shape: tuple[int, ...]) -> Callable[[slice], bytes]:
        across = shape[-1] if len(shape) > 1 else 1
        return lambda rows: np.resize(
            np.roll(stored, rows.start), (rows.stop - rows.start) * across
        ).tobytes()

    made = [
        shards.OutTensor(
            name, dtype, shape, math.prod(shape) * width, f"{prefix}model.safetensors",
            partial(opened, shape),
        )
        for name, shape in tensors
    ]  # fmt: skip
    files = shards.plan(made, max_bytes)
    for file in files:
        shards.write(file, folder / file.name, lambda _: None)
    shards.write_index(files, folder)


if __name__ == "__main__":
    sys.exit(main())
