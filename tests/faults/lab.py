"""Where faults are tried: a tiny model, real trainings, and what “nothing lost” means.

A fault leaves a run's folder behind. Nothing is lost when the run's history can be read, when it
goes on from its newest sound checkpoint, which is at least the newest one that it told of, and when
everything that it says and learns from there on equals, bit for bit, what the same job does when
nobody disturbs it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training_backend import runs
from training_backend.job import parse_job
from training_backend.lifecycle import checkpoints
from training_backend.protocol import (
    TERMINAL_TYPES,
    CheckpointSaved,
    EvaluationLogged,
    Event,
    MetricsLogged,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    RunStarted,
    RunStopped,
)
from training_backend.runs import Run

REPOSITORY = Path(__file__).parents[2]
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
PATIENCE_SECONDS = 300.0

ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"What is {n} and {n}?"},
            {"role": "assistant", "content": f"It is {2 * n}."},
        ]
    }
    for n in range(24)
]

MODEL = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
LlamaForCausalLM(LlamaConfig(
    vocab_size=49152, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, head_dim=16, tie_word_embeddings=True,
    bos_token_id=1, eos_token_id=2, pad_token_id=2,
)).to(torch.bfloat16).save_pretrained({folder!r})
"""

# What a spawned worker does with its run. `{setup}` is where a fault is planted.
WORKER = """
import queue
from pathlib import Path
from training_backend.lifecycle import child_process
from training_backend import worker
from training_backend.runs import Run
run = Run(Path({folder!r}))
child_process.redirect_output(run.log_path, append=True)
{setup}
code = worker._work(run, queue.Queue())
"""

# Planted code that acts when the trainer has done a step: `act(step)`.
AT_STEP = """
from training_backend.training.trainer_reports import TrainerReports
_on_step_end = TrainerReports.on_step_end
def on_step_end(self, args, state, control, **kwargs):
    _on_step_end(self, args, state, control, **kwargs)
    act(state.global_step, kwargs.get("model"))
TrainerReports.on_step_end = on_step_end
"""


# Before the step after this one the worker stands still, so that nobody who wants to do something
# to it in the midst, on a computer however busy, comes too late.
HALT = """
import os, signal
from training_backend.training.trainer_reports import TrainerReports
def on_step_begin(self, args, state, control, **kwargs):
    if state.global_step == {step}:
        os.kill(os.getpid(), signal.SIGSTOP)
TrainerReports.on_step_begin = on_step_begin
"""


class Lost(AssertionError):
    """Something that the person had is gone, or the run says something that is not so."""


@dataclass
class Attempt:
    """A worker at work."""

    lab: Lab
    run: Run
    pid: int

    def wait(self) -> Event:
        """Its end, written by itself or, if it could not, as the window would."""
        code = self.lab.ask({"wait": self.pid})["exit"]
        last = runs.settle(self.run, code) or self.run.events()[-1]
        if not isinstance(last, TERMINAL_TYPES):
            raise Lost(f"the run has no end: {last}")
        return last

    def until(self, seen: Callable[[Event], bool]) -> None:
        """Wait until the journal says so, or the worker has ended."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if any(seen(event) for event in self.run.events()):
                    return
            with contextlib.suppress(FileNotFoundError):
                if Path(f"/proc/{self.pid}/stat").read_text().split()[2] == "Z":
                    return
            time.sleep(0.01)
        raise Lost("it did not come to that point")

    def until_halted(self) -> None:
        """Wait until it stands still, as `Lab.halted` wants it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (state := Path(f"/proc/{self.pid}/stat").read_text().split()[2]) != "T":
            if state == "Z" or time.monotonic() > deadline:
                raise Lost("it did not come to that point")
            time.sleep(0.01)

    def until_step(self, step: int) -> None:
        self.until(lambda e: isinstance(e, MetricsLogged) and e.step >= step)

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


