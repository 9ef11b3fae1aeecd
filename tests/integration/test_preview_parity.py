"""What preview shows is what the trainer's first batch holds, for every family of templates."""
# ruff: noqa: RUF001 - the bars of DeepSeek are wide ones

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training_backend.data.formatting import IGNORED
from training_backend.data.preview import preview
from training_backend.job import TrainingJob, parse_job

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

TEMPLATES = Path(__file__).parents[1] / "assets" / "chat_templates"
FAMILIES = ["chatml", "llama3", "mistral", "gemma", "phi", "qwen", "deepseek", "command"]
_TOKENS = re.compile(r"<[|｜][^<>'+ ]*[|｜]>|\[/?[A-Z_]+\]|<(?:start|end)_of_turn>|</?think>")

ROWS: list[dict[str, Any]] = [
    {"messages": [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris."},
    ]},
    {"messages": [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": "Name a colour. 🙂"},
        {"role": "assistant", "content": "Blue, naïve café."},
        {"role": "user", "content": "  And another?\n"},
        {"role": "assistant", "content": "<think>\nNot blue.\n</think>\n\nGreen."},
    ]},
    {"messages": [
        {"role": "user", "content": "Add 2 and 2."},
        {"role": "assistant", "content": "4.", "weight": 0},
        {"role": "user", "content": "Add 3 and 3."},
        {"role": "assistant", "content": "6.", "reasoning_content": "3 + 3 = 6"},
    ]},
    {"messages": [
        {"role": "user", "content": "What is the weather?"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call00001", "type": "function",
             "function": {"name": "weather", "arguments": {"city": "Bonn"}}}]},
        {"role": "tool", "name": "weather", "tool_call_id": "call00001", "content": "rain"},
        {"role": "assistant", "content": "It rains in Bonn."},
    ]},
    {"messages": [
        {"role": "user", "content": "Say something long."},
        {"role": "assistant", "content": "word " * 400},
    ]},
]  # fmt: skip


@pytest.fixture(scope="module")
def tiny_model(
    demo_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Makes a folder with a tiny random Llama, the demo's tokenizer and one chat template."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    def make(family: str) -> Path:
        folder = tmp_path_factory.mktemp(family)
        tokenizer = AutoTokenizer.from_pretrained(demo_model_dir)
        tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
        tokenizer.chat_template = None
        if family != "base":
            source = (TEMPLATES / f"{family}.jinja").read_text(encoding="utf-8")
            tokenizer.add_tokens(sorted(set(_TOKENS.findall(source))), special_tokens=True)
            tokenizer.chat_template = source
        tokenizer.save_pretrained(folder)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder)
        return folder

    return make


def job_for(model: Path, data: Path, **dataset: Any) -> TrainingJob:
    job = parse_job({
        "model": {"id": str(model)},
        "dataset": {"path": str(data), **dataset},
        "quantization": {"load_in_4bit": False},
        "training": {"max_length": 160, "per_device_train_batch_size": 16,
                     "gradient_accumulation_steps": 1},
    })  # fmt: skip
    assert isinstance(job, TrainingJob)
    return job


def first_batch(job: TrainingJob, folder: Path) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The (input_ids, labels) of the trainer's first batch, without the padding."""
    from transformers import AutoModelForCausalLM

    from training_backend import train
    from training_backend.data.training_rows import training_rows
    from training_backend.models.tokenizer import load_tokenizer
    from training_backend.training import lora

    tokenizer = load_tokenizer(job.model.id)
    model = AutoModelForCausalLM.from_pretrained(job.model.id)
    trainer = train._Trainer(
        model=model,
        args=train._arguments(job, folder / "staging", False),
        train_dataset=training_rows(job, tokenizer).train,
        processing_class=tokenizer,
        peft_config=lora.lora_config(job, model, None),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    lengths = [len(row) for row in trainer.train_dataset["input_ids"]]
    assert len(batch["input_ids"]) == len(lengths)
    found = set()
    for ids, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        length = next(
            n for n in sorted(lengths)
            if ids[:n] in trainer.train_dataset["input_ids"]
            and all(label == IGNORED for label in labels[n:])
        )  # fmt: skip
        found.add((tuple(ids[:length]), tuple(labels[:length])))
    return found


@pytest.mark.parametrize("family", [*FAMILIES, "base"])
def test_preview_is_what_the_first_batch_holds(
    family: str, tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    from training_backend.models.tokenizer import load_tokenizer

    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in ROWS), encoding="utf-8")
    job = job_for(tiny_model(family), data)

    shown = preview(job, load_tokenizer(job.model.id), len(ROWS))["rows"]

    assert [row["index"] for row in shown] == list(range(len(ROWS)))
    assert not [row for row in shown if "problem" in row]
    expected = {
        (
            tuple(token["id"] for token in row["tokens"]),
            tuple(token["id"] if token["trained"] else IGNORED for token in row["tokens"]),
        )
        for row in shown
    }
    assert first_batch(job, tmp_path) == expected
    for row in shown:
        assert row["n_tokens"] == len(row["tokens"]) <= 160
        assert row["truncated"] == (row["n_tokens_full"] > row["n_tokens"])
        assert row["n_trained"] == sum(token["trained"] for token in row["tokens"]) > 0
        text = "".join(token["text"] for token in row["tokens"])
        assert row["text"].startswith(text) and (row["truncated"] or row["text"] == text)
    assert shown[-1]["truncated"]


