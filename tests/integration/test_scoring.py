"""At the end of a run its answers to held-out rows are compared with the data's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

ANSWER = "Yes, größer."
ROWS = [
    {"messages": [
        {"role": "user", "content": f"First {n}?"},
        {"role": "assistant", "content": "Ask on."},
        {"role": "user", "content": f"What is {'very ' * (n % 5)}{n}?"},
        {"role": "assistant", "content": ANSWER},
    ]}
    for n in range(24)
]  # fmt: skip
PAIRS = [
    {"prompt": f"What is {n}?", "chosen": ANSWER, "rejected": f"No idea of {n}"} for n in range(16)
]
LEARNS = {"max_steps": 4, "learning_rate": 0.02, "warmup_steps": 0.0, "max_length": 256,
          "lr_scheduler_type": "constant", "per_device_train_batch_size": 4}  # fmt: skip


@pytest.fixture
def scored_job(job_document: Any, write_rows: Any) -> Any:
    """A job whose model learns to say a part of ANSWER to everything."""

    def document(rows: list[Any] = ROWS, **sections: dict[str, Any]) -> dict[str, Any]:
        write_rows(rows)
        evaluation = {"held_out_fraction": 0.5, "eval_steps": 1000, "task_metric_rows": 11}
        training = {**LEARNS, **sections.pop("training", {})}
        quantization = {"load_in_4bit": False, **sections.pop("quantization", {})}
        found: dict[str, Any] = job_document(
            evaluation=evaluation, training=training, quantization=quantization, **sections
        )
        return found

    return document


def scores_of(done: Any) -> dict[str, tuple[float | None, float]]:
    (event,) = done.of("AnswersScored")
    return {score.name: (score.before, score.after) for score in event.scores}


def answers_of(done: Any) -> list[dict[str, Any]]:
    text = (done.run.folder / "scores.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


# answer, reference, exact match, F1, ROUGE-L
BY_HAND = [
    # Three of four words in common, both ways; never two of them in the same order.
    ("the dog bit Ann", "Ann bit the cat", 0, 3 / 4, 1 / 4),
    ("Die Größe ist 3,5 m.", "die Größe ist: 3,5 M", 1, 1, 1),
    ("Привет мир", "Привет, дом", 0, 1 / 2, 1 / 2),
    ("今天天气好", "今天天气很好。", 0, 10 / 11, 10 / 11),  # 5 of 5 and 5 of 6 characters
    ("你好", "再见", 0, 0, 0),
    ("-5", "5", 0, 0, 0),
    ("A", "B", 0, 0, 0),
    ("", "A", 0, 0, 0),  # to SQuAD's own way "A" is an article, and so nothing
    ("👍", "👎", 0, 0, 0),
    ("...", "...", 1, 1, 1),
    ("...", "!!!", 0, 0, 0),
]


def measured(pairs: list[list[Any]]) -> list[dict[str, float]]:
    from training_backend.training import measures

    return [measures.measure(answer, reference) for answer, reference, *_ in pairs]


def test_measures_are_those_worked_out_by_hand(backend: Any) -> None:
    found = backend(measured, BY_HAND)
    for (answer, reference, exact, f1, rouge), scores in zip(BY_HAND, found, strict=True):
        expected = {"exact_match": exact, "f1": f1, "rouge_l": rouge}
        assert scores == pytest.approx(expected, abs=1e-6), (answer, reference)


@pytest.mark.parametrize("in_4bit", [True, False])
def test_answers_are_compared_with_the_data_and_with_the_base(
    do: Any, scored_job: Any, in_4bit: bool
) -> None:
    done = do(scored_job(quantization={"load_in_4bit": in_4bit}))
    assert done.exit_code == 0
    (event,) = done.of("AnswersScored")
    assert (event.step, event.rows, len(event.examples)) == (4, 11, 3)
    rows = answers_of(done)
    assert len({row["question"] for row in rows}) == 11
    assert all(row["question"].startswith("What is") for row in rows)
    assert all(row["reference"] == ANSWER for row in rows)
    assert all(row["after"] != row["before"] for row in rows)
    for name, (before, after) in scores_of(done).items():
        means = [
            sum(row[key][name] for row in rows) / 11 for key in ("scores_before", "scores_after")
        ]
        assert [before, after] == pytest.approx(means)
    phases = [e for e in done.of("PhaseChanged") if e.phase == "scoring"]
    assert [e.fraction for e in phases] == [0, 8 / 22, 11 / 22, 19 / 22, 1.0]
    assert phases[1].seconds_left is not None
    # The result is there before.
    saved = next(e.seq for e in done.of("PhaseChanged") if e.phase == "saving")
    assert saved < phases[0].seq < event.seq < done.terminal.seq


def test_without_the_setting_nothing_is_answered(do: Any, scored_job: Any) -> None:
    job = scored_job(training={"max_steps": 1})
    job["evaluation"]["task_metric_rows"] = 0
    done = do(job)
    assert done.terminal.type == "RunCompleted" and not done.of("AnswersScored")
    assert not (done.run.folder / "scores.jsonl").exists()


def test_of_preference_data_the_chosen_answer_is_the_reference(
    do: Any, scored_job: Any, tmp_path: Path, write_rows: Any
) -> None:
    held_out = tmp_path / "held_out.jsonl"
    shutil.copyfile(write_rows(PAIRS[:3]), held_out)
    job = scored_job(
        PAIRS[3:],
        dataset={"held_out_path": str(held_out)},
        training={"objective": "dpo", "max_steps": 1},
    )
    done = do(job)
    assert done.exit_code == 0
    rows = answers_of(done)
    assert {row["reference"] for row in rows} == {ANSWER}
    assert [row["question"] for row in rows] == [f"What is {n}?" for n in range(3)]


def test_of_a_run_that_trains_every_weight_only_the_result_is_scored(
    do: Any, scored_job: Any
) -> None:
    done = do(scored_job(training={"method": "full", "max_steps": 1}))
    assert done.exit_code == 0
    assert [before for before, _ in scores_of(done).values()] == [None, None, None]
    assert all(row["before"] is None for row in answers_of(done))


def test_plain_text_has_nothing_to_compare_with_and_says_so(do: Any, scored_job: Any) -> None:
    rows = [{"text": f"The number {n} is a number."} for n in range(24)]
    done = do(scored_job(rows, training={"max_steps": 1}))
    assert done.terminal.type == "RunCompleted"
    assert "nothing_to_compare" in [event.code for event in done.of("WarningRaised")]
    assert not done.of("AnswersScored")


# --- the parts, in the process that has torch -----------------------------------------------


def one_by_one_and_together(folder: str) -> dict[str, Any]:
    """Answers of an adapted model to prompts of many lengths, in batches and each alone."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from training_backend.data.training_rows import Question
    from training_backend.models.tokenizer import load_tokenizer
    from training_backend.training import scoring

    class Reporter:
        told: list[float]

        def __init__(self) -> None:
            self.told = []

        def phase(self, name: str, fraction: float, seconds_left: float | None) -> None:
            self.told.append(fraction)

        def check_stop(self) -> None:
            pass

    tokenizer = load_tokenizer(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False))
    questions = [Question(list(range(100, 103 + 7 * n)), [100], [5] * 12) for n in range(11)]
    model.train()
    state = torch.get_rng_state()
    together = scoring._Answers(model, tokenizer, questions, 1, Reporter())
    found = together.all()
    alone = [
        scoring._Answers(model, tokenizer, [question], 1, Reporter()).all()[0]
        for question in questions
    ]
    plain = model.generate(
        input_ids=torch.tensor([questions[4].prompt]), max_new_tokens=12, do_sample=False
    )[0, len(questions[4].prompt) :]

    answer, sizes = together._answer, []

    def too_large(prompts: list[list[int]]) -> list[str]:
        sizes.append(len(prompts))
        if len(prompts) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return answer(prompts)

    together._answer = too_large
    halved = together.all()
    return {
        "together": found, "alone": alone, "halved": halved, "sizes": sizes,
        "plain": tokenizer.decode(plain, skip_special_tokens=True).strip(),
        "training": model.training, "random": bool((state == torch.get_rng_state()).all()),
    }  # fmt: skip


