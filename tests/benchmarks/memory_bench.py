"""How right the memory estimate is: real training steps, measured, beside what was foretold.

    python tests/benchmarks/memory_bench.py                 on the processor, small models
    python tests/benchmarks/memory_bench.py --cuda          on an NVIDIA card, up to 14B shapes

Every configuration makes a model with random weights, trains it through the program's own
trainer for two steps of two batches each, and compares the peak with the estimate made from
its `config.json` alone. On the processor the peak is that of PyTorch's own allocator, which
counts what kernels take for themselves too; beside it stands the peak of the storages that
operations return. The estimate is compared without its overhead, since no driver's context is
in either. On a card the peak is `max_memory_allocated`, and NVML's figure for the process is
compared with the whole estimate; what the card has no room for is left out with a word.

Exits with 1 when the errors are larger than promised in `docs/memory.md`.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

MIB = 2**20
STEPS = 2

Shape = dict[str, Any]

# Small relatives of five families; wide and deep enough that every part of the memory shows.
_SMALL: dict[str, Shape] = {
    "llama": {
        "model_type": "llama", "hidden_size": 384, "intermediate_size": 1024,
        "num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 2,
        "vocab_size": 16000, "tie_word_embeddings": False,
    },
    "qwen2": {
        "model_type": "qwen2", "hidden_size": 256, "intermediate_size": 768,
        "num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": 32000, "tie_word_embeddings": True,
    },
    "qwen3": {
        "model_type": "qwen3", "hidden_size": 320, "intermediate_size": 960,
        "num_hidden_layers": 6, "num_attention_heads": 5, "num_key_value_heads": 5,
        "head_dim": 64, "vocab_size": 4096, "tie_word_embeddings": True,
    },
    "gemma2": {
        "model_type": "gemma2", "hidden_size": 256, "intermediate_size": 1024,
        "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 64, "vocab_size": 32000, "sliding_window": 256, "hidden_activation":
        "gelu_pytorch_tanh",
    },
    "gemma3": {
        "model_type": "gemma3_text", "hidden_size": 256, "intermediate_size": 1024,
        "num_hidden_layers": 7, "num_attention_heads": 4, "num_key_value_heads": 1,
        "head_dim": 64, "vocab_size": 8192, "sliding_window": 128,
    },
    "mistral": {
        "model_type": "mistral", "hidden_size": 512, "intermediate_size": 1536,
        "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2,
        "vocab_size": 2048, "sliding_window": 256,
    },
    "phi3": {
        "model_type": "phi3", "hidden_size": 384, "intermediate_size": 1024,
        "num_hidden_layers": 5, "num_attention_heads": 6, "num_key_value_heads": 6,
        "vocab_size": 32064,
    },
}  # fmt: skip

# Shapes of published models; the weights are random.
_LARGE: dict[str, Shape] = {
    "0.1B": {
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
        "vocab_size": 49152, "tie_word_embeddings": True,
    },
    "0.5B": {
        "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
        "vocab_size": 151936, "tie_word_embeddings": True,
    },
    "1B": {
        "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192,
        "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": 128256, "tie_word_embeddings": True,
    },
    "3.8B": {
        "model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
        "vocab_size": 32064,
    },
    "4B": {
        "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240,
        "num_hidden_layers": 34, "num_attention_heads": 8, "num_key_value_heads": 4,
        "head_dim": 256, "vocab_size": 262208, "sliding_window": 1024,
    },
    "7B": {
        "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": 32000,
    },
    "8B": {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
    "14B": {
        "model_type": "qwen3", "hidden_size": 5120, "intermediate_size": 17408,
        "num_hidden_layers": 40, "num_attention_heads": 40, "num_key_value_heads": 8,
        "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": False,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A shape and the settings that differ from the ordinary."""

    shape: str
    in_4bit: bool
    batch: int
    length: int
    recomputed: int = 1  # every so many layers; 0: none
    rank: int = 16
    packing: bool = False
    padding_free: bool = False
    fast_paths: bool = True
    optim: str = "adamw_torch"
    targets: str | tuple[str, ...] = "all-linear"
    dropout: float = 0.0
    accumulation: int = 2
    double: bool = True
    dora: bool = False

    def job(self, folder: Path) -> dict[str, Any]:
        return {
            "model": {"id": str(folder)},
            "dataset": {"path": "none.jsonl"},
            "quantization": {
                "load_in_4bit": self.in_4bit, "bnb_4bit_use_double_quant": self.double,
            },
            "lora": {
                "r": self.rank, "lora_alpha": 2 * self.rank, "lora_dropout": self.dropout,
                "target_modules": self.targets, "use_dora": self.dora,
            },
            "training": {
                "max_steps": STEPS,
                "per_device_train_batch_size": self.batch,
                "gradient_accumulation_steps": self.accumulation,
                "max_length": self.length,
                "packing": self.packing,
                "padding_free": self.padding_free,
                "fast_paths": self.fast_paths,
                "activation_checkpointing": self.recomputed > 0,
                "activation_checkpointing_every_n_layers": max(1, self.recomputed),
                "optim": self.optim,
            },
        }  # fmt: skip

    def __str__(self) -> str:
        words = [
            f"{self.shape:8}", "4-bit " if self.in_4bit else "16-bit",
            f"{self.batch}×{self.length}", f"r {self.rank}",
            ("kept", "recomputed", f"every {self.recomputed}")[min(2, self.recomputed)],
        ]  # fmt: skip
        words += ["no padding"] * self.padding_free + ["long paths"] * (not self.fast_paths)
        words += ["packed"] * self.packing + [self.optim] * (self.optim != "adamw_torch")
        words += ["dropout"] * (self.dropout > 0) + ["single"] * (not self.double)
        words += ["accumulate 1"] * (self.accumulation == 1)
        words += [] if self.targets == "all-linear" else ["+".join(self.targets)]
        return " ".join(words)