LEARNED = {
    "chatml": ["Blue, naïve café.<|im_end|>", "<think>\nNot blue.\n</think>\n\nGreen.<|im_end|>"],
    "llama3": ["Blue, naïve café.<|eot_id|>", "<think>\nNot blue.\n</think>\n\nGreen.<|eot_id|>"],
    "mistral": [" Blue, naïve café.</s>", " <think>\nNot blue.\n</think>\n\nGreen.</s>"],
    "gemma": ["Blue, naïve café.<end_of_turn>",
              "<think>\nNot blue.\n</think>\n\nGreen.<end_of_turn>"],
    "phi": ["Blue, naïve café.<|end|>", "<think>\nNot blue.\n</think>\n\nGreen.<|end|>\n</s>"],
    "qwen": ["Blue, naïve café.<|im_end|>", "<think>\nNot blue.\n</think>\n\nGreen.<|im_end|>"],
    "deepseek": ["Blue, naïve café.<｜end▁of▁sentence｜>", "\n\nGreen.<｜end▁of▁sentence｜>"],
    "command": ["Blue, naïve café.<|END_OF_TURN_TOKEN|>",
                "<think>\nNot blue.\n</think>\n\nGreen.<|END_OF_TURN_TOKEN|>"],
    "base": [" Blue, naïve café.</s>", " <think>\nNot blue.\n</think>\n\nGreen.</s>"],
}  # fmt: skip


@pytest.mark.parametrize("family", [*FAMILIES, "base"])
def test_every_answer_is_learned_from_its_first_word_to_its_end_token(
    family: str, tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    from training_backend.models.tokenizer import load_tokenizer

    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps(ROWS[1]), encoding="utf-8")
    job = job_for(tiny_model(family), data)

    (row,) = preview(job, load_tokenizer(job.model.id), 1)["rows"]

    assert learned(row) == LEARNED[family]


@pytest.mark.parametrize("loss_on", ["last_answer", "everything"])
def test_loss_on_decides_what_is_learned(
    loss_on: str, tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    from training_backend.models.tokenizer import load_tokenizer

    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in ROWS[1:3]), encoding="utf-8")
    job = job_for(tiny_model("chatml"), data, loss_on=loss_on)

    plain, weighted = preview(job, load_tokenizer(job.model.id), 2)["rows"]

    if loss_on == "last_answer":
        assert learned(plain) == ["<think>\nNot blue.\n</think>\n\nGreen.<|im_end|>"]
        assert learned(weighted) == ["<think>\n3 + 3 = 6\n</think>\n\n6.<|im_end|>"]
    else:
        assert plain["n_trained"] == plain["n_tokens"]
        assert [part for part in ("2 and 2", "4.") if part in "".join(learned(weighted))] == [
            "2 and 2"
        ]


def learned(row: dict[str, Any]) -> list[str]:
    """The texts of runs of tokens that are learned from."""
    runs: list[str] = []
    before = False
    for token in row["tokens"]:
        if token["trained"]:
            runs = [*runs[:-1], runs[-1] + token["text"]] if before else [*runs, token["text"]]
        before = token["trained"]
    return runs
