"""Preference tuning: the chosen answer of each pair comes to be preferred to the rejected one."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_merge import compare_with_peft

STEPS, SAVED = 4, 2
PAIRS = [
    {
        "prompt": f"What is {n} and {n}?",
        "chosen": f"It is {2 * n}, my friend.",
        "rejected": f"Why would you ask about {n}",
    }
    for n in range(16)
]


@pytest.fixture
def dpo_job(job_document: Any, write_rows: Any, tmp_path: Path) -> Any:
    def document(in_4bit: bool, **training: Any) -> dict[str, Any]:
        held_out = tmp_path / "held_out.jsonl"
        shutil.copyfile(write_rows(PAIRS[:4]), held_out)
        write_rows(PAIRS)
        settings = {"objective": "dpo", "max_steps": STEPS, "save_steps": SAVED, "beta": 0.2,
                    "learning_rate": 0.01, "warmup_steps": 0.0, "lr_scheduler_type": "constant",
                    "per_device_train_batch_size": 4, **training}  # fmt: skip
        job: dict[str, Any] = job_document(
            dataset={"held_out_path": str(held_out)},
            quantization={"load_in_4bit": in_4bit},
            training=settings,
            evaluation={"eval_steps": STEPS},
        )
        return job

    return document


def _told(events: list[Any]) -> dict[int, Any]:
    return {
        e.step: (e.loss, e.grad_norm, e.reward_margin, e.reward_accuracy)
        for e in events
        if e.type == "MetricsLogged"
    }


def mean_margin(base: str, adapter: str, pairs: list[dict[str, str]], beta: float) -> float:
    """beta * (log-ratio of the chosen - log-ratio of the rejected), by plain PEFT."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(adapter)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, adapter).eval()

    def log_probability(pair: dict[str, str], which: str) -> torch.Tensor:
        question = [{"role": "user", "content": pair["prompt"]}]
        whole = [*question, {"role": "assistant", "content": pair[which]}]
        text = tokenizer.apply_chat_template(whole, tokenize=False).rstrip("\n")
        before = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
        assert text.startswith(before)
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        first = len(tokenizer(before, add_special_tokens=False)["input_ids"])
        scores = model(ids).logits.log_softmax(-1)[0, :-1]
        return scores.gather(1, ids[0, 1:, None])[first - 1 :].sum()

    margins = []
    with torch.no_grad():
        for pair in pairs:
            tuned = log_probability(pair, "chosen") - log_probability(pair, "rejected")
            with model.disable_adapter():
                before = log_probability(pair, "chosen") - log_probability(pair, "rejected")
            margins.append(float(beta * (tuned - before)))
    return sum(margins) / len(margins)


@pytest.mark.parametrize("in_4bit", [False, True])
def test_the_margin_grows_a_resume_is_exact_and_the_adapter_merges(
    backend: Any, do: Any, dpo_job: Any, tiny_model: Path, tmp_path: Path, in_4bit: bool
) -> None:
    whole = do(dpo_job(in_4bit))
    assert whole.exit_code == 0, whole.terminal
    told = _told(whole.events)
    loss, _, margin, _ = told[1]
    assert loss == pytest.approx(math.log(2), abs=1e-3)  # nothing is preferred yet
    assert margin == pytest.approx(0, abs=1e-3)
    assert told[STEPS][0] < 0.5 and told[STEPS][2] > 0.5 and told[STEPS][3] == 1.0
    weights = (whole.run.adapter / "adapter_model.safetensors").read_bytes()

    (tested,) = whole.of("EvaluationLogged")
    assert tested.reward_accuracy == 1.0
    if not in_4bit:
        expected = backend(mean_margin, tiny_model, whole.run.adapter, PAIRS[:4], 0.2)
        assert tested.reward_margin == pytest.approx(expected, rel=0.03)

    shutil.rmtree(whole.run.adapter)
    shutil.rmtree(whole.run.checkpoints / f"checkpoint-{STEPS}")
    resumed = do(whole.run)
    assert resumed.exit_code == 0, resumed.terminal
    began = resumed.events.index(resumed.of("RunStarted")[-1])
    assert resumed.events[began].resumed_from_step == SAVED
    again = _told(resumed.events[began:])
    assert again == {step: numbers for step, numbers in told.items() if step > SAVED}
    assert (whole.run.adapter / "adapter_model.safetensors").read_bytes() == weights

    exported = do({"kind": "export", "run": str(whole.run.folder), "out": str(tmp_path / "out")})
    assert exported.exit_code == 0, exported.terminal
    found = backend(compare_with_peft, tiny_model, whole.run.adapter, tmp_path / "out")
    assert found["wrong"] == [] and found["changed"] == 14


def test_pairs_that_are_none_are_left_out_with_their_reasons(
    do: Any, dpo_job: Any, write_rows: Any
) -> None:
    job = dpo_job(True, max_steps=1)
    question = [{"role": "user", "content": "Really?"}]
    yes, no = ([*question, {"role": "assistant", "content": text}] for text in ("Yes.", "No."))
    write_rows(
        [
            *PAIRS[4:8],
            {"prompt": "Hm?", "chosen": "Yes.", "rejected": ""},
            {"prompt": "Hm?", "chosen": "Yes.", "rejected": "Yes."},
            {"chosen": yes, "rejected": [{**no[0], "content": "What?"}, no[1]]},
            {"chosen": yes, "rejected": no},
        ]
    )
    done = do(job)
    assert done.exit_code == 0, done.terminal
    left_out = next(e for e in done.of("WarningRaised") if e.code == "rows_left_out")
    assert left_out.params["count"] == 3
    for words in ("no rejected answer", "the same answer twice", "different questions"):
        assert words in left_out.message
    assert next(e for e in done.of("PhaseChanged") if e.rows).rows == 5


def test_data_without_pairs_is_refused_before_the_run(job_document: Any) -> None:
    from training_backend.errors import JobError
    from training_backend.job import parse_job
    from training_backend.lifecycle import preflight

    with pytest.raises(JobError) as caught:
        preflight.check(parse_job(job_document(training={"objective": "dpo"})))
    (problem,) = caught.value.problems
    assert problem.field == "training.objective"
    assert "messages data" in problem.message and "rejected" in problem.message
