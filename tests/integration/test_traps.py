"""What the libraries do wrong when left alone, and that we keep them from doing it.

Each test here fails when one of the measures in train.py or launch.py is taken out, or shows
that a library no longer needs it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from training_backend import runs
from training_backend.job import parse_job

REPOSITORY = Path(__file__).parents[2]


def look_inside(folder: str) -> dict[str, Any]:
    """What a real training has in its hands at its second step."""
    import queue
    from pathlib import Path

    import bitsandbytes

    from training_backend import train, worker
    from training_backend.runs import Run

    seen: dict[str, Any] = {}

    class Spy(train._Trainer):
        def training_step(self, model, inputs, *rest):
            loss = super().training_step(model, inputs, *rest)
            named = list(self.model.named_parameters())
            trainable = [(name, p) for name, p in named if p.requires_grad]
            seen.update(
                trained={str(p.dtype) for _, p in trainable},
                gradients={str(p.grad.dtype) for _, p in trainable},
                only_lora=all("lora_" in name for name, _ in trainable),
                frozen={str(p.dtype) for n, p in named if "embed_tokens" in n or "norm" in n},
                packed={type(p).__name__ for n, p in named if "base_layer" in n},
                nested={p.quant_state.nested for n, p in named if "base_layer" in n},
                kind={p.quant_state.quant_type for n, p in named if "base_layer" in n},
                nan_filter=self.args.logging_nan_inf_filter,
                hub=self.args.push_to_hub,
                reports=self.args.report_to,
                cache=self.model.config.use_cache,
                avx=bitsandbytes.nn.modules.has_avx512bf16(),
                attention=self.model.config._attn_implementation,
                dropout=self.model.training,
            )
            return loss

    kept, train._Trainer = train._Trainer, Spy
    try:
        assert worker._work(Run(Path(folder)), queue.Queue()) == 0
    finally:
        train._Trainer = kept
    return {name: sorted(v) if isinstance(v, set) else v for name, v in seen.items()}


def test_what_a_training_works_with(backend: Any, job_document: Any, lorasmith_home: Path) -> None:
    job = job_document(evaluation={"held_out_fraction": 0.2, "eval_steps": 1, "prompts": ["Hi"],
                                   "max_new_tokens": 2})  # fmt: skip
    assert backend(look_inside, runs.create(parse_job(job)).folder) == {
        "trained": ["torch.float32"],  # bf16 would be fp32 after a resume
        "gradients": ["torch.float32"],
        "only_lora": True,
        "frozen": ["torch.bfloat16"],  # prepare_model_for_kbit_training makes them fp32
        "packed": ["Params4bit"],
        "nested": [True],
        "kind": ["nf4"],
        "nan_filter": False,  # else a loss of NaN is logged as 0.0
        "hub": False,
        "reports": [],
        "cache": False,
        "avx": False,
        "attention": "sdpa",
        "dropout": True,
    }


def gradients_around_an_evaluation(model_folder: str) -> dict[str, Any]:
    """LoRA gradients in 4-bit before and after a forward in evaluation mode."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    import training_backend.train  # noqa: F401  (its measure is what is tested)

    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )
    model = AutoModelForCausalLM.from_pretrained(
        model_folder, quantization_config=nf4, dtype=torch.bfloat16, device_map={"": "cpu"}
    )
    torch.manual_seed(0)
    model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    ids = torch.randint(0, 40_000, (2, 16))

    def gradients():
        model.train()
        model.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        return [p.grad.clone() for p in model.parameters() if p.requires_grad]

    bytes_before = [p.data.clone() for n, p in model.named_parameters() if "base_layer" in n]
    before = gradients()
    model.eval()
    with torch.no_grad():
        model(input_ids=ids)
        model.generate(input_ids=ids[:1], max_new_tokens=2, do_sample=False)
    after = gradients()
    bytes_after = [p.data for n, p in model.named_parameters() if "base_layer" in n]
    return {
        "tensors": len(before),
        "moved": sum(bool(g.abs().sum() > 0) for g in before),
        "differ": sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True)),
        "repacked": sum(
            not torch.equal(a, b) for a, b in zip(bytes_before, bytes_after, strict=True)
        ),
    }