CPU_CASES = (
    Case("llama", True, 2, 512),
    Case("llama", False, 2, 512, recomputed=0),
    Case("llama", True, 4, 256, recomputed=2, rank=64),
    Case("llama", False, 1, 1024),
    Case("llama", False, 2, 256, rank=256, accumulation=1),
    Case("qwen2", True, 4, 256),
    Case("qwen2", False, 2, 512, recomputed=0, targets=("q_proj", "v_proj")),
    Case("qwen2", False, 2, 512, packing=True),
    Case("qwen2", True, 8, 128, recomputed=0, dropout=0.05),
    Case("qwen2", True, 4, 256, fast_paths=False),
    Case("qwen3", True, 2, 512, optim="adamw_8bit"),
    Case("qwen3", False, 4, 256, recomputed=2),
    Case("qwen3", False, 1, 512, recomputed=0, rank=32),
    Case("qwen3", False, 4, 256, padding_free=True),
    Case("gemma2", True, 2, 512),
    Case("gemma2", False, 1, 512, recomputed=0),
    Case("gemma2", False, 2, 256, packing=True),
    Case("gemma3", True, 4, 256),
    Case("gemma3", False, 1, 1024, recomputed=0),
    Case("gemma3", False, 2, 512, recomputed=2, optim="sgd"),
    Case("mistral", True, 2, 512, double=False),
    Case("mistral", False, 2, 1024, recomputed=0),
    Case("mistral", False, 4, 128, rank=512, accumulation=1),
    Case("mistral", True, 1, 1024, recomputed=2),
    Case("phi3", True, 2, 512, recomputed=0),
    Case("phi3", False, 4, 256, optim="adafactor"),
    Case("phi3", True, 2, 512, packing=True, dropout=0.1),
    Case("phi3", False, 1, 1024, recomputed=2, rank=8, targets=("qkv_proj", "o_proj")),
)

CUDA_CASES = (
    Case("0.1B", True, 8, 512, optim="auto"),
    Case("0.1B", False, 8, 1024, recomputed=0, optim="auto"),
    Case("0.1B", False, 2, 8192, optim="auto"),
    Case("0.5B", True, 4, 1024, optim="auto"),
    Case("0.5B", False, 2, 2048, recomputed=0, optim="auto"),
    Case("0.5B", False, 4, 2048, packing=True, optim="auto"),
    Case("1B", True, 2, 2048, optim="auto"),
    Case("1B", False, 4, 1024, recomputed=2, optim="auto"),
    Case("1B", False, 1, 8192, optim="auto"),
    Case("1B", False, 2, 512, rank=256, optim="adamw_torch"),
    Case("3.8B", True, 2, 2048, optim="auto"),
    Case("3.8B", False, 1, 4096, optim="auto"),
    Case("3.8B", True, 2, 1024, recomputed=0, optim="auto"),
    Case("4B", True, 2, 1024, optim="auto"),
    Case("4B", False, 1, 4096, optim="auto"),
    Case("7B", True, 1, 1024, optim="auto"),
    Case("7B", False, 1, 1024, optim="auto"),
    Case("7B", True, 1, 8192, optim="auto"),
    Case("8B", True, 2, 2048, rank=8, optim="auto"),
    Case("8B", False, 2, 2048, rank=8, optim="auto"),
    Case("8B", True, 1, 512, recomputed=0, rank=64, optim="auto"),
    Case("8B", True, 2, 2048, packing=True, optim="auto"),
    Case("14B", True, 1, 2048, optim="auto"),
    Case("14B", True, 1, 8192, optim="auto"),
    Case("14B", False, 1, 1024, optim="auto"),
)


