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

from tests import go_template, llama_engine
from tests.integration.test_merge import make_adapter
from training_backend import runs
from training_backend.data.safe_template import render_here
from training_backend.export import gguf_tools
from training_backend.files import sha256_file
from training_backend.job import GGUF_BITS, parse_job
from training_backend.protocol import PhaseChanged

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
    assert sorted(path.name for path in file.parent.iterdir()) == [
        "LICENSE", "Modelfile", "README.md", file.name
    ]  # fmt: skip
    assert export(adapter, "merged", format="safetensors").exit_code == 0
    known = backend(answers_of, tmp_path / "merged", QUESTIONS, tmp_path / "exact.npy")

    told, logits = ask_engine(file, known, tmp_path)
    assert told["texts"] == known["text_ids"]
    assert told["prompts"] == known["prompt_ids"] and not told["adds_bos"]
    assert metadata(file)["tokenizer.chat_template"] == known["template"]
    exact = np.load(tmp_path / "exact.npy")
    assert 0 < mean_kl(exact, logits) <= MOST_KL
    backend(answers_of, demo_model_dir, QUESTIONS[:1], tmp_path / "base.npy")
    prompt = len(known["prompt_ids"][0])
    base = np.load(tmp_path / "base.npy")[:prompt]
    assert mean_kl(base, logits[:prompt]) > 5 * MOST_KL, "the adapter changes nothing"
    modelfile = file.with_name("Modelfile").read_text("utf-8")
    asked = [{"role": "user", "content": "Why?"}]
    own = render_here(known["template"], {}, {"messages": asked, "add_generation_prompt": True})
    turns = {"Messages": [{"Role": "user", "Content": "Why?"}]}
    assert go_template.render(modelfile.split('"""')[1], turns) == own.text
    assert 'PARAMETER stop "<|im_end|>"' in modelfile
    text = file.read_bytes() + modelfile.encode()
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


def in_new_process(function: str, *arguments: Any, module: str = __name__) -> None:
    """The converter brings its own `gguf`, which must come before the installed one."""
    code = f"import sys; from {module} import {function} as work\n"
    code += "work(*sys.argv[1:])"
    repository = Path(llama_engine.__file__).parent.parent
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True, cwd=repository)


