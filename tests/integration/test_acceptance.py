"""The main job, end to end, on the real demo model and data, as issue 2 asks for it."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from training_backend.protocol import parse_event

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

REPOSITORY = Path(__file__).parents[2]
STEPS = 20
JOB = {
    "version": 1,
    "name": "acceptance",
    "model": {"id": "demo"},
    "dataset": {"path": "demo"},
    "lora": {"r": 8, "lora_alpha": 16},
    "training": {
        "max_steps": STEPS,
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "max_length": 128,
        "activation_checkpointing": False,
    },
}


@dataclass
class Acceptance:
    """What is left after `train`, `export` and `export --format adapter`."""

    folder: Path
    home: Path
    model: Path
    run: Path
    train: subprocess.CompletedProcess[str]
    merged: Path
    adapter: Path


@pytest.fixture(scope="module")
def done(demo_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Acceptance:
    folder = tmp_path_factory.mktemp("acceptance")
    home = folder / "home"
    (home / "models").mkdir(parents=True)
    (home / "models" / demo_model_dir.name).symlink_to(demo_model_dir, target_is_directory=True)
    (folder / "job.json").write_text(json.dumps(JOB), encoding="utf-8")

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "training_backend", *map(str, arguments)],
            cwd=REPOSITORY,
            env={**os.environ, "LORASMITH_HOME": str(home)},
            capture_output=True,
            encoding="utf-8",
        )

    train = call("train", folder / "job.json")
    run = Path(train.stdout.splitlines()[-1]) if train.stdout else folder
    merged, adapter = folder / "merged", folder / "adapter"
    for format, out in (("safetensors", merged), ("adapter", adapter)):
        answer = call("export", run, "--format", format, "--no-verify", "--out", out)
        assert answer.returncode == 0, answer.stderr
        assert answer.stdout.splitlines()[-1] == str(out)
    return Acceptance(folder, home, demo_model_dir, run, train, merged, adapter)


def test_train_succeeds_and_its_last_line_is_the_run_folder(done: Acceptance) -> None:
    assert done.train.returncode == 0, done.train.stderr
    assert done.run.is_dir() and done.run.parent == done.home / "runs"
    assert (done.run / "adapter" / "adapter_model.safetensors").is_file()


def test_the_journal_tells_the_whole_run(done: Acceptance) -> None:
    lines = (done.run / "events.jsonl").read_text("utf-8").splitlines()
    events: list[Any] = [parse_event(line) for line in lines]
    assert [event.seq for event in events] == list(range(len(events)))
    assert events[0].type == "RunStarted" and events[-1].type == "RunCompleted"
    assert sum(event.type in ("RunStarted", "RunCompleted") for event in events) == 2
    metrics = [event for event in events if event.type == "MetricsLogged"]
    assert [event.step for event in metrics] == list(range(1, STEPS + 1))
    assert all(math.isfinite(event.loss) and event.loss > 0 for event in metrics)
    assert all(math.isfinite(event.grad_norm) for event in metrics)
    sampled = [event.elapsed for event in events if event.type == "MemorySampled"]
    # Once a second; other work on the same cores may hold one up.
    times = [events[0].elapsed, *sampled, events[-1].elapsed]
    assert max(b - a for a, b in itertools.pairwise(times)) < 5
    memory = [event for event in events if event.type == "MemorySampled"]
    assert all(0 < e.process_bytes < e.device_total_bytes for e in memory)
    trained = next(e for e in events if getattr(e, "trainable_parameters", None))
    assert trained.total_parameters - trained.trainable_parameters == 134_515_008


# ------------------------------------------------------------------ with plain transformers, peft


def losses(folder: str, base: str, rows: list[Any]) -> dict[str, Any]:
    """The mean loss on the rows' answers with and without the adapter, in plain PEFT."""
    import json
    import warnings

    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(model, folder)
    loaded = dict(model.named_parameters())
    used = [
        torch.equal(loaded[name.replace(".weight", ".default.weight")], tensor)
        for name, tensor in load_file(f"{folder}/adapter_model.safetensors").items()
    ]
    here = [name for name in loaded if "lora_" in name]

    @torch.no_grad()
    def mean() -> float:
        total = tokens = 0.0
        for row in rows:
            messages = row["messages"][:2]
            prompt = tokenizer.apply_chat_template(
                messages[:1], add_generation_prompt=True, return_dict=True
            )["input_ids"]
            ids = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
            ids = torch.tensor([ids[:128]])
            labels = ids.clone()
            labels[0, : len(prompt)] = -100
            count = int((labels != -100).sum())
            total += float(model(input_ids=ids, labels=labels).loss) * count
            tokens += count
        return total / tokens

    with_adapter = mean()
    with model.disable_adapter():
        without = mean()
    return {
        "with": with_adapter,
        "without": without,
        "used": used,
        "here": len(here),
        "told": [str(warning.message) for warning in told],
        "config": json.loads(open(f"{folder}/adapter_config.json").read()),
    }