@dataclass
class Measured:
    """Bytes: the allocator's peak, that of the storages seen, and what the driver's figure is."""

    allocated: int
    storages: int | None = None
    process: int | None = None


def make_model(shape: Shape, folder: Path) -> None:
    """A model with random weights, written tensor by tensor, and a tokenizer of single words."""
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    folder.mkdir()
    rest = {key: value for key, value in shape.items() if key != "model_type"}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = AutoConfig.for_model(shape["model_type"], **rest, **ids)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    torch.manual_seed(0)
    noise = (torch.randn(2**20) * 0.02).to(torch.bfloat16)
    places = {}
    # A table that is input and output at once is one parameter, and stands in the file once.
    for number, (name, parameter) in enumerate(model.named_parameters()):
        count = parameter.numel()
        filled = noise.repeat(-(-count // len(noise)))[:count].reshape(parameter.shape)
        places[name] = f"model-{number:05}.safetensors"
        save_file({name: filled}, folder / places[name], metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    words = {"<pad>": 0, "<s>": 1, "</s>": 2, "a": 3}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="a")),
        bos_token="<s>", eos_token="</s>", pad_token="<pad>",
    )  # fmt: skip
    tokenizer.save_pretrained(folder)


def rows_of(case: Case, vocabulary: int) -> Any:
    """Batches with one full row and shorter ones, as data has them; packed, two rows a sequence."""
    from datasets import Dataset

    draw = random.Random(0)
    lengths = []
    for _ in range((STEPS + 1) * case.accumulation):
        if case.packing:
            lengths += [case.length // 2] * (2 * case.batch)
        else:
            lengths += [case.length - 3 * n for n in range(case.batch)]
    rows = [[draw.randrange(3, vocabulary) for _ in range(length)] for length in lengths]
    return Dataset.from_dict({"input_ids": rows, "labels": rows})


def prepared(case: Case, folder: Path, staging: Path) -> tuple[Any, Any]:
    """The job and its trainer, as training makes it."""
    from training_backend import train
    from training_backend.job import parse_job
    from training_backend.models import base_model
    from training_backend.models.tokenizer import load_tokenizer

    job: Any = parse_job(case.job(folder))
    silent: Any = SimpleNamespace(phase=lambda *args, **kwargs: None)
    model = base_model.load_model(job, folder, silent)
    rows = rows_of(case, model.config.vocab_size)
    tokenizer = load_tokenizer(folder)
    trainer = train.make_trainer(job, model, tokenizer, rows, None, None, staging)
    trainer.args.save_strategy = "no"
    # Rows of a batch stay together: the longest of each is full.
    trainer._get_train_sampler = lambda *args: None
    return job, trainer


def weights_of(model: Any) -> int:
    """Bytes of the model's storages before training, 4-bit scales included."""
    import torch

    tensors = [*model.parameters(), *model.buffers()]
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        for part in (state, getattr(state, "state2", None)):
            if part is not None:
                tensors += [part.absmax, part.code]
        if getattr(state, "offset", None) is not None:
            tensors.append(state.offset)
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for t in tensors
        if isinstance(t, torch.Tensor)
    }
    return sum(storages.values())


def measure_on_cpu(case: Case, folder: Path, staging: Path) -> Measured:
    from training_backend.memory.tracing.storages import StorageTracker

    peaks = []
    for _ in range(2):  # each way of measuring gets a run of its own
        gc.collect()
        _, trainer = prepared(case, folder, staging)
        static = weights_of(trainer.model)
        if not peaks:
            tracker = StorageTracker()
            tracker.ignore([*trainer.model.parameters(), *trainer.model.buffers()])
            with tracker:
                trainer.train()
            peaks.append(static + tracker.peak_bytes)
        else:
            peaks.append(static + allocator_peak(trainer.train))
        del trainer
    return Measured(allocated=peaks[1], storages=peaks[0])