@pytest.fixture(scope="module")
def wide(make_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model wide enough for blocks of 256 weights, and every kind of file of it beside it."""
    folder = tmp_path_factory.mktemp("kinds")
    model = make_model(hidden_size=256, intermediate_size=512, head_dim=64)
    shutil.copytree(model, folder / "model")
    in_new_process("every_kind", folder / "model", folder)
    return folder / "model"


@pytest.mark.slow
def test_every_kind_of_file_is_loaded_by_llama_cpp_and_holds_the_weights(
    backend: Any, wide: Path, tmp_path: Path
) -> None:
    known = backend(answers_of, wide, QUESTIONS[:1], tmp_path / "exact.npy")
    exact, weights = np.load(tmp_path / "exact.npy"), (wide / "model.safetensors").stat().st_size
    kl = {}
    for kind, bits in GGUF_BITS.items():
        file = wide.with_name(f"{kind}.gguf")
        assert file.stat().st_size == pytest.approx(weights * bits / 16 + 2_000_000, rel=0.25)
        told, logits = ask_engine(file, known, tmp_path)
        assert told["texts"] == known["text_ids"]
        kl[kind] = mean_kl(exact, logits)
    assert kl["bf16"] < 1e-4 and kl["f16"] < 1e-4, kl
    assert kl["q8_0"] < kl["q6_k"] < kl["q5_k_m"] < kl["q4_k_m"] < 0.1, kl
    for kind, least, most in (("q8_0", 1e-3, 0.01), ("q4_k_m", 0.01, 0.12)):
        shutil.copyfile(wide.with_name(f"{kind}.gguf"), wide / f"{kind}.gguf")
        off = backend(read_by_transformers, wide, f"{kind}.gguf")
        assert least < max(off) < most, kind


def check_sentencepiece(folder: str) -> None:
    """What is said of a SentencePiece vocabulary made here, and how llama.cpp reads with it."""
    import io
    import json
    from pathlib import Path

    import sentencepiece
    from transformers import AutoTokenizer

    from training_backend.export import gguf_tools
    from training_backend.export.gguf_engine import Engine

    words = [word for text in gguf_tools.SAMPLES for word in text.split()]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(words)] * 9), model_writer=written, model_type="bpe",
        vocab_size=400, byte_fallback=True, control_symbols=["[INST]", "[/INST]"],
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 400,
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "rms_norm_eps": 1e-5,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
    }  # fmt: skip
    template = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} "
        "[/INST]{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    )
    model = Path(folder)
    (model / "tokenizer.model").write_bytes(written.getvalue())
    settings = {
        "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>",
        "unk_token": "<unk>", "legacy": False, "chat_template": template,
    }  # fmt: skip
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    (model / "config.json").write_text(json.dumps(config))
    AutoTokenizer.from_pretrained(model).save_pretrained(model)  # as training leaves it
    tokenizer = AutoTokenizer.from_pretrained(model)
    chat = "<s>[INST] Hello [/INST]"
    told = {"warning": gguf_tools.check(folder, f"{folder}/it.gguf", True)}
    with Engine(model / "it.gguf", context=0) as engine:
        told["begins"] = engine.file.metadata["tokenizer.ggml.add_space_prefix"]
        told["chat"] = engine.read(chat, is_chat=True)
    told["own"] = tokenizer(chat, add_special_tokens=False).input_ids
    told["plain"] = tokenizer.tokenize("Hello")
    (model / "told.json").write_text(json.dumps(told))


def test_words_begin_with_a_space_in_chats_where_they_did_in_training(tmp_path: Path) -> None:
    """Some SentencePiece tokenizers begin a text with a space and what follows a token not."""
    in_new_process("check_sentencepiece", tmp_path)
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["plain"][0].startswith("▁")
    assert told["begins"] is False and told["chat"] == told["own"]
    code, sentence = told["warning"]
    assert code == "gguf_reads_otherwise" and "Chats it reads alike" in sentence


def make_large(folder: str) -> None:
    """One weight that is a number in bfloat16 and none in float16."""
    from pathlib import Path

    from safetensors.torch import load_file, save_file

    file = Path(folder, "model.safetensors")
    tensors = load_file(file)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = 1e5
    save_file(tensors, file, {"format": "pt"})


def test_a_weight_that_is_too_large_for_the_file_is_named(
    backend: Any, tiny_model: Path, export: Callable[..., Any], tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    backend(make_large, base)
    backend(make_adapter, base, tmp_path / "adapter", {**LORA, "r": 4})
    done = export(tmp_path / "adapter", "out", quantization="f16")
    assert done.exit_code == 1 and done.terminal.code == "gguf_refused"
    assert "blk.1.ffn_up.weight holds numbers that are too large" in done.terminal.message
    assert not (tmp_path / "out").exists()


def test_a_model_that_was_trained_in_full_becomes_a_file_of_its_own(
    backend: Any, do: Any, job_document: Any, export: Callable[..., Any], tmp_path: Path
) -> None:
    full = {"method": "full", "max_steps": 2, "learning_rate": 1e-3}
    job = job_document(training=full, quantization={"load_in_4bit": False})
    trained = do(job)
    assert trained.exit_code == 0, trained.terminal
    done = export(trained.run.folder, "out", quantization="bf16")
    assert done.exit_code == 0, done.terminal
    model = trained.run.model
    known = backend(answers_of, model, QUESTIONS[:1], tmp_path / "exact.npy")
    told, logits = ask_engine(tmp_path / "out" / "out-BF16.gguf", known, tmp_path)
    assert told["prompts"] == known["prompt_ids"]
    assert mean_kl(np.load(tmp_path / "exact.npy"), logits) < 1e-4


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


def engine_on(whole: str, folder: str) -> dict[str, Any]:
    """What the engine makes of a file as it is, damaged, and with a flag changed."""
    from pathlib import Path

    import numpy as np

    from training_backend.errors import UserError
    from training_backend.export import gguf_engine, gguf_file

    whole, told = Path(whole), {}
    with gguf_engine.Engine(whole, context=300, check=True) as engine:
        told["prompt"] = engine.prompt([{"role": "user", "content": "What is 2 and 2?"}] * 8)
        tokens = told["tokens"] = engine.read(told["prompt"], is_chat=True)
        answer = engine.answer(tokens, 12)
        rows = engine.logits([*tokens, *answer], len(answer) + 1)
        told["greedy"] = rows[:-1].argmax(axis=1).tolist() == answer
        told["shape"] = [list(rows.shape), [len(answer) + 1, engine.vocabulary]]
        again = engine.logits([*tokens, *answer], len(tokens) + len(answer))
        told["same"] = bool(np.allclose(again[-len(rows) :], rows, atol=1e-3))
        told["several parts"] = len(again) > 2 * gguf_engine.AT_ONCE
        told["ends"], told["begin"] = sorted(engine.ends), engine.begin

    data = whole.read_bytes()
    place = next(t.start for t in gguf_file.read(whole).tensors if "1.ffn_up" in t.name)
    no_number = np.float16("nan").tobytes()
    flag = b"tokenizer.ggml.add_bos_token" + (7).to_bytes(4, "little")
    files = {
        "broken.gguf": data[:place] + no_number + data[place + 2 :],
        "cut.gguf": data[: len(data) // 2],
        "unknown.gguf": data.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lamal", 1),
        "bos.gguf": data.replace(flag + b"\0", flag + b"\1"),
    }
    for name, content in files.items():
        assert content != data
        Path(folder, name).write_bytes(content)
        try:
            with gguf_engine.Engine(Path(folder, name), context=64, check=True) as engine:
                told[name] = engine.adds_bos
                told["plain"] = engine.read("What", is_chat=False)
                told["server"] = engine.read(told["prompt"], is_chat=True)
        except UserError as error:
            told[name] = str(error)
    return told


def test_the_engine_reads_answers_and_refuses_as_llama_cpp_does(
    backend: Any, wide: Path, tmp_path: Path
) -> None:
    told = backend(engine_on, wide.with_name("f16.gguf"), tmp_path)
    assert told["prompt"].endswith("What is 2 and 2?<|im_end|>\n<|im_start|>assistant\n")
    assert told["greedy"] and told["same"] and told["several parts"]
    assert told["shape"][0] == told["shape"][1]
    assert told["begin"] == 1 and 2 in told["ends"]
    assert "blk.1.ffn_up.weight" in told["broken.gguf"]
    assert "cut.gguf is no whole GGUF file" in told["cut.gguf"]
    assert "unknown model architecture" in told["unknown.gguf"]
    assert told["bos.gguf"] is True
    assert told["plain"][0] == 1, "the file's flag is followed"
    assert told["server"] == told["tokens"], "the BOS that the template wrote is no second one"


def test_the_converter_is_the_file_that_pypi_has() -> None:
    from importlib import resources

    file = resources.files("resources") / "gguf_converter" / gguf_tools.CONVERTER
    assert sha256_file(Path(str(file))) == gguf_tools.CONVERTER_SHA256
