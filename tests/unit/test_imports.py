"""Light modules stay light: the window imports them and must be on screen within a second."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "bitsandbytes", "PySide6", "app"}
NEED_TORCH = {
    "attention", "base_model", "fast_loss", "fast_paths", "finished_model", "held_out", "lora",
    "model_layers", "preference", "probe", "results", "run_watch", "sampling", "scoring",
    "script.base", "script.folder", "steering", "trace_model", "tracing.card",
    "tracing.hollow_model", "tracing.layers_pass", "tracing.loss_pass", "tracing.storages",
    "train", "trainer_habits", "trainer_reports",
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
