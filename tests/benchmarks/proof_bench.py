"""How far each format of an export is from what was trained, as its own proof measures it.

    .venv/bin/python tests/benchmarks/proof_bench.py

Trains the demo model in 4 bits for 12 steps (r 16, learning rate 1e-3, a tenth of the rows held
out), exports it in every format and prints verdict, mean KL in nats and the time of each export
with its proof. Then exports the base alone (an adapter of zeros is what a forgotten one comes to)
and says whether the proof of the trained run refuses that.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
JOB: dict[str, Any] = {
    "name": "proof",
    "model": {"id": "demo"},
    "dataset": {"path": "demo"},
    "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0},
    "training": {"max_steps": 12, "learning_rate": 1e-3, "max_length": 256},
    "evaluation": {"held_out_fraction": 0.1},
}
FORMATS = (
    ("safetensors",), ("adapter",), ("gguf", "bf16"), ("gguf", "f16"), ("gguf", "q8_0"),
    ("gguf", "q6_k"), ("gguf", "q5_k_m"), ("gguf", "q4_k_m"), ("bnb_4bit",), ("gguf_adapter",),
)  # fmt: skip


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "training_backend", *map(str, arguments)],
        cwd=REPOSITORY, env=os.environ, capture_output=True, encoding="utf-8",
    )  # fmt: skip


def told(folder: Path, name: str) -> float:
    checks = json.loads((folder / "proof.json").read_text(encoding="utf-8"))["checks"]
    return next((check["value"] for check in checks if check["name"] == name), float("nan"))


def without_training(adapter: Path, folder: Path) -> None:
    """The adapter with all its B set to nothing."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(adapter, folder)
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({name: t * ("lora_B" not in name) for name, t in tensors.items()}, file)


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="proof-bench-"))
    try:
        (folder / "job.json").write_text(json.dumps(JOB), encoding="utf-8")
        trained = call("train", folder / "job.json")
        assert trained.returncode == 0, trained.stderr
        run = Path(trained.stdout.splitlines()[-1])
        without_training(run / "adapter", folder / "forgotten")
        print(f"{'':20}{'verdict':20}{'KL':>8}{'share':>8}{'seconds':>9}   the base alone")
        for format, *quantization in FORMATS:
            out, name = folder / "out", "-".join((format, *quantization))
            options = ["--format", format]
            options += ["--quantization", *quantization] if quantization else []
            began = time.monotonic()
            done = call("export", run, *options, "--out", out)
            seconds = time.monotonic() - began
            if done.returncode or not (out / "proof.json").is_file():
                print(f"{name:20}{(done.stderr.strip().splitlines() or ['failed'])[-1]}")
                continue
            verdict = json.loads((out / "proof.json").read_text(encoding="utf-8"))["verdict"]
            line = f"{name:20}{verdict:20}{told(out, 'kl'):8.4f}{told(out, 'adapter'):8.2f}"
            shutil.rmtree(out)
            call("export", folder / "forgotten", *options, "--no-verify", "--out", out)
            found = call("verify", out, "--run", run, "--json")
            code = json.loads(found.stdout)["code"] if found.stdout else found.stderr.strip()
            print(f"{line}{seconds:9.0f}   {code}", flush=True)
            shutil.rmtree(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
