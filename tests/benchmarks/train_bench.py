"""Tokens a second and peak memory of our worker, beside a plain TRL script on the same work.

    python tests/benchmarks/train_bench.py [--pairs 3] [--steps 10] [--only NAME …] [--data FILE]

Both train the demo model with the same settings on the same rows in the same order: the script
is given the tokens and loss masks that the worker makes of the data, and the losses of the first
step tell that it is so. Each runs in a process of its own with the same number of threads; the
two take turns at going first, so that what else the computer does meets both alike. The time
is that from the end of the first step to the end of the last; "work" compares the seconds of all
processors instead, which other programs change less. Memory is the largest resident size
of the process, on a card the most that PyTorch held.

Exits with 1 where the worker is the slower one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))


@dataclass(frozen=True)
class Case:
    """One work to be done by both; `training` replaces settings of the job."""

    name: str
    in_4bit: bool
    training: dict[str, Any] = field(default_factory=dict)
    loss_on: str = "assistant"

    def job(self, model: Path, data: str, steps: int) -> dict[str, Any]:
        return {
            "name": self.name,
            "model": {"id": str(model)},
            "dataset": {"path": data, "loss_on": self.loss_on},
            "quantization": {"load_in_4bit": self.in_4bit},
            "training": {
                "max_steps": steps,
                "max_length": 512,
                "gradient_accumulation_steps": 1,
                "save_steps": 1_000_000,
                **self.training,
            },
        }


CASES = (
    Case("4-bit", True),
    Case("16-bit", False),
    Case("16-bit, 8 rows", False, {"per_device_train_batch_size": 8}),
    Case("16-bit, 4 batches of 2", False, {"gradient_accumulation_steps": 4}),
    Case("16-bit, everything kept", False, {"activation_checkpointing": False}),
    Case("16-bit, packed", False, {"packing": True}),
    Case("4-bit, all tokens learned", True, loss_on="everything"),
    Case("16-bit, fast paths off", False, {"fast_paths": False}),
)  # fmt: skip


class Clock:
    """Seconds on the wall and of all processors, at the end of each step."""

    def __init__(self) -> None:
        self._steps: list[tuple[float, float]] = []

    def step(self) -> None:
        self._steps.append((time.monotonic(), time.process_time()))

    def found(self, steps: int) -> dict[str, float]:
        """What went by from the end of the first step to that of the last."""
        (began, began_work), (ended, ended_work) = self._steps[0], self._steps[steps - 1]
        return {"seconds": ended - began, "work": ended_work - began_work}


# --- the two ------------------------------------------------------------------------------------


def ours(job_document: dict[str, Any], _: Path) -> dict[str, Any]:
    """What the worker does with a run, in this process."""
    import queue

    from training_backend import runs, worker
    from training_backend.job import parse_job
    from training_backend.training.trainer_reports import TrainerReports

    clock, report = Clock(), TrainerReports.on_log

    def on_log(*arguments: Any, **known: Any) -> None:
        report(*arguments, **known)
        clock.step()

    TrainerReports.on_log = on_log  # type: ignore[method-assign]
    run = runs.create(parse_job(job_document))
    code = worker._work(run, queue.Queue())
    if code:
        sys.exit(f"The worker ended with {code}: {run.log_path}, {run.events()[-1]}")
    losses = [event.loss for event in run.events() if event.type == "MetricsLogged"]
    return {**clock.found(len(losses)), "losses": losses}


def plain(job_document: dict[str, Any], rows: Path) -> dict[str, Any]:
    """A script as TRL's documentation has it, with the settings of the job."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        BitsAndBytesConfig,
        TrainerCallback,
    )
    from trl import SFTConfig, SFTTrainer

    from training_backend.job import parse_job

    job: Any = parse_job(job_document)
    on_card = torch.cuda.is_available()
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(
        job.model.id,
        dtype=torch.bfloat16,
        quantization_config=quantization if job.quantization.load_in_4bit else None,
        device_map={"": 0 if on_card else "cpu"},
    )
    training = job.training
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=folder,
                max_steps=training.max_steps,
                learning_rate=training.learning_rate,
                lr_scheduler_type=training.lr_scheduler_type,
                warmup_steps=training.warmup_steps,
                per_device_train_batch_size=training.per_device_train_batch_size,
                gradient_accumulation_steps=training.gradient_accumulation_steps,
                max_length=training.max_length,
                packing=training.packing,
                activation_checkpointing=training.activation_checkpointing,
                optim="paged_adamw_8bit" if on_card else "adamw_torch",
                seed=training.seed,
                bf16=True,
                use_cpu=not on_card,
                dataloader_pin_memory=on_card,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(json.loads(rows.read_text())),
            processing_class=AutoTokenizer.from_pretrained(job.model.id),
            peft_config=LoraConfig(
                task_type="CAUSAL_LM",
                r=job.lora.r,
                lora_alpha=job.lora.lora_alpha,
                lora_dropout=job.lora.lora_dropout,
                target_modules="all-linear",
            ),
        )
        logged: list[dict[str, float]] = []
        clock = Clock()

        class Watch(TrainerCallback):  # type: ignore[misc]
            def on_log(self, args: Any, state: Any, control: Any, logs: Any, **_: Any) -> None:
                if "loss" in logs:
                    logged.append(dict(logs))
                    clock.step()

        trainer.add_callback(Watch())
        trainer.train()
    return {
        **clock.found(len(logged)),
        "tokens": logged[-1]["num_tokens"] - logged[0]["num_tokens"],
        "losses": [logs["loss"] for logs in logged],
    }


