"""The quick ones of the faults, in every run of the tests; `python -m tests.faults` tries all."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import (
    disk_faults,
    merge_faults,
    message_faults,
    outside_faults,
    power_faults,
    window_faults,
    worker_faults,
)
from tests.faults.disk_faults import NotHere
from tests.faults.faults import Fault
from tests.faults.lab import Lab, Lost, lab, promised
from tests.faults.soak import leaks, soak

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, signals and mounts")

QUICK: tuple[Fault, ...] = (
    worker_faults.segmentation_fault,
    worker_faults.told_to_end_by_the_system,
    worker_faults.loss_that_is_no_number,
    worker_faults.card_out_of_memory_in_a_step,
    message_faults.killed_in_mid_line,
    merge_faults.one_flipped_byte_before_a_merge,
    worker_faults.stop_while_saving,
    worker_faults.two_runs_on_one_card,
    disk_faults.disk_full_at_a_checkpoint,
    disk_faults.disk_full_and_given_up,
    disk_faults.vanished_folder,
    power_faults.power_cut_at_the_first_checkpoint,
    window_faults.window_killed,
    outside_faults.data_changed,
)


@pytest.fixture(scope="module")
def place(demo_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("faults"), demo_model_dir) as made:
        yield made


@pytest.mark.parametrize("fault", QUICK, ids=lambda fault: fault.__name__)
def test_nothing_is_lost(fault: Fault, place: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORASMITH_HOME", str(place.home))
    try:
        sentence = fault(place)
    except NotHere as reason:
        pytest.skip(str(reason))
    assert sentence and "Traceback" not in sentence


def test_checkpoints_that_are_gone_are_missed(place: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that begins anew ends with the same weights: the check may not be content with that."""
    monkeypatch.setenv("LORASMITH_HOME", str(place.home))
    run = place.create()
    attempt = place.halted(run, 4)  # the second checkpoint is saved
    attempt.signal(signal.SIGKILL)
    attempt.wait()
    assert promised(run) >= 4 and promised(run, but=1) >= 3
    shutil.rmtree(run.checkpoints)
    with pytest.raises(Lost, match="it went on from step 0, and had saved step"):
        place.nothing_lost(run)


def test_runs_in_one_window_leave_nothing_behind(
    place: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -m tests.faults.soak` does two hundred."""
    monkeypatch.setenv("LORASMITH_HOME", str(place.home))
    rows, ends = soak(place, count=6, every=3, forked=True, say=print)
    assert leaks(rows) == []
    assert ends == {"completed": 3, "stopped": 2, "interrupted": 1}