def test_answers_in_batches_are_those_given_one_by_one(backend: Any, make_model: Any) -> None:
    found = backend(one_by_one_and_together, make_model("float32"))
    assert len(set(found["together"])) > 5
    assert found["together"] == found["alone"] == found["halved"]
    assert found["together"][4] == found["plain"]
    assert found["sizes"] == [8, 4, 2, 2, 2, 2, 2, 1]
    assert found["training"] and found["random"]


def base_answers(folder: str, start: str) -> list[bool]:
    """Whether the model as before gives the base's logits, and afterwards its own again."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from training_backend.job import TrainingJob
    from training_backend.training import lora, scoring

    job = TrainingJob(
        model={"id": folder}, dataset={"path": "x"}, lora={"init_lora_weights": start}
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.arange(100, 120)[None]
    with torch.no_grad():
        base = model(input_ids=ids).logits
        config = LoraConfig(
            task_type="CAUSAL_LM", target_modules="all-linear",
            init_lora_weights=True if start == "default" else start,
        )  # fmt: skip
        model = get_peft_model(model, config)
        first = lora.first_weights(job, model)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter += 0.1
        learned = model(input_ids=ids).logits
        with scoring._as_before(model, first):
            before = model(input_ids=ids).logits
        after = model(input_ids=ids).logits
    near = {"atol": 1e-4, "rtol": 1e-4}
    return [
        torch.allclose(base, before, **near),
        bool((after == learned).all()),
        torch.allclose(base, learned, **near),
    ]


@pytest.mark.parametrize("start", ["default", "pissa", "olora"])
def test_the_base_answers_also_where_the_start_changed_it(
    backend: Any, make_model: Any, start: str
) -> None:
    assert backend(base_answers, make_model("float32"), start) == [True, True, False]


def work_with_a_fault(folder: str, fault: str) -> int:
    """As `work`, where the answers fail or the person stops while they are given."""
    import queue
    from pathlib import Path

    from training_backend import worker
    from training_backend.runs import Run
    from training_backend.training import scoring

    run, right = Run(Path(folder)), scoring._Answers._answer

    def wrong(self: object, prompts: list[list[int]]) -> list[str]:
        if fault == "stop":
            run.request("stop")
            return right(self, prompts)
        raise ValueError("the batch is bad")

    scoring._Answers._answer = wrong
    try:
        return worker._work(run, queue.Queue())
    finally:
        scoring._Answers._answer = right


@pytest.mark.parametrize("fault", ["stop", "error"])
def test_a_stop_or_a_failure_while_answers_are_given_leaves_the_result(
    backend: Any, scored_job: Any, lorasmith_home: Path, fault: str
) -> None:
    from training_backend import runs
    from training_backend.job import parse_job

    run = runs.create(parse_job(scored_job(training={"max_steps": 1})))
    assert backend(work_with_a_fault, run.folder, fault) == 0
    events = run.events()
    assert events[-1].type == "RunCompleted"
    assert (run.adapter / "adapter_model.safetensors").is_file()
    assert not [event for event in events if event.type == "AnswersScored"]
    warned = [event.code for event in events if event.type == "WarningRaised"]
    assert ("answers_not_scored" in warned) == (fault == "error")
