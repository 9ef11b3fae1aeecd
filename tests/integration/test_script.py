"""The script of a job repeats its training to the last digit, in a process that knows nothing of
this program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_preference import PAIRS

pytestmark = pytest.mark.timeout(300)

RUNNER = """
import os, runpy, sys
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
sys.modules["training_backend"] = sys.modules["app"] = None
for line in sys.stdin:
    runpy.run_path(line.rstrip("\\n"), run_name="__main__")
    print("done", file=answers, flush=True)
"""

IN_16_BIT = {"quantization": {"load_in_4bit": False}}
HELD_OUT = {"evaluation": {"held_out_fraction": 0.2, "eval_steps": 2, "keep_best": False}}

JOBS: dict[str, dict[str, Any]] = {
    "QLoRA by epochs, tested": {
        **HELD_OUT,
        "training": {"max_steps": -1, "num_train_epochs": 2.0, "gradient_accumulation_steps": 3},
        "lora": {"lora_dropout": 0.1},
    },
    "FP4, LoRA+, rows of like length, norms in full": {
        "quantization": {
            "bnb_4bit_quant_type": "fp4",
            "bnb_4bit_use_double_quant": False,
            "bnb_4bit_compute_dtype": "float32",
        },
        "lora": {"loraplus_lr_ratio": 8.0, "modules_to_save": ["norm"]},
        "training": {"train_sampling_strategy": "group_by_length", "weight_decay": 0.01},
    },
    "DoRA, rsLoRA, noise, packed, tested": {
        **IN_16_BIT,
        **HELD_OUT,
        "lora": {"use_dora": True, "use_rslora": True, "target_modules": ["q_proj", "down_proj"]},
        "training": {"neftune_noise_alpha": 5.0, "packing": True, "optim": "adamw_8bit"},
    },
    "PiSSA on attention of one block": {
        **IN_16_BIT,
        "lora": {
            "init_lora_weights": "pissa",
            "target_modules": "attention",
            "layers_to_transform": [1],
        },
        "training": {"lr_scheduler_type": "cosine_with_min_lr", "warmup_steps": 2.0},
    },
    "every weight": {
        **IN_16_BIT,
        "training": {"method": "full", "activation_checkpointing": False, "seed": 7},
    },
}


@pytest.fixture(scope="module")
def run_script(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], None]]:
    """Runs scripts one after the other in a process that does not see our code."""
    place = tmp_path_factory.mktemp("elsewhere")
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    settings = {"OMP_NUM_THREADS": "1", "HF_HOME": str(place / "hf"), "HF_HUB_OFFLINE": "1"}
    log = place / "stderr"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", RUNNER],
            cwd=place,
            env={**kept, **settings, "HOME": str(place), "TQDM_DISABLE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            encoding="utf-8",
        )
    assert process.stdin is not None and process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def run(path: Path) -> None:
        stdin.write(f"{path}\n")
        stdin.flush()
        assert stdout.readline() == "done\n", log.read_text()[-4000:]

    with process:
        yield run
        process.kill()  # nothing is left for it to do at its exit


def write_script(job: dict[str, Any], out: str) -> list[str]:
    from pathlib import Path

    from training_backend.base_files import base_folder
    from training_backend.job import parse_job
    from training_backend.script import folder
    from training_backend.tokenizer import load_tokenizer

    job = parse_job(job)
    return folder.write(job, load_tokenizer(base_folder(job.model.id, None, None)), Path(out))


def tensors_that_differ(one: str, other: str) -> list[str]:
    """Names of tensors of which not every bit is the same."""
    import torch
    from safetensors.torch import load_file

    first, second = load_file(one), load_file(other)
    assert first and first.keys() == second.keys()
    return [
        name
        for name, value in first.items()
        if value.dtype != second[name].dtype or not torch.equal(value, second[name])
    ]


def _by_worker(done: Any) -> list[tuple[str, int, float, float | None]]:
    told: list[tuple[str, int, float, float | None]] = []
    told += [("train", e.step, e.loss, e.grad_norm) for e in done.of("MetricsLogged")]
    told += [("test", e.step, e.loss, e.reward_margin) for e in done.of("EvaluationLogged")]
    return told


def _by_script(folder: Path) -> list[tuple[str, int, float, float | None]]:
    state = json.loads((folder / "checkpoints" / "trainer_state.json").read_text())
    told: list[tuple[str, int, float, float | None]] = []
    for entry in state["log_history"]:
        if "loss" in entry:
            told.append(("train", entry["step"], entry["loss"], entry["grad_norm"]))
    for entry in state["log_history"]:
        if "eval_loss" in entry:
            margin = entry.get("eval_rewards/margins")
            told.append(("test", entry["step"], entry["eval_loss"], margin))
    return told


Repeat = Callable[..., Path]


@pytest.fixture
def repeat(backend: Any, do: Any, run_script: Any, tmp_path: Path) -> Repeat:
    """Trains, writes the script, runs it and compares; returns the script's folder."""

    def repeated(job: dict[str, Any]) -> Path:
        done = do(job)
        assert done.exit_code == 0, done.terminal
        out = tmp_path / "script"
        backend(write_script, job, out)
        run_script(out / "train.py")
        expected = _by_worker(done)
        assert len(expected) >= 4 and _by_script(out) == expected
        full = job["training"].get("method") == "full"
        file = "model/model.safetensors" if full else "adapter/adapter_model.safetensors"
        assert backend(tensors_that_differ, done.run.folder / file, out / file) == []
        return out

    return repeated


TRAINING = {"learning_rate": 0.01, "fast_paths": False, "max_steps": 4}


@pytest.mark.parametrize("name", JOBS)
def test_the_script_repeats_the_training_to_the_last_digit(
    repeat: Repeat, job_document: Any, name: str
) -> None:
    sections = JOBS[name]
    repeat(job_document(**{**sections, "training": {**TRAINING, **sections["training"]}}))


def test_the_script_repeats_preference_tuning(
    repeat: Repeat, job_document: Any, write_rows: Any
) -> None:
    training = {**TRAINING, "objective": "dpo", "beta": 0.2, "gradient_accumulation_steps": 2}
    write_rows(PAIRS)
    repeat(job_document(training=training, **HELD_OUT))


def test_the_script_goes_on_from_the_same_adapter(
    repeat: Repeat, do: Any, job_document: Any
) -> None:
    first = do(job_document(lora={"use_rslora": True}, training={**TRAINING, "max_steps": 2}))
    sections = {"model": {"adapter": str(first.run.adapter)}, "lora": {"use_rslora": True}}
    out = repeat(job_document(**sections, training=TRAINING))
    text = (out / "train.py").read_text()
    assert str(first.run.folder) not in text and str(first.run.adapter) not in text
    assert [path.name for path in (out / "start").iterdir()] == ["adapter_model.safetensors"]