def tokenised(job_document: dict[str, Any], rows: Path) -> dict[str, Any]:
    """The rows as the worker makes them, for the plain script."""
    from training_backend.data.training_rows import training_rows
    from training_backend.job import parse_job
    from training_backend.models.tokenizer import load_tokenizer

    job: Any = parse_job(job_document)
    found = training_rows(job, load_tokenizer(Path(job.model.id)))
    rows.write_text(json.dumps(found.train.select_columns(["input_ids", "labels"]).to_list()))
    return {"rows": len(found.train), "learned": found.trained_share}


ROLES = {role.__name__: role for role in (ours, plain, tokenised)}


# --- measuring ----------------------------------------------------------------------------------


def child(role: str, folder: Path) -> None:
    """One of the two in this process; writes what it found beside the job."""
    import warnings

    from training_backend.lifecycle import child_process

    child_process.set_environment()  # the same for both
    warnings.simplefilter("ignore")
    job_document = json.loads((folder / "job.json").read_text())
    found = ROLES[role](job_document, folder / "rows.json")
    if role != "tokenised":
        import torch

        if torch.cuda.is_available():
            found["card"] = torch.cuda.max_memory_allocated()
    (folder / "found.json").write_text(json.dumps(found))


def measured(role: str, folder: Path) -> dict[str, Any]:
    """Run one of the two; what it found, and the largest resident size of its process in bytes."""
    log = folder / f"{role}.log"
    with log.open("wb") as output:
        process = os.posix_spawn(
            sys.executable,
            [sys.executable, __file__, "--child", role, "--folder", str(folder)],
            {**os.environ, "LORASMITH_HOME": str(folder / "home")},
            file_actions=[(os.POSIX_SPAWN_DUP2, output.fileno(), 1),
                          (os.POSIX_SPAWN_DUP2, output.fileno(), 2)],
        )  # fmt: skip
        _, status, usage = os.wait4(process, 0)
    if status:
        sys.exit(f"{role} failed:\n{log.read_text()[-3000:]}")
    found = json.loads((folder / "found.json").read_text())
    unit = 1 if sys.platform == "darwin" else 1024
    return {**found, "resident": usage.ru_maxrss * unit}


def compare(case: Case, model: Path, data: str, pairs: int, steps: int) -> float:
    """Print a line; returns how many times as fast as the script the worker is, by the median."""
    with tempfile.TemporaryDirectory(prefix="train-bench-") as temporary:
        folder = Path(temporary)
        (folder / "job.json").write_text(json.dumps(case.job(model, data, steps)))
        rows = measured("tokenised", folder)
        found: dict[str, list[dict[str, Any]]] = {"ours": [], "plain": []}
        for pair in range(pairs):
            for role in ("ours", "plain") if pair % 2 == 0 else ("plain", "ours"):
                found[role].append(measured(role, folder))
    mine, theirs = found["ours"], found["plain"]
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(mine, theirs, strict=True)]
    work = statistics.median(b["work"] / a["work"] for a, b in zip(mine, theirs, strict=True))
    tokens = theirs[0]["tokens"]
    rate = [statistics.median(tokens / one["seconds"] for one in side) for side in (mine, theirs)]
    memory = [max(one.get("card", one["resident"]) for one in side) for side in (mine, theirs)]
    first, last = ((mine[0]["losses"][n], theirs[0]["losses"][n]) for n in (0, -1))
    print(
        f"{case.name:28}{rows['learned']:7.0%}{rate[0]:8.0f}{rate[1]:8.0f}"
        f"{statistics.median(ratios):8.2f}  {min(ratios):.2f}-{max(ratios):.2f}{work:8.2f}"
        f"{memory[0] / 2**20:9,.0f}{memory[1] / 2**20:9,.0f}"
        f"{first[0] / first[1] - 1:+11.1e}{last[0] / last[1] - 1:+11.1e}",
        flush=True,
    )
    return statistics.median(ratios)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    names = [case.name for case in CASES]
    parser.add_argument("--only", nargs="+", default=names, choices=names, metavar="NAME",
                        help=f"cases of these: {'; '.join(names)}")  # fmt: skip
    parser.add_argument("--data", type=Path, help="rows to train on; by default the demo's")
    parser.add_argument("--model", type=Path, help="a model's folder; by default the demo model")
    parser.add_argument("--child", choices=ROLES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.folder)
        return 0
    from training_backend.models import demo_model

    model = (options.model or demo_model.prepare_demo_model()).absolute()
    data = str(options.data.absolute()) if options.data else "demo"
    print(f"{platform.machine()}, {os.cpu_count()} cores, {time.strftime('%F')}, {model.name}, "
          f"{os.path.basename(data)}, {options.pairs} pairs of {options.steps} steps")  # fmt: skip
    print(f"{'':28}{'':7}{'tokens a second':>16}{'':28}{'peak MiB':>18}{'loss apart':>22}")
    print(f"{'':28}{'learned':>7}{'ours':>8}{'TRL':>8}{'ratio':>8}  {'range':9}{'work':>8}"
          f"{'ours':>9}{'TRL':>9}{'first':>11}{'last':>11}")  # fmt: skip
    ratios = [
        compare(case, model, data, options.pairs, options.steps)
        for case in CASES
        if case.name in options.only
    ]
    return int(min(ratios, default=0.0) < 1.0)


if __name__ == "__main__":
    sys.exit(main())
