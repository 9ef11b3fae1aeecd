"""Model folders made to do harm: what they ask for is left out, and training is as without it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
IN_16_BIT = {"load_in_4bit": False}
TOUCH = "import pathlib; pathlib.Path({marker!r}).touch()\n"


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "model")


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """What planted code would make."""
    return tmp_path / "executed"


def change(path: Path, **values: Any) -> None:
    document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**document, **values}), encoding="utf-8")


def losses(done: Any) -> list[float]:
    return [event.loss for event in done.of("MetricsLogged")]


@pytest.fixture
def undisturbed(do: Any, job_document: Any, tiny_model: Path) -> list[float]:
    """The losses of the model as it is."""
    return losses(do(job_document(model={"id": str(tiny_model)})))


def plant_code(folder: Path, name: str, marker: Path) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        TOUCH.format(marker=str(marker))
        + "def generate(*a, **k): raise SystemExit\nclass Evil:\n    pass\n",
        encoding="utf-8",
    )


def test_what_a_configuration_asks_for_beside_its_model_changes_nothing(
    do: Any, job_document: Any, folder: Path, tmp_path: Path, marker: Path,
    undisturbed: list[float],
) -> None:  # fmt: skip
    for name in ("evil.py", "custom_generate/generate.py", "pipeline.py"):
        plant_code(folder, name, marker)
    (tmp_path / "other.safetensors").write_bytes(b"not looked at")
    change(
        folder / "config.json",
        auto_map={"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.Evil"},
        custom_pipelines={"text-generation": {"impl": "pipeline.Evil", "pt": ["AutoModel"]}},
        attn_implementation={"": "somebody/kernel"},
        _attn_implementation_internal="somebody/kernel",
        use_kernels=True,
        kernel_config={"kernel_mapping": {"RMSNorm": "somebody/kernel:Evil"}},
        quantization_config={},
        transformers_weights="other.safetensors",
        parts=[{"auto_map": {"AutoConfig": "evil.Evil"}}],
        tie_encoder_decoder=True,
    )
    change(
        folder / "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]},
        tokenizer_file="/etc/passwd",
        vocab_file=str(tmp_path / "other.safetensors"),
    )
    change(folder / "processor_config.json", auto_map={"AutoProcessor": "evil.Evil"})
    done = do(job_document(model={"id": str(folder)}))
    assert done.exit_code == 0, done.terminal
    assert losses(done) == undisturbed
    assert not marker.exists()


def test_an_adapter_that_lies_in_a_models_folder_is_not_put_on_it(
    do: Any, job_document: Any, folder: Path, tiny_model: Path
) -> None:
    first = do(job_document(training={"learning_rate": 0.1}))  # it changes what the model says
    for file in first.run.adapter.glob("adapter_*"):
        shutil.copy(file, folder)
    change(
        folder / "adapter_config.json",
        base_model_name_or_path="somebody/evil",
        auto_mapping={"base_model_class": "Evil", "parent_library": "antigravity"},
    )
    full = {"method": "full"}
    alone, beside = (
        do(job_document(model={"id": str(model)}, training=full, quantization=IN_16_BIT))
        for model in (tiny_model, folder)
    )
    assert alone.exit_code == beside.exit_code == 0, beside.terminal
    assert losses(beside) == losses(alone)


def test_how_a_model_says_that_it_picks_words_cannot_stop_or_fill_a_run(
    do: Any, job_document: Any, folder: Path, marker: Path
) -> None:
    plant_code(folder, "custom_generate/generate.py", marker)
    change(
        folder / "generation_config.json",
        num_beams=100_000, num_return_sequences=100_000, penalty_alpha=0.6, top_k=4,
        max_length=10**9, min_length=10**9, custom_generate="somebody/evil", use_cache=False,
        cache_implementation="offloaded", prompt_lookup_num_tokens=10, guidance_scale=4.0,
        stop_strings=["a"], forced_bos_token_id=5, bad_words_ids=[[1]], temperature=0.6,
        watermarking_config={"bias": 2.5}, trust_remote_code=True,
    )  # fmt: skip
    job = job_document(
        model={"id": str(folder)}, evaluation={"prompts": ["Hi"], "max_new_tokens": 4}
    )
    done = do(job)
    assert done.exit_code == 0, done.terminal
    assert not done.of("WarningRaised")
    assert len(done.of("SampleGenerated")) >= 2
    assert not marker.exists()


@pytest.mark.parametrize(
    "kind",
    ["AutoModelForCausalLM", "AutoProcessor", "AutoTokenizer", "pipeline", "LlamaForCausalLM", 3],
)
def test_a_tokenizer_that_is_none_is_refused(
    do: Any, job_document: Any, folder: Path, marker: Path, kind: object
) -> None:
    plant_code(folder, "evil.py", marker)
    change(folder / "tokenizer_config.json", tokenizer_class=kind)
    for name in ("preprocessor_config.json", "processor_config.json"):
        change(folder / name, auto_map={"AutoProcessor": "evil.Evil"}, processor_class="Evil")
    done = do(job_document(model={"id": str(folder)}))
    assert done.terminal.code == "tokenizer_of_no_kind" and done.terminal.field == "model.id"
    assert str(kind) in done.sentence
    assert not marker.exists()


def test_a_chat_template_that_traps_a_certain_row_ends_the_run_with_its_name(
    do: Any, backend: Any, job_document: Any, folder: Path, write_rows: Callable[..., Path]
) -> None:
    trap = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
        "{% if 'trap' in m.content %}{% for a in range(99999) %}{% for b in range(99999) %}"
        "{% endfor %}{% endfor %}{% endif %}{% endfor %}"
    )
    (folder / "chat_template.jinja").write_text(trap, encoding="utf-8")
    rows = [{"prompt": f"What is {n}?", "completion": "A number."} for n in range(5)]
    data = write_rows([*rows, {"prompt": "Is it a trap?", "completion": "Yes."}])
    backend(hurry, 1.0)
    try:
        done = do(job_document(model={"id": str(folder)}, dataset={"path": str(data)}))
    finally:
        backend(hurry, 20.0)
    assert done.terminal.code == "template_refused", done.terminal
    assert "does not come to an end" in done.sentence and done.terminal.field == "model.id"


def hurry(seconds: float) -> None:
    from training_backend.data import safe_template

    safe_template.MAX_SECONDS = seconds


@pytest.mark.parametrize(
    "key", ["num_hidden_layers", "hidden_size", "vocab_size", "num_local_experts"]
)
def test_a_size_beyond_all_measure_is_refused_before_anything_is_built(
    do: Any, job_document: Any, folder: Path, key: str
) -> None:
    change(folder / "config.json", **{key: 10**9})
    done = do(job_document(model={"id": str(folder)}))
    assert done.terminal.code == "model_config_wild" and done.terminal.field == "model.id"
    assert f"{key} = 1000000000" in done.sentence


@pytest.mark.parametrize("name", ["../outside.safetensors", "inside.bin", "..\\o.safetensors"])
def test_an_index_names_safetensors_of_its_own_folder_or_nothing_is_loaded(
    do: Any, job_document: Any, folder: Path, name: str
) -> None:
    weights = folder / "model.safetensors"
    shutil.copy(weights, folder.parent / "outside.safetensors")
    shutil.copy(weights, folder / "outside.safetensors")  # what the check of names would find
    weights.rename(folder / "inside.bin")
    index = {"weight_map": {"model.embed_tokens.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    done = do(job_document(model={"id": str(folder)}))
    assert done.terminal.code == "model_weights_missing" and done.terminal.field == "model.id"


FETCHES_CODE = """
import importlib.util, sys
assert importlib.util.find_spec("kernels") is not None  # it is there to be found
from training_backend.lifecycle import child_process
child_process.set_environment()
import bitsandbytes, transformers, peft
from bitsandbytes.backends.cpu import ops
from transformers.integrations import hub_kernels
from transformers.utils import is_kernels_available
assert not is_kernels_available() and not hub_kernels._kernels_enabled
assert sys.modules["kernels"] is None
"""


def test_the_package_that_fetches_code_from_the_hub_is_never_loaded(
    tmp_path: Path, marker: Path
) -> None:
    lock = (REPOSITORY / "packaging" / "requirements" / "runtime.txt").read_text()
    assert not any(line.startswith("kernels==") for line in lock.splitlines())
    package = tmp_path / "installed" / "kernels"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(TOUCH.format(marker=str(marker)), encoding="utf-8")
    about = package.with_name("kernels-0.12.0.dist-info")
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: kernels\nVersion: 0.12.0\n")
    ended = subprocess.run(
        [sys.executable, "-c", FETCHES_CODE],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(package.parent)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert not marker.exists()
