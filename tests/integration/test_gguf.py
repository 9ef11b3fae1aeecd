"""GGUF files: llama.cpp and transformers load them and read and answer as the merged model does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import llama_engine
from tests.integration.test_merge import make_adapter
from training_backend import runs
from training_backend.export import gguf_tools
from training_backend.files import sha256_file
from training_backend.job import GGUF_BITS, parse_job
from training_backend.protocol import PhaseChanged

pytestmark = pytest.mark.timeout(300)

LORA = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "down_proj"]}
QUESTIONS = ("What is the capital of France?", "Name three colours.", "Write a haiku on rain.")
MOST_KL = 0.02  # nats, for q8_0


def make_quiet_adapter(base: str, folder: str, options: dict[str, Any]) -> None:
    """An adapter that changes the model and leaves it able to speak."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.06)
    model.save_pretrained(folder)


def answers_of(folder: str, questions: list[str], logits: str) -> dict[str, Any]:
    """Prompts, greedy answers, and the logits along them, of a model in 32-bit arithmetic."""
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from training_backend.export.gguf_tools import SAMPLES

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompts, ids, sequences, rows = [], [], [], []
    for question in questions:
        chat = [{"role": "user", "content": question}]
        prompts.append(
            tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        )
        ids.append(tokenizer(prompts[-1], add_special_tokens=False).input_ids)
        inputs = torch.tensor([ids[-1]])
        with torch.inference_mode():
            whole = model.generate(inputs, max_new_tokens=24, do_sample=False)
            rows.append(model(whole).logits[0].numpy())
        sequences.append(whole[0].tolist())
    np.save(logits, np.concatenate(rows))
    return {
        "prompts": prompts,
        "prompt_ids": ids,
        "text_ids": tokenizer(list(SAMPLES)).input_ids,
        "sequences": sequences,
        "template": tokenizer.chat_template,
    }


def ask_engine(file: Path, known: dict[str, Any], folder: Path) -> tuple[dict[str, Any], Any]:
    """What llama.cpp makes of it: token ids, and logits along the sequences."""
    work, logits = folder / "work.json", folder / "engine.npy"
    asked = {"texts": gguf_tools.SAMPLES, **known}
    work.write_text(json.dumps(asked), encoding="utf-8")
    answer = subprocess.run(
        [sys.executable, llama_engine.__file__, file, work, logits], capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout), np.load(logits)


def mean_kl(exact: Any, got: Any) -> float:
    """KL(exact || got) of the next token in nats, the mean over places; [places, vocabulary]."""

    def log_softmax(x: Any) -> Any:
        x = x.astype(np.float64)
        x -= x.max(axis=1, keepdims=True)
        return x - np.log(np.exp(x).sum(axis=1, keepdims=True))

    p, q = log_softmax(exact), log_softmax(got)
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def metadata(file: Path) -> dict[str, Any]:
    import gguf

    return {name: field.contents() for name, field in gguf.GGUFReader(file).fields.items()}


@pytest.fixture
def export(do: Any, tmp_path: Path) -> Callable[..., Any]:
    def exported(source: Path, out: str, **options: Any) -> Any:
        job = {"kind": "export", "run": str(source), "out": str(tmp_path / out), **options}
        return do({"format": "gguf", **job})

    return exported


