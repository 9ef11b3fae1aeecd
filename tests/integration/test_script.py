"""The script of a job repeats its training to the last digit, in a process that knows nothing of
this program."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_preference import PAIRS
from training_backend import runs
from training_backend.job import parse_job
from training_backend.models import adapters

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
ENDS_EARLY = {
    "evaluation": {"held_out_fraction": 0.2, "eval_steps": 1, "early_stopping_patience": 2},
}

JOBS: dict[str, dict[str, Any]] = {
    "QLoRA by epochs, tested": {
        **HELD_OUT,
        "training": {"max_steps": -1, "num_train_epochs": 2.0, "gradient_accumulation_steps": 3},
        "lora": {"lora_dropout": 0.1},
    },
    "FP4, LoRA+, rows of like length, norms in full, ended early": {
        **ENDS_EARLY,
        "quantization": {
            "bnb_4bit_quant_type": "fp4",
            "bnb_4bit_use_double_quant": False,
            "bnb_4bit_compute_dtype": "float32",
        },
        "lora": {"loraplus_lr_ratio": 8.0, "modules_to_save": ["norm"]},
        "training": {
            "train_sampling_strategy": "group_by_length",
            "weight_decay": 0.01,
            "learning_rate": 0.3,
            "max_steps": 9,
        },
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
    "no padding, tested": {
        **IN_16_BIT,
        **HELD_OUT,
        "training": {"padding_free": True, "gradient_accumulation_steps": 2},
    },
    "every weight, ended early": {
        **IN_16_BIT,
        **ENDS_EARLY,
        "training": {
            "method": "full",
            "activation_checkpointing": False,
            "seed": 7,
            "learning_rate": 0.5,
            "max_steps": 9,
        },
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

    from training_backend.job import parse_job
    from training_backend.models.base_files import base_folder
    from training_backend.models.tokenizer import load_tokenizer
    from training_backend.script import folder

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
        if job.get("evaluation", {}).get("early_stopping_patience"):
            assert (
                done.terminal.early_stopped_after and done.terminal.best_step < done.terminal.step
            )
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


def test_with_fast_paths_the_script_agrees_to_rounding_and_says_so(
    backend: Any, do: Any, run_script: Any, job_document: Any, tmp_path: Path
) -> None:
    job = job_document(training={**TRAINING, "fast_paths": True}, **IN_16_BIT)
    done = do(job)
    backend(write_script, job, tmp_path / "script")
    run_script(tmp_path / "script" / "train.py")
    for ours, theirs in zip(_by_worker(done), _by_script(tmp_path / "script"), strict=True):
        assert ours[:2] == theirs[:2] and ours[2:] == pytest.approx(theirs[2:], rel=1e-2)
    assert "agree to rounding" in (tmp_path / "script" / "README.md").read_text()


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


def script_texts(jobs: list[dict[str, Any]], name: str, start: dict[str, Any]) -> list[str]:
    """Scripts of a model of this name; where the job goes on from an adapter, from this one."""
    from pathlib import Path

    from training_backend.job import parse_job
    from training_backend.models.adapters import Adapter
    from training_backend.script.base import Base
    from training_backend.script.text import script_text

    texts = []
    for number, document in enumerate(jobs):
        job = parse_job(document)
        adapter = Adapter(Path("x"), name, start, None) if job.model.adapter else None
        base = Base(name, name, "sdpa", [name] * 6, "float32", adapter)
        texts.append(script_text(job, base, evaluates=bool(number % 2)))
    return texts


def test_scripts_are_tidy_and_whatever_a_name_holds_stays_a_text(
    backend: Any, job_document: Any, tmp_path: Path
) -> None:
    hostile = 'x"""\n"); import os; os.system("touch me")  # \\" \'\'\' {HERE}'
    start = {"r": 4, "lora_alpha": 8, "target_modules": [hostile], "rank_pattern": {hostile: 2}}
    more = [
        {"model": {"adapter": "somewhere"}},
        {"lora": {"init_lora_weights": "olora", "use_rslora": True}, **IN_16_BIT},
        {"lora": {"layers_to_transform": list(range(4, 30)), "modules_to_save": [hostile] * 3}},
        {"training": {"objective": "dpo", "torch_compile": True}},
    ]
    jobs = [
        {**job_document(**sections), "name": hostile}
        for sections in [*JOBS.values(), *more]
        for _ in range(2)
    ]
    texts = backend(script_texts, jobs, hostile, start)
    for number, text in enumerate(texts):
        (tmp_path / f"script_{number}.py").write_text(text, encoding="utf-8")
        tree = ast.parse(text)
        called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not called & {"os.system", "exec", "eval"} and "trainer.train" in called
        texts_in_it = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        assert hostile in texts_in_it
    ruff = [sys.executable, "-m", "ruff"]
    rules = ["--isolated", "--line-length=100", "--no-cache"]
    check = ["check", "--select=E4,E7,E9,F,I,B,UP,C4,SIM"]
    subprocess.run([*ruff, *check, *rules, str(tmp_path)], check=True)
    subprocess.run([*ruff, "format", "--check", *rules, str(tmp_path)], check=True)


def write_on_a_full_disk(job: dict[str, Any], out: str) -> str:
    """As it is when the rows no longer fit; returns what the person reads."""
    import errno
    import os
    from unittest import mock

    from training_backend import helper
    from training_backend.errors import UserError
    from training_backend.script import folder

    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    request = helper.Request({"id": 1, "kind": "script", "job": job, "out": out}, lambda _: None)
    with mock.patch.object(folder, "_write_rows", side_effect=full):
        try:
            helper.HANDLERS["script"](request, helper.Tokenizers())
        except UserError as error:
            return str(error)
    return "nothing"