class Lab:
    """One home folder, one tiny model, one zygote."""

    def __init__(self, folder: Path, demo_model: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.environment = {
            **os.environ, "LORASMITH_HOME": str(self.home), "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }  # fmt: skip
        self.zygote = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            cwd=REPOSITORY,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        self.pid = self._answer()["ready"]
        self._references: dict[str, tuple[dict[Any, Any], bytes]] = {}
        self.model = folder / "model"
        self.do(MODEL.format(folder=str(self.model)))
        for name in TOKENIZER_FILES:
            shutil.copyfile(demo_model / name, self.model / name)
        self.data = folder / "rows.jsonl"
        self.data.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")

    def close(self) -> None:
        self.zygote.communicate()

    # -------------------------------------------------------------------------- the zygote

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self.zygote.stdin is not None
        self.zygote.stdin.write(json.dumps(command) + "\n")
        self.zygote.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.zygote.stdout is not None
        answer: dict[str, Any] = json.loads(self.zygote.stdout.readline())
        return answer

    def do(self, source: str) -> None:
        """Run source in a forked process, which must succeed."""
        code = self.ask({"wait": self.ask({"fork": source})["pid"]})["exit"]
        if code:
            raise Lost(f"the lab itself failed ({code})")

    # ------------------------------------------------------------------------------- runs

    def job(self, **sections: dict[str, Any]) -> dict[str, Any]:
        """Twelve steps that draw random numbers everywhere; sections are changed in it."""
        job: dict[str, Any] = {
            "name": "fault",
            "model": {"id": str(self.model)},
            "dataset": {"path": str(self.data)},
            "lora": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1},
            "training": {
                "max_steps": 12, "save_steps": 3, "save_total_limit": 3, "learning_rate": 1e-3,
                "gradient_accumulation_steps": 1, "max_length": 128,
            },
            "evaluation": {"held_out_fraction": 0.25, "eval_steps": 4},
        }  # fmt: skip
        for name, section in sections.items():
            job[name] = {**job.get(name, {}), **section}
        return job

    def create(self, **sections: dict[str, Any]) -> Run:
        os.environ["LORASMITH_HOME"] = str(self.home)
        return runs.create(parse_job(self.job(**sections)))

    def start(self, run: Run, setup: str = "") -> Attempt:
        """Let a worker have the run; `setup` is code that plants the fault in it."""
        source = WORKER.format(folder=str(run.folder), setup=setup)
        return Attempt(self, run, self.ask({"fork": source})["pid"])

    def halted(self, run: Run, step: int) -> Attempt:
        """Let a worker have the run that stands still after so many steps, until SIGCONT."""
        attempt = self.start(run, HALT.format(step=step))
        attempt.until_halted()
        return attempt

    def train(self, setup: str = "", **sections: dict[str, Any]) -> tuple[Run, Event]:
        """A new run from its start to its end."""
        run = self.create(**sections)
        return run, self.start(run, setup).wait()

    def killed(self, step: int) -> Run:
        """A run whose worker was killed after so many steps."""
        run = self.create()
        attempt = self.halted(run, step)
        attempt.signal(signal.SIGKILL)
        attempt.wait()
        return run

    def at_step(self, step: int, code: str) -> str:
        """Setup that runs one line of code at the end of a step."""
        return f"def act(step, model):\n    if step == {step}:\n        {code}\n{AT_STEP}"

    # ------------------------------------------------------------------------ nothing lost

    def nothing_lost(self, run: Run, floor: int | None = None) -> None:
        """Go on with the run, undisturbed, and compare it with one that never was disturbed.

        Args:
            floor: the step that it must go on from at the least; by default what its journal
                promises. Given by a fault that itself destroys a checkpoint or the journal. A run
                that began anew would end the same, so that only this tells what was lost.
        """
        self.goes_on(run, floor)
        self.equals_undisturbed(run)

    def goes_on(self, run: Run, floor: int | None = None) -> None:
        """Go on with the run to its end, from where `nothing_lost` says."""
        floor = promised(run) if floor is None else floor
        before = newest_sound(run)
        end = self.start(run).wait()
        if not isinstance(end, RunCompleted):
            raise Lost(f"it does not go on: {sentence(end)}")
        started = [e for e in run.events() if isinstance(e, RunStarted)][-1]
        went_on_from = started.resumed_from_step or 0
        if went_on_from < floor:
            raise Lost(f"it went on from step {went_on_from}, and had saved step {floor}")
        if went_on_from != before:
            raise Lost(f"it went on from step {went_on_from}, not from {before}")

    def equals_undisturbed(self, run: Run, *, in_part: bool = False) -> None:
        """Args:
        in_part: the fault destroyed some of the history; what is left must be so.
        """
        key = (run.folder / "job.json").read_text(encoding="utf-8")
        if key not in self._references:
            twin = runs.create(run.job())
            if not isinstance(self.start(twin).wait(), RunCompleted):
                raise Lost("the undisturbed run fails")
            self._references[key] = numbers(twin), _weights(twin)
        told, weights = self._references[key]
        if in_part:
            told = {at: told[at] for at in numbers(run) if at in told}
        if numbers(run) != told:
            wrong = {at for at in told if numbers(run).get(at) != told[at]}
            raise Lost(f"other losses than undisturbed at {sorted(wrong)[:3]}")
        if _weights(run) != weights:
            raise Lost("other weights than undisturbed")


def numbers(run: Run) -> dict[tuple[str, int], tuple[Any, ...]]:
    """What the journal says of each step; a later attempt supersedes an earlier one."""
    told: dict[tuple[str, int], tuple[Any, ...]] = {}
    for event in run.events():
        if isinstance(event, MetricsLogged):
            told["train", event.step] = (event.loss, event.grad_norm, event.learning_rate)
        elif isinstance(event, EvaluationLogged):
            told["test", event.step] = (event.loss,)
    return told


def promised(run: Run, but: int = 0) -> int:
    """The step of the newest checkpoint that the journal tells of; 0 without any.

    Args:
        but: so many of the newest ones do not count, for they were damaged on purpose.
    """
    told = sorted({e.step for e in run.events() if isinstance(e, CheckpointSaved)})
    return told[-1 - but] if len(told) > but else 0


def newest_sound(run: Run) -> int:
    """The step of the newest checkpoint that is whole; 0 without any."""
    sound = [
        c.step for c in checkpoints.finished(run.checkpoints) if checkpoints.is_whole(c.folder)
    ]
    return max(sound, default=0)


def sentence(end: Event) -> str:
    """What the person reads of an end."""
    match end:
        case RunFailed() | RunInterrupted():
            return end.words
        case RunStopped():
            return "Stopped and saved." if end.checkpoint else "Stopped."
        case RunCompleted():
            return "Completed."
    return repr(end)


def expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise Lost(otherwise)


@contextlib.contextmanager
def lab(folder: Path, demo_model: Path) -> Iterator[Lab]:
    made = Lab(folder, demo_model)
    try:
        yield made
    finally:
        made.close()


def _weights(run: Run) -> bytes:
    return (run.adapter / "adapter_model.safetensors").read_bytes()


def demo_model() -> Path:
    """The folder of the demo model, whose tokenizer the lab uses; prepared once per machine."""
    cache = os.environ.get("LORASMITH_TEST_CACHE") or Path.home() / ".cache" / "lorasmith-tests"
    answer = subprocess.run(
        [sys.executable, "-m", "training_backend", "demo-model"],
        cwd=REPOSITORY,
        env={**os.environ, "LORASMITH_HOME": str(cache)},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    return Path(answer.stdout.strip().splitlines()[-1])