def allocator_peak(work: Callable[[], Any]) -> int:
    """Most bytes that PyTorch's allocator held at a time beyond what it held before."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def measure_on_card(case: Case, folder: Path, staging: Path) -> Measured:
    """In a process that does nothing else, so that NVML's figure is this training's alone."""
    import pynvml
    import torch

    from training_backend.hardware import process_gpu_bytes

    _, trainer = prepared(case, folder, staging)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    trainer.train()
    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device())
    # The allocator gives nothing back by itself, so this is the process at its largest.
    process = process_gpu_bytes(handle, os.getpid())
    if process is None:  # a container hides whose it is; no one else is on the card
        process = int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    return Measured(allocated=torch.cuda.max_memory_allocated(), process=process)


def run_one(case: Case, on_card: bool) -> dict[str, Any]:
    """Estimate and measure one configuration; {"skipped": why} where the card is too small."""
    import torch

    from training_backend import vram
    from training_backend.computer.devices import Device, this_device
    from training_backend.job import parse_job
    from training_backend.memory import memory_parts, trace_model

    shape = (_LARGE if on_card else _SMALL)[case.shape]
    device = this_device() if on_card else Device("cpu", "cpu", 2**40)
    with tempfile.TemporaryDirectory() as temporary, quiet():
        folder = Path(temporary) / "model"
        job: Any = parse_job(case.job(folder))
        began = time.perf_counter()
        found = vram.evaluate(trace_model.trace(shape, job, cards=(on_card,)), job, device)
        seconds = time.perf_counter() - began
        tensors = found.total_bytes - found.part("overhead").bytes
        answer: dict[str, Any] = {
            # On a card the allocator holds the workspace of cuBLAS too.
            "estimate": tensors + memory_parts.WORKSPACE_BYTES * on_card,
            "whole": found.total_bytes,
            "trace_seconds": seconds,
        }
        if on_card and found.fit == "does_not_fit":
            needed = found.total_bytes / 2**30
            return {**answer, "skipped": f"needs {needed:.1f} GiB, more than this card has free"}
        make_model(shape, folder)
        try:
            measure = measure_on_card if on_card else measure_on_cpu
            measured = measure(case, folder, Path(temporary) / "staging")
        except torch.cuda.OutOfMemoryError:
            return {**answer, "skipped": "ran out of memory although the estimate fits"}
    return {**answer, "allocated": measured.allocated, "storages": measured.storages,
            "process": measured.process}  # fmt: skip


@contextmanager
def quiet() -> Iterator[None]:
    """Progress bars and advice of libraries would hide the table."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    import datasets
    from transformers.utils import logging as transformers_logging

    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def in_own_process(index: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--cuda", "--one", str(index)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8")
    if answer.returncode:
        return {"failed": f"the process ended with {answer.returncode}"}
    return dict(json.loads(answer.stdout.splitlines()[-1]))


def percentile(errors: list[float], share: float) -> float:
    ordered = sorted(map(abs, errors))
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(name: str, errors: list[float]) -> None:
    print(
        f"{name}: {len(errors)} configurations, error p50 {percentile(errors, 0.5):.1%}, "
        f"p90 {percentile(errors, 0.9):.1%}, largest {max(map(abs, errors)):.1%}, "
        f"furthest under {min(0.0, *errors):.1%}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuda", action="store_true", help="on an NVIDIA card")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", metavar="SHAPE", help="configurations of one shape")
    options = parser.parse_args()
    cases = CUDA_CASES if options.cuda else CPU_CASES
    if options.one is not None:
        print(json.dumps(run_one(cases[options.one], on_card=True)))
        return 0
    if options.cuda:
        import torch

        if not torch.cuda.is_available():
            print("There is no NVIDIA card that PyTorch can use here.")
            return 1
        print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, {time.strftime('%F')}")

    print(f"{'':52} estimate  measured   error" + ("   process     whole   error" * options.cuda))
    errors, whole, failed = [], [], 0
    for index, case in enumerate(cases):
        if options.only not in case.shape:
            continue
        found = in_own_process(index) if options.cuda else run_one(case, on_card=False)
        if "allocated" not in found:
            failed += "failed" in found
            print(f"{case!s:52} {found.get('skipped') or found.get('failed')}", flush=True)
            continue
        errors.append(found["estimate"] / found["allocated"] - 1)
        line = f"{case!s:52} {found['estimate'] / MIB:8.1f}  {found['allocated'] / MIB:8.1f}"
        line += f"  {errors[-1]:+6.1%}"
        if found["process"]:
            whole.append(found["whole"] / found["process"] - 1)
            line += (
                f"  {found['process'] / MIB:8.1f}  {found['whole'] / MIB:8.1f}  {whole[-1]:+6.1%}"
            )
        elif found["storages"]:
            line += f"  (storages {found['storages'] / MIB:.1f})"
        print(line, flush=True)
    print("MiB\n")
    if not errors:
        return 1
    summary("What tensors take", errors)
    wrong = percentile(errors, 0.9) > (0.10 if options.cuda else 0.05)
    if whole:
        summary("The whole process", whole)
        wrong |= percentile(whole, 0.9) > 0.15 or min(whole) < -0.05
    return int(wrong or failed > 0)


if __name__ == "__main__":
    sys.exit(main())
