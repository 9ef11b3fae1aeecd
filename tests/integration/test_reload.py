"""A finished adapter means the same to plain PEFT, in a process that knows nothing of us."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LOADER = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

told = []
for base, adapter, in_4bit, rows in json.loads(sys.argv[1]):
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    model = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=torch.bfloat16,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        ) if in_4bit else None,
    )
    # Without dropout this changes no number; in eval mode bitsandbytes fails on some processors.
    model = PeftModel.from_pretrained(model, adapter).train()
    losses = []
    for adapted in (True, False):
        total = count = 0.0
        for question, answer in rows:
            prompt = [{"role": "user", "content": question}]
            whole = [*prompt, {"role": "assistant", "content": answer}]
            begin = len(tokenizer.apply_chat_template(
                prompt, add_generation_prompt=True, return_dict=True)["input_ids"])
            ids = tokenizer.apply_chat_template(whole, return_dict=True)["input_ids"]
            end = len(ids) - ids[::-1].index(tokenizer.eos_token_id)
            ids = torch.tensor([ids[:end]])
            with torch.no_grad():
                if adapted:
                    logits = model(input_ids=ids).logits
                else:
                    with model.disable_adapter():
                        logits = model(input_ids=ids).logits
            told_of = torch.nn.functional.cross_entropy(
                logits[0, begin - 1 : end - 1].float(), ids[0, begin:end], reduction="sum")
            total, count = total + float(told_of), count + end - begin
        losses.append(total / count)
    told.append(losses)
print(json.dumps([told, any(name.startswith("training_backend") for name in sys.modules)]))
"""


def test_a_fresh_process_gets_the_loss_that_the_training_ended_with(
    do: Any, job_document: Any, tiny_model: Path, write_rows: Any, tmp_path: Path
) -> None:
    rows = [(f"What is {n}?", f"It is {n}, I think.") for n in range(4)]
    held_out = tmp_path / "held_out.jsonl"
    write_rows([{"prompt": q, "completion": a} for q, a in rows]).rename(held_out)
    write_rows([{"prompt": f"And {n}?", "completion": f"It is {n}, sure."} for n in range(16)])
    ended, asked = [], []
    for in_4bit in (True, False):
        done = do(job_document(
            dataset={"held_out_path": str(held_out)},
            lora={"r": 8, "use_dora": not in_4bit},
            quantization={"load_in_4bit": in_4bit},
            training={"max_steps": 4, "learning_rate": 0.02},
            evaluation={"eval_steps": 4, "keep_best": False},
        ))  # fmt: skip
        assert done.exit_code == 0
        ended.append(done.of("EvaluationLogged")[-1].loss)
        asked.append([str(tiny_model), str(done.run.adapter), in_4bit, rows])
    answer = subprocess.run(
        [sys.executable, "-c", LOADER, json.dumps(asked)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
    )
    assert answer.returncode == 0, answer.stderr
    told, knows_us = json.loads(answer.stdout.splitlines()[-1])
    assert not knows_us
    for (adapted, without), loss in zip(told, ended, strict=True):
        assert adapted == pytest.approx(loss, abs=0.02)
        assert abs(without - loss) > 0.1  # the adapter is what makes the difference
