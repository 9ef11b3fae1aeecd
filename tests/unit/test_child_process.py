"""What a worker settles before torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fake_nvml import FakeNvml
from training_backend import preferences
from training_backend.computer.nvidia import GpuReader
from training_backend.lifecycle import child_process
from training_backend.preferences import Preferences


@pytest.mark.parametrize(
    ("chosen", "visible", "index"),
    [
        pytest.param("", "0", 0, id="none chosen"),
        pytest.param("GPU-1", "GPU-1", 1, id="the second"),
        pytest.param("GPU-9", "0", 0, id="one that was taken out"),
    ],
)
def test_torch_and_the_memory_chart_see_the_chosen_card(
    lorasmith_home: Path, monkeypatch: pytest.MonkeyPatch, chosen: str, visible: str, index: int
) -> None:
    FakeNvml(monkeypatch)
    monkeypatch.setattr(os, "environ", {**os.environ})  # others must not see what is set here
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    preferences.save(Preferences(gpu=chosen))
    child_process.choose_card()
    child_process.set_environment()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible
    reader = GpuReader()
    sample = reader.read()
    assert sample is not None and sample.index == index
    reader.close()


@pytest.mark.parametrize(
    ("platform", "before", "after"),
    [
        ("linux", {}, "expandable_segments:True"),
        ("linux", {"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}, "max_split_size_mb:64"),
        ("linux", {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}, None),
        ("win32", {}, None),
        ("darwin", {}, None),
    ],
)
def test_segments_grow_where_pytorch_can_and_nobody_chose_otherwise(
    lorasmith_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    before: dict[str, str],
    after: str | None,
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    kept = {k: v for k, v in os.environ.items() if "ALLOC_CONF" not in k}
    monkeypatch.setattr(os, "environ", {**kept, **before})
    child_process.set_environment()
    assert os.environ.get("PYTORCH_ALLOC_CONF") == after


def test_numpy_takes_no_threads_of_its_own_and_children_are_told_nothing() -> None:
    script = (
        "import os\n"
        "from training_backend.lifecycle.child_process import numpy_without_threads\n"
        "os.environ['OPENBLAS_NUM_THREADS'] = '7'\n"
        "before = dict(os.environ)\n"
        "numpy_without_threads()\n"
        "assert dict(os.environ) == before\n"
        "import numpy, time\n"
        "square = numpy.ones((1500, 1500))\n"
        "wall, cpu = time.perf_counter(), time.process_time()\n"
        "square @ square\n"
        "print((time.process_time() - cpu) / (time.perf_counter() - wall))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 1.2