def test_gradients_in_4bit_are_the_same_after_an_evaluation(backend: Any, tiny_model: Path) -> None:
    found = backend(gradients_around_an_evaluation, tiny_model)
    # Every B moves; A does not yet, since B begins at zero.
    assert found == {"tensors": 28, "moved": 14, "differ": 0, "repacked": 0}


def loss_with_and_without_evaluations(folders: list[str]) -> list[list[float]]:
    import queue
    from pathlib import Path

    from training_backend import worker
    from training_backend.runs import Run

    found = []
    for folder in folders:
        run = Run(Path(folder))
        assert worker._work(run, queue.Queue()) == 0
        found.append([e.loss for e in run.events() if e.type == "MetricsLogged"])
    return found


def test_evaluations_and_answers_leave_the_training_as_it_is(
    backend: Any, job_document: Any, lorasmith_home: Path
) -> None:
    held_out = {"held_out_fraction": 0.25, "eval_steps": 1}
    jobs = [
        job_document(
            lora={"lora_dropout": 0.3},
            training={"max_steps": 5},
            evaluation={**held_out, **evaluation},
        )
        for evaluation in ({}, {"eval_steps": 50}, {"prompts": ["Hi", "Ho"], "max_new_tokens": 3})
    ]
    folders = [str(runs.create(parse_job(job)).folder) for job in jobs]
    often, never, with_answers = backend(loss_with_and_without_evaluations, folders)
    assert len(often) == 5
    assert often == never == with_answers


def saved_by_transformers(folder: str) -> list[str]:
    """What the stock trainer would leave in a checkpoint of ours."""
    import queue
    from pathlib import Path

    from training_backend import train, worker
    from training_backend.runs import Run

    seen = []

    class Spy(train.TrainerReports):
        def on_save(self, args, state, control, **kwargs):
            staged = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            seen.extend(path.name for path in staged.iterdir())
            return super().on_save(args, state, control, **kwargs)

    kept, train.TrainerReports = train.TrainerReports, Spy
    try:
        assert worker._work(Run(Path(folder)), queue.Queue()) == 0
    finally:
        train.TrainerReports = kept
    return seen


def test_the_pickled_arguments_that_the_trainer_writes_are_not_kept(
    backend: Any, job_document: Any, lorasmith_home: Path
) -> None:
    run = runs.create(parse_job(job_document()))
    written = set(backend(saved_by_transformers, run.folder))
    kept = {path.name for path in (run.checkpoints / "checkpoint-3").iterdir()}
    # Once the first is empty the clean-up in train.py has become needless.
    assert written - kept == {"training_args.bin", "README.md"}
    assert kept - written == {"COMPLETE.json"}


FLOOD = """
import multiprocessing, os, signal, sys, threading, time
from pathlib import Path
from training_backend.lifecycle import launch
from training_backend import runs, worker
from training_backend.job import parse_job
from training_backend.protocol import LogLine

def flood(feed, pipe):
    # As worker.main, with large messages in place of a training.
    feed.cancel_join_thread()
    run = runs.Run(Path(pipe.recv()))
    with run.worker_lock():
        run.claim()
        reporter = worker.Reporter(run, feed)
        while True:
            reporter.emit(LogLine(message="x" * 1_000_000))

if __name__ == "__main__":
    worker.main = flood
    run = runs.create(parse_job({"model": {"id": "x"}, "dataset": {"path": "y"}}))
    started = launch.Worker()
    started.start(run)
    events = started.follow(run)
    next(event for event in events if event is not None)
    while run.worker() is None:
        time.sleep(0.01)
    time.sleep(float(sys.argv[1]))  # the pipe is full: it is in the middle of sending
    os.kill(started.process.pid, signal.SIGKILL)
    *_, last = events  # would hang here
    print(last.type, last.cause)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.3])
def test_a_reader_does_not_hang_on_a_worker_killed_while_it_sends(
    lorasmith_home: Path, tmp_path: Path, seconds: float
) -> None:
    script = tmp_path / "flood.py"
    script.write_text(FLOOD, encoding="utf-8")
    answer = subprocess.run(
        [sys.executable, script, str(seconds)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        encoding="utf-8",
    )
    assert answer.stdout.split() == ["RunInterrupted", "signal"], answer.stderr
