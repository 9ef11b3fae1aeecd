"""An export's layers in 4 bits, beside loading in 4 bits with transformers and saving.

    python tests/benchmarks/four_bit_bench.py [--layers 3] [--folder /tmp]

Makes a Llama with random weights in bfloat16 and as many layers of an 8B model's shapes, does both
in a fresh process each, and prints the time, the largest memory (resident, libraries included) and
whether all tensors are the same. Needs 2.5 GB on the disk for three layers; all is removed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]

MAKE = """
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.set_default_dtype(torch.bfloat16)
LlamaForCausalLM(LlamaConfig(
    vocab_size=32000, hidden_size=4096, intermediate_size=14336, num_attention_heads=32,
    num_key_value_heads=8, num_hidden_layers=int(sys.argv[2]), tie_word_embeddings=False,
)).save_pretrained(sys.argv[1])
"""
OURS = """
from pathlib import Path
from training_backend.export import four_bit_tools as tools
tensors = [t for path in tools.weight_files(Path(model)) for t in tools.read_tensors(path)]
Path(out).mkdir()
tools.quantise(lambda *_: None, model, out, tools.plan(model, tensors), 5_000_000_000)
"""
THEIRS = """
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",
                              bnb_4bit_use_double_quant=True)
AutoModelForCausalLM.from_pretrained(
    model, quantization_config=settings, dtype="auto", device_map="cpu").save_pretrained(out)
"""
MEASURED = """
import json, sys, time, psutil, threading
model, out = sys.argv[1:]
peak, began = 0, time.perf_counter()
def watch():
    global peak
    while True:
        peak = max(peak, psutil.Process().memory_info().rss)
        time.sleep(0.01)
threading.Thread(target=watch, daemon=True).start()
{work}
print(json.dumps({{"seconds": time.perf_counter() - began, "peak": peak}}))
"""
SAME = """
import sys
from pathlib import Path
import torch
from safetensors.torch import load_file
one, other = ({k: v for p in Path(f).glob("*.safetensors") for k, v in load_file(p).items()}
              for f in sys.argv[1:])
assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where the files are made")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="lorasmith-4-bit-") as name:
        folder = Path(name)
        python(MAKE, folder / "model", options.layers)
        before = size(folder / "model")
        for what, work in (("ours", OURS), ("theirs", THEIRS)):
            answer = python(MEASURED.format(work=work), folder / "model", folder / what)
            found: dict[str, Any] = json.loads(answer.splitlines()[-1])
            print(
                f"{what:7}{before / 1e9:5.2f} GB to {size(folder / what) / 1e9:5.2f} GB"
                f"{found['seconds']:8.1f} s{found['peak'] / 1e9:7.2f} GB of memory",
                flush=True,
            )
        python(SAME, folder / "ours", folder / "theirs")
        print("all tensors are the same")


def python(source: str, *arguments: Any) -> str:
    """Runs a program in a process of its own and returns what it prints."""
    return subprocess.run(
        [sys.executable, "-c", source, *map(str, arguments)],
        cwd=REPOSITORY, stdout=subprocess.PIPE, check=True, encoding="utf-8",
    ).stdout  # fmt: skip


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


if __name__ == "__main__":
    main()