@pytest.mark.parametrize("which", ["the run's", "the exported"])
def test_plain_peft_loads_the_adapter_and_the_trained_rows_cost_less_with_it(
    done: Acceptance, backend: Callable[..., Any], which: str
) -> None:
    data = REPOSITORY / "resources" / "demo" / "support.jsonl"
    rows = [json.loads(line) for line in data.read_text("utf-8").splitlines()][::20]
    folder = done.adapter if which == "the exported" else done.run / "adapter"
    found = backend(losses, folder, done.model, rows)
    assert found["with"] < found["without"] - 0.2
    assert all(found["used"]) and len(found["used"]) == found["here"] == 30 * 7 * 2
    assert not [text for text in found["told"] if "missing" in text or "unexpected" in text]


def compare(base: str, adapter: str, merged: str) -> dict[str, Any]:
    """Each merged tensor against base + adapter in float64, rounded once; and the others."""
    import json
    from pathlib import Path

    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = json.loads((Path(adapter) / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / config["r"]
    wrong, adapted, same = [], 0, 0
    before, update, after = (
        load_file(path)
        for path in (
            f"{base}/model.safetensors",
            f"{adapter}/adapter_model.safetensors",
            f"{merged}/model.safetensors",
        )
    )
    assert list(before) == list(after)
    unused = set(update)
    for name in before:
        old, new = before[name], after[name]
        assert old.dtype == new.dtype == torch.bfloat16
        stem = "base_model.model." + name.removesuffix(".weight")
        if f"{stem}.lora_A.weight" not in unused:
            same += 1
            if not torch.equal(old.view(torch.int16), new.view(torch.int16)):
                wrong.append(name)
            continue
        adapted += 1
        a, b = (update[f"{stem}.lora_{x}.weight"].double() for x in "AB")
        unused -= {f"{stem}.lora_A.weight", f"{stem}.lora_B.weight"}
        exact = old.double() + scale * (b @ a)
        # Half the distance between neighbours of the result's magnitude: 8 bits of mantissa.
        step = torch.exp2(torch.floor(torch.log2(exact.abs().clamp(min=2.0**-126))) - 7)
        # (torch rounds to float32 on the way: that may turn a tie.)
        if not ((new.double() - exact).abs() <= step * 0.5001).all():
            wrong.append(name)
        if torch.equal(old, new):
            wrong.append(f"{name} is as it was")
    model = AutoModelForCausalLM.from_pretrained(merged)
    tokenizer = AutoTokenizer.from_pretrained(merged)
    return {
        "wrong": wrong,
        "adapted": adapted,
        "same": same,
        "unused": sorted(unused),
        "dtype": str(model.dtype),
        "template": bool(tokenizer.chat_template),
        "end": tokenizer.eos_token,
    }


def test_the_merged_weights_are_base_and_adapter_rounded_once(
    done: Acceptance, backend: Callable[..., Any]
) -> None:
    found = backend(compare, done.model, done.run / "adapter", done.merged)
    assert found == {
        "wrong": [],
        "adapted": 30 * 7,
        "same": 30 * 2 + 2,
        "unused": [],
        "dtype": "torch.bfloat16",
        "template": True,
        "end": "<|im_end|>",
    }


def divergence(base: str, adapter: str, merged: str, prompts: list[str]) -> list[float]:
    """Mean KL(base + adapter || merged) along the former's own greedy answers."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(merged)
    one = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    one = PeftModel.from_pretrained(one, adapter).eval()
    two = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.bfloat16).eval()
    found = []
    for prompt in prompts:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True, return_tensors="pt", return_dict=True,
        )["input_ids"]  # fmt: skip
        with torch.no_grad():
            whole = one.generate(input_ids=ids, max_new_tokens=24, do_sample=False)
            p, q = (
                torch.log_softmax(
                    model(input_ids=whole).logits[0, ids.shape[1] - 1 : -1].double(), -1
                )
                for model in (one, two)
            )
        found.append(float((p.exp() * (p - q)).sum(-1).mean()))
    return found


def test_the_merged_model_answers_as_base_and_adapter(
    done: Acceptance, backend: Callable[..., Any]
) -> None:
    prompts = [
        "My chain keeps slipping. What should I do?",
        "What is the capital of France?",
        "Can I return a helmet?",
        "Write a haiku about rain.",
    ]
    found = backend(divergence, done.model, done.run / "adapter", done.merged, prompts)
    assert sum(found) / len(found) < 0.02
    assert min(found) >= 0


# ---------------------------------------------------------------------------- what it gives away


def test_nothing_in_an_exported_folder_names_this_machine(done: Acceptance) -> None:
    secrets = {
        str(place)
        for place in (
            done.folder, done.home, done.model, done.model.resolve(), done.run, REPOSITORY,
            Path.home(), Path(sys.prefix), os.environ.get("USER", "no-such-user-name"),
        )
    } - {"/", "root"}  # fmt: skip
    for out in (done.merged, done.adapter):
        files = [path for path in out.rglob("*") if path.is_file()]
        assert {"tokenizer.json", "tokenizer_config.json"} < {path.name for path in files}
        for path in files:
            data = path.read_bytes()
            if path.suffix == ".safetensors":  # its head is JSON too
                data = data[8 : 8 + int.from_bytes(data[:8], "little")]
            # JSON may write a slash as \/ and a letter as \u0061.
            errors = "replace" if path.suffix == ".png" else "strict"
            texts = [data.decode("utf-8", errors).replace("\\/", "/")]
            if path.suffix == ".json":
                texts.append("\n".join(_strings(json.loads(data))))
            for secret in secrets:
                assert not any(secret in text for text in texts), (path, secret)


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for one in pair for text in _strings(one)]
    if isinstance(value, list):
        return [text for one in value for text in _strings(one)]
    return [value] if isinstance(value, str) else []


def test_the_exported_folders_hold_what_others_need_and_nothing_more(done: Acceptance) -> None:
    tokenizer = {"chat_template.jinja", "tokenizer.json", "tokenizer_config.json"}
    papers = {"LICENSE", "README.md", "loss.png"}
    assert {path.name for path in done.adapter.iterdir()} == tokenizer | papers | {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert {path.name for path in done.merged.iterdir()} == tokenizer | papers | {
        "config.json",
        "generation_config.json",
        "model.safetensors",
    }
    assert not list(done.folder.glob("*.partial"))
    # The vocabulary is the base model's to the byte.
    vocabulary = (done.model / "tokenizer.json").read_bytes()
    assert json.loads((done.merged / "tokenizer.json").read_bytes()) == json.loads(vocabulary)