def test_a_full_disk_is_told_and_leaves_nothing_half_written(
    backend: Any, job_document: Any, tmp_path: Path
) -> None:
    before = set(tmp_path.iterdir())
    told = backend(write_on_a_full_disk, job_document(), tmp_path / "out")
    assert "no room left" in told and set(tmp_path.iterdir()) - before <= {tmp_path / "rows.jsonl"}


def script_of_cached_model(cache: str, job: dict[str, Any]) -> str:
    import os
    from unittest import mock

    from training_backend.job import parse_job
    from training_backend.script import folder

    with mock.patch.dict(os.environ, HF_HUB_CACHE=cache):
        return folder.show(parse_job(job))


def test_a_model_of_the_hub_is_named_by_its_commit(
    backend: Any, job_document: Any, tiny_model: Path, tmp_path: Path
) -> None:
    commit, repository = "0123456789" * 4, tmp_path / "hub" / "models--owner--tiny"
    shutil.copytree(tiny_model, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    for name in ("owner/tiny", str(repository / "snapshots" / commit)):
        text = backend(script_of_cached_model, tmp_path / "hub", job_document(model={"id": name}))
        assert 'MODEL = "owner/tiny"\n' in text and f'REVISION = "{commit}"\n' in text
        assert "revision=REVISION" in text and str(tmp_path) not in text


def test_the_script_of_a_run_takes_the_base_that_it_was_trained_on(
    lorasmith_home: Path, job_document: Any
) -> None:
    run = runs.create(parse_job(job_document(model={"id": "owner/tiny"})))
    assert adapters.job_of(run).model.revision is None
    run.adapter.mkdir()
    config = {"base_model_name_or_path": "owner/tiny", "revision": "0123456789" * 4}
    (run.adapter / "adapter_config.json").write_text(json.dumps(config))
    (run.adapter / "adapter_model.safetensors").touch()
    assert adapters.job_of(run).model.revision == config["revision"]


def ask_helper(job: dict[str, Any], folder: str) -> dict[str, Any]:
    """What the window's helper answers: the text, the saved files, and after a cancel."""
    from pathlib import Path

    from training_backend import helper
    from training_backend.errors import StopRequested

    def request(**more: str) -> helper.Request:
        return helper.Request({"id": 1, "kind": "script", "job": job, **more}, lambda _: None)

    tokenizers = helper.Tokenizers()
    answer = helper.HANDLERS["script"]
    found = {**answer(request(), tokenizers)}
    found |= answer(request(out=str(Path(folder, "saved"))), tokenizers)
    cancelled = request(out=str(Path(folder, "cancelled")))
    cancelled.cancelled.set()
    try:
        answer(cancelled, tokenizers)
    except StopRequested:
        found["stopped"] = True
    return found


def test_the_helper_shows_the_script_that_it_saves_and_leaves_nothing_of_a_cancelled_one(
    backend: Any, job_document: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "scripts"
    folder.mkdir()
    job = job_document(evaluation={"held_out_fraction": 0.2})
    found = backend(ask_helper, job, folder)
    assert (folder / "saved" / "train.py").read_text(encoding="utf-8") == found["text"]
    assert "train.py" in found["files"] and found["stopped"]
    assert [path.name for path in folder.iterdir()] == ["saved"]


def test_the_command_writes_a_folder_without_secrets_or_paths_of_this_computer(
    command_line: Any, job_document: Any, tmp_path: Path, tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("HF_TOKEN", "hf_canaryCanaryCanary")
    held_out = {"evaluation": {"held_out_fraction": 0.2}}
    job = job_document(**held_out, lora={"target_modules": "attention"})
    run = runs.create(parse_job({**job, "name": 'A"""\nimport os\n"""'}))
    out = tmp_path / "a script"
    answer = command_line("script", run.id, "--out", out, "--json")
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    assert told["folder"] == str(out)
    assert told["files"] == sorted(
        path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()
    )
    assert {"data/train.parquet", "data/held_out.parquet", "tokenizer/tokenizer.json"} <= set(
        told["files"]
    )

    for name in told["files"]:
        content = (out / name).read_bytes().decode("utf-8", "replace")
        assert "lorasmith" not in content.lower() and "canary" not in content, name
        assert content.count(str(tmp_path.parents[1])) == (name == "train.py"), name
    assert f'MODEL = "{tiny_model}"' in (out / "train.py").read_text()
    requirements = (out / "requirements.txt").read_text()
    for package in ("torch", "transformers", "trl", "peft", "datasets", "bitsandbytes"):
        version = metadata.version(package).partition("+")[0]
        assert f"\n{package}=={version}\n" in requirements

    # Again: never into a folder that holds something.
    refused = command_line("script", run.id, "--out", out)
    assert refused.returncode == 1 and "is not empty" in refused.stderr


def test_a_script_of_what_is_not_there_is_refused(command_line: Any, tmp_path: Path) -> None:
    for name, words in (("none.json", "no job file"), ("no-such-run", "no run")):
        answer = command_line("script", name, "--out", tmp_path / "out")
        assert answer.returncode == 1 and words in answer.stderr
    assert not (tmp_path / "out").exists()
