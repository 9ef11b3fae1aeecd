"""Does the watch on slow steps cry wolf in a healthy run, and how soon does it tell of a slow one?

    python tests/benchmarks/watch_bench.py [--steps 400]

Trains a small model for real, with rows of all lengths, tests, checkpoints and answers, and notes
what every step took and computed. The watch has looked on; then the same steps are told to it once
more, slowed down from their middle on, as a full card (8 times), another program (3) and heat (2)
do. Run it on a computer that does nothing else: what other programs slow down is slow.

Exits with 1 where the healthy run raised an alarm, or one of 3 times and more went unnoticed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from training_backend.models.demo_model import prepare_demo_model
from training_backend.watching.step_times import AsBefore, Slower, StepTimes, Work

Step = tuple[float, Work]
SLOWED = (2.0, 3.0, 8.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    tokenizer = prepare_demo_model()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LORASMITH_HOME"] = folder
        steps, alarms = train(Path(folder), tokenizer, options.steps)
    seconds = [took for took, _ in steps]
    print(
        f"{len(steps)} steps of {min(seconds):.2f} to {max(seconds):.2f} s "
        f"(median {statistics.median(seconds):.2f}), {len({work for _, work in steps})} sizes"
    )
    print(f"the healthy run: {len(alarms)} alarms {'; '.join(alarms)}")
    missed = False
    for factor in SLOWED:
        told = told_of(steps, factor)
        missed |= told is None and factor >= 3
        print(f"{factor:g} times as long: " + (told or "not told"))
    return 1 if alarms or missed else 0


def told_of(steps: list[Step], factor: float) -> str | None:
    """What the watch says of the steps, slowed down from their middle on."""
    watch, middle, waited = StepTimes(), len(steps) // 2, 0.0
    for number, (took, work) in enumerate(steps):
        slow = took * factor if number >= middle else took
        waited += slow if number >= middle else 0.0
        answer = watch.add(number + 1, slow, work)
        if isinstance(answer, Slower):
            return (
                f"told after {number + 1 - middle} steps, {waited:.0f} s; since step "
                f"{answer.since} for {middle + 1}, {answer.factor:.1f} times"
            )
    return None


def train(folder: Path, tokenizer: Path, steps: int) -> tuple[list[Step], list[str]]:
    """What each step took and computed, and what the watch said meanwhile."""
    import queue

    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from training_backend import runs, worker
    from training_backend.job import parse_job
    from training_backend.watching import run_watch

    model = folder / "model"
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=49152, hidden_size=64, intermediate_size=128, num_hidden_layers=4,
            num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=True,
        )
    ).save_pretrained(model)  # fmt: skip
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(model)
    rows = folder / "rows.jsonl"
    rows.write_text("".join(map(_row, range(600))), encoding="utf-8")
    noted: list[Step] = []

    class Noting(StepTimes):
        def add(self, step: int, seconds: float, work: Work) -> Slower | AsBefore | None:
            noted.append((seconds, work))
            return super().add(step, seconds, work)

    run_watch.StepTimes = Noting  # type: ignore[misc]
    run = runs.create(
        parse_job(
            {
                "name": "watch",
                "model": {"id": str(model)},
                "dataset": {"path": str(rows)},
                "quantization": {"load_in_4bit": False},
                "lora": {"lora_dropout": 0.0},
                "training": {
                    "max_steps": steps, "save_steps": 50, "max_length": 512,
                    "gradient_accumulation_steps": 2,
                },
                "evaluation": {
                    "held_out_fraction": 0.1, "eval_steps": 50, "prompts": ["What is it?"],
                    "max_new_tokens": 8,
                },
            }
        )
    )  # fmt: skip
    worker._work(run, queue.Queue())
    events = run.events()
    print(events[-1].type)
    return noted, [e.message for e in events if e.type == "WarningRaised" and e.since is not None]


def _row(number: int) -> str:
    """A conversation; most are short and some are long, as people's are."""
    words = int(random.Random(number).lognormvariate(3.5, 1.0))
    answer = " ".join(f"word {n}" for n in range(min(words, 400)))
    roles = {"user": f"What is {number}?", "assistant": f"It is {answer}."}
    messages = [{"role": role, "content": text} for role, text in roles.items()]
    return json.dumps({"messages": messages}) + "\n"


if __name__ == "__main__":
    sys.exit(main())
