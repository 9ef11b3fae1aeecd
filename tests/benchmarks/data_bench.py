"""Rates of reading, mapping, laying out, tokenising and lint, beside TRL's own preparation.

    python tests/benchmarks/data_bench.py [--rows 500000] [--model FOLDER]

Wall-clock and processor time are both printed: on a machine that does other things the
second tells more. The ratio is that of the whole way from the file to the trainer's
dataset, ours by TRL's; 1.0 or less is the goal.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DEMO = Path.home() / ".cache" / "lorasmith-tests" / "models" / "SmolLM2-135M-Instruct"
TRL_ROWS = 50_000  # more would only take longer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--model", type=Path, default=DEMO)
    options = parser.parse_args()

    # All that takes seconds to import, so that neither way is charged with it.
    import datasets  # noqa: F401
    import trl
    from transformers import AutoTokenizer, LlamaForCausalLM  # noqa: F401

    assert trl.SFTTrainer and trl.SFTConfig  # imported lazily

    from training_backend.data.formatting import Formatter
    from training_backend.data.lint import lint
    from training_backend.data.sources import open_source
    from training_backend.data.training_rows import training_rows
    from training_backend.job import SourceSection, TrainingJob, parse_job

    def tokenizer() -> Any:
        return AutoTokenizer.from_pretrained(options.model)

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        write_rows(file, options.rows)
        job = parse_job({"model": {"id": str(options.model)}, "dataset": {"path": str(file)}})
        assert isinstance(job, TrainingJob)
        source = open_source(SourceSection(path=str(file)))

        tokens = measure_parts(source.table, Formatter(tokenizer(), 1024), options.rows)
        print(f"{'':34} {tokens:.0f} tokens a row")
        timed("lint", options.rows, lambda: lint(job, tokenizer()))

        few = min(options.rows, TRL_ROWS)
        write_rows(file, few)
        ours = timed("file to dataset, ours", few, lambda: training_rows(job, tokenizer()))
        mine = LAST[0]
        theirs = timed("file to dataset, TRL's", few, lambda: trl_rows(file, tokenizer()))
        print(f"ratio to TRL: {mine / LAST[0]:.2f} (processor time {CPU[-2] / CPU[-1]:.2f})")
        assert len(ours.train) == len(theirs)


def measure_parts(table: Any, formatter: Any, count: int) -> float:
    """The steps by themselves; returns the mean tokens of a row."""
    from training_backend.data import mapping

    rows = timed("reading", count, lambda: list(table.rows()))
    conversations = timed(
        "mapping", count, lambda: [mapping.to_conversation(row, "messages") for row in rows]
    )
    some = conversations[:TRL_ROWS]
    formatter.encode(some[:1])  # the probe of the template is not what is measured
    timed("finding answers", len(some), lambda: [formatter._lay_out(c) for c in some])
    encoded = timed("finding answers and tokenising", len(some), lambda: formatter.encode(some))
    return sum(len(sequence.input_ids) for (sequence,) in encoded) / len(some)


LAST = [0.0]
CPU: list[float] = []


def timed(what: str, rows: int, work: Callable[[], Any]) -> Any:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    LAST[0] = time.perf_counter() - wall
    CPU.append(time.process_time() - cpu)
    print(
        f"{what:34} {rows / LAST[0]:>10,.0f} rows/s   {LAST[0]:7.2f} s, "
        f"{CPU[-1]:7.2f} s of processor time",
        flush=True,
    )
    return result


def trl_rows(file: Path, tokenizer: Any) -> Any:
    """TRL's preparation; it makes no mask here, since it does not know this template."""
    import datasets
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    datasets.disable_caching()
    datasets.disable_progress_bars()
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8,
                    num_hidden_layers=1, num_attention_heads=1)
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        rows = datasets.load_dataset("json", data_files=str(file), cache_dir=folder, split="train")
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(output_dir=folder, use_cpu=True, bf16=False, report_to="none",
                           max_length=1024),
            train_dataset=rows,
            processing_class=tokenizer,
        )  # fmt: skip
        return trainer.train_dataset


def write_rows(file: Path, count: int) -> None:
    """Questions and answers of about 60 tokens with ChatML around them."""
    chance = random.Random(0)
    words = ["order", "parcel", "refund", "account", "password", "page", "today", "please", "email"]
    with file.open("w", encoding="utf-8") as out:
        for number in range(count):
            question = " ".join(chance.choices(words, k=10))
            answer = " ".join(chance.choices(words, k=16))
            turns = [{"role": "user", "content": f"{question} {number}?"},
                     {"role": "assistant", "content": f"{answer}."}]  # fmt: skip
            out.write(json.dumps({"messages": turns}) + "\n")


if __name__ == "__main__":
    main()