@pytest.mark.slow
def test_a_q8_0_file_reads_and_answers_as_the_merged_model(
    backend: Any, demo_model_dir: Path, export: Callable[..., Any], tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    backend(make_quiet_adapter, demo_model_dir, adapter, LORA)
    done = export(adapter, "small", quantization="q8_0")
    assert done.exit_code == 0, done.terminal
    file = tmp_path / "small" / "small-Q8_0.gguf"
    assert sorted(path.name for path in file.parent.iterdir()) == ["LICENSE", file.name]
    assert export(adapter, "merged", format="safetensors").exit_code == 0
    known = backend(answers_of, tmp_path / "merged", QUESTIONS, tmp_path / "exact.npy")

    told, logits = ask_engine(file, known, tmp_path)
    assert told["texts"] == known["text_ids"]
    assert told["prompts"] == told["with_ends"] == known["prompt_ids"], "a BOS was added"
    assert metadata(file)["tokenizer.chat_template"] == known["template"]
    exact = np.load(tmp_path / "exact.npy")
    assert 0 < mean_kl(exact, logits) <= MOST_KL
    backend(answers_of, demo_model_dir, QUESTIONS[:1], tmp_path / "base.npy")
    prompt = len(known["prompt_ids"][0])
    base = np.load(tmp_path / "base.npy")[:prompt]
    assert mean_kl(base, logits[:prompt]) > 5 * MOST_KL, "the adapter changes nothing"
    text = file.read_bytes()
    assert str(tmp_path).encode() not in text and str(demo_model_dir).encode() not in text


def every_kind(model: str, folder: str) -> None:
    """Each kind of file from one model, as the export writes them."""
    from pathlib import Path

    from training_backend.export import gguf_tools

    whole = Path(folder, "auto.gguf")
    gguf_tools.convert(model, str(whole), "auto", "tiny")
    for kind in ("f16", "bf16", "q8_0"):
        gguf_tools.convert(model, str(Path(folder, f"{kind}.gguf")), kind, "tiny")
    for kind in ("q6_k", "q5_k_m", "q4_k_m"):
        gguf_tools.quantize(str(whole), str(Path(folder, f"{kind}.gguf")), kind)


def read_by_transformers(folder: str, file: str) -> list[float]:
    """How far each matrix of a GGUF file, as transformers reads it, is from the model's own."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    read = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )  # fmt: skip
    own = model.state_dict()
    assert read.state_dict().keys() == own.keys()
    return [
        float((value - own[name]).norm() / own[name].norm())
        for name, value in read.state_dict().items()
    ]


@pytest.mark.slow
def test_every_kind_of_file_is_loaded_by_llama_cpp_and_holds_the_weights(
    backend: Any, make_model: Any, tmp_path: Path
) -> None:
    # Wide enough for blocks of 256 weights.
    model = make_model(hidden_size=256, intermediate_size=512, head_dim=64)
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    backend_free = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests.integration.test_gguf import every_kind; every_kind(*sys.argv[2:])"
    )
    repository = Path(llama_engine.__file__).parent.parent
    subprocess.run(
        [sys.executable, "-c", backend_free, repository, copy, tmp_path], check=True, cwd=repository
    )
    known = backend(answers_of, copy, QUESTIONS[:1], tmp_path / "exact.npy")
    exact, weights = np.load(tmp_path / "exact.npy"), (model / "model.safetensors").stat().st_size
    kl = {}
    for kind, bits in GGUF_BITS.items():
        file = tmp_path / f"{kind}.gguf"
        assert file.stat().st_size == pytest.approx(weights * bits / 16 + 2_000_000, rel=0.25)
        told, logits = ask_engine(file, known, tmp_path)
        assert told["texts"] == known["text_ids"]
        kl[kind] = mean_kl(exact, logits)
    assert kl["bf16"] < 1e-4 and kl["f16"] < 1e-4, kl
    assert kl["q8_0"] < kl["q6_k"] < kl["q5_k_m"] < kl["q4_k_m"] < 0.1, kl
    shutil.copyfile(tmp_path / "q4_k_m.gguf", copy / "q4_k_m.gguf")
    off = backend(read_by_transformers, copy, "q4_k_m.gguf")
    assert 0.01 < max(off) < 0.12


def _unknown_family(base: Path) -> None:
    config = base / "config.json"
    known = json.loads(config.read_text())
    config.write_text(json.dumps({**known, "architectures": ["WhateverForCausalLM"]}))


def _unknown_tokenizer(base: Path) -> None:
    file = base / "tokenizer.json"
    known = json.loads(file.read_text(encoding="utf-8"))
    splits = {"add_prefix_space": True, "trim_offsets": True, "use_regex": False}
    known["pre_tokenizer"] = {"type": "ByteLevel", **splits}
    file.write_text(json.dumps(known), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(_unknown_family, "WhateverForCausalLM"), (_unknown_tokenizer, "splits a text")],
)
def test_what_cannot_be_a_gguf_file_is_refused_before_the_merge(
    backend: Any, tiny_model: Path, export: Callable[..., Any], tmp_path: Path,
    spoil: Callable[[Path], None], words: str,
) -> None:  # fmt: skip
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    backend(make_adapter, base, tmp_path / "adapter", {**LORA, "r": 4})
    spoil(base)
    done = export(tmp_path / "adapter", "out")
    assert done.exit_code == 1
    assert done.terminal.code == "gguf_refused" and done.terminal.field == "format"
    assert words in done.terminal.message
    phases = [event.phase for event in done.run.events() if isinstance(event, PhaseChanged)]
    assert "converting" in phases and "merging" not in phases
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == []


def cancel_while_converting(folder: str) -> int:
    """As `work`, with a request to stop while the converter writes the file."""
    import queue
    from pathlib import Path

    from training_backend import worker
    from training_backend.export import gguf_export
    from training_backend.runs import Run

    run, follow = Run(Path(folder)), gguf_export._progress

    def told(*arguments, **options):
        run.request("stop")
        return follow(*arguments, **options)

    gguf_export._progress = told
    try:
        return worker._work(run, queue.Queue())
    finally:
        gguf_export._progress = follow


def test_a_cancelled_conversion_leaves_nothing(
    backend: Any, tiny_model: Path, tmp_path: Path, lorasmith_home: Path
) -> None:
    backend(make_adapter, tiny_model, tmp_path / "adapter", {**LORA, "r": 4})
    out = tmp_path / "out"
    job = {"kind": "export", "format": "gguf", "run": str(tmp_path / "adapter"), "out": str(out)}
    run = runs.create(parse_job(job))
    assert backend(cancel_while_converting, run.folder) == 3
    assert run.state() == "stopped"
    assert not out.exists() and not (tmp_path / "out.partial").exists()


def test_the_converter_is_the_file_that_pypi_has() -> None:
    from importlib import resources

    file = resources.files("resources") / "gguf_converter" / gguf_tools.CONVERTER
    assert sha256_file(Path(str(file))) == gguf_tools.CONVERTER_SHA256
