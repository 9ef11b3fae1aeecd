"""Light modules stay light: the window imports them and must be on screen within a second."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "bitsandbytes", "PySide6", "app"}
NEED_TORCH = {
    "export.proof_torch",
    "memory.trace_model", "memory.tracing.card", "memory.tracing.hollow_model",
    "memory.tracing.layers_pass", "memory.tracing.loss_pass", "memory.tracing.storages",
    "models.attention", "models.base_model", "models.finished_model", "models.model_layers",
    "probe", "script.base", "script.folder", "train", "training.fast_loss",
    "training.fast_paths", "training.held_out", "training.last_good_step", "training.lora",
    "training.preference", "training.results", "training.sampling", "training.scoring",
    "training.steering", "training.trainer_habits", "training.trainer_reports",
    "watching.gone_bad", "watching.run_watch",
}  # fmt: skip
MODULES = sorted(
    ".".join(path.relative_to(REPOSITORY / "training_backend").with_suffix("").parts)
    for path in (REPOSITORY / "training_backend").rglob("*.py")
    if path.name != "__init__.py"
)


def heavy_imports(module: str) -> set[str]:
    code = f"import sys, training_backend.{module}\nprint(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    return HEAVY & set(answer.stdout.split())


def test_the_modules_are_found() -> None:
    assert {"job", "worker", "__main__", "data.reader"} <= set(MODULES)


@pytest.mark.parametrize("module", [name for name in MODULES if name not in NEED_TORCH])
def test_a_light_module_imports_nothing_heavy(module: str) -> None:
    """A new module is light unless it is named above, with a reason that it is."""
    assert heavy_imports(module) == set()
