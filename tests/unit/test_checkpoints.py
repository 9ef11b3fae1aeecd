"""Checkpoints are whole or not there; only whole ones are resumed from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from training_backend.lifecycle import checkpoints
from training_backend.lifecycle.checkpoints import COMPLETE, Checkpoint

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "checkpoints"


def stage(folder: Path, step: int) -> Path:
    staged = folder.parent / "staging" / f"checkpoint-{step}"
    (staged / "deep" / "er").mkdir(parents=True)
    (staged / WEIGHTS).write_bytes(bytes(range(256)) * 100 + str(step).encode())
    (staged / "optimizer.pt").write_bytes(b"state")
    (staged / "deep" / "er" / "empty").touch()
    return staged


def make(folder: Path, *steps: int) -> list[Checkpoint]:
    return [checkpoints.commit(stage(folder, step), folder) for step in steps]


def test_a_committed_checkpoint_is_whole_and_where_it_belongs(folder: Path) -> None:
    (made,) = make(folder, 5)
    assert made == Checkpoint(folder / "checkpoint-5", 5)
    assert checkpoints.is_whole(made.folder)
    document = json.loads((made.folder / COMPLETE).read_text())
    assert document["step"] == 5
    assert document["sha256"].keys() == {WEIGHTS, "optimizer.pt", "deep/er/empty"}
    assert not list((folder.parent / "staging").iterdir())


def test_a_second_checkpoint_at_a_step_replaces_the_first(folder: Path) -> None:
    make(folder, 5)
    staged = stage(folder, 5)
    (staged / WEIGHTS).write_bytes(b"new")
    made = checkpoints.commit(staged, folder)
    assert (made.folder / WEIGHTS).read_bytes() == b"new"
    assert checkpoints.is_whole(made.folder)
    assert checkpoints.finished(folder) == [made]


def flip_a_byte(folder: Path) -> None:
    path = folder / WEIGHTS
    data = bytearray(path.read_bytes())
    data[1_234] ^= 1
    path.write_bytes(data)


def cut_a_file(folder: Path) -> None:
    (folder / "optimizer.pt").write_bytes(b"sta")


def remove_a_file(folder: Path) -> None:
    (folder / "optimizer.pt").unlink()


def add_a_file(folder: Path) -> None:
    (folder / "deep" / "training_args.bin").write_bytes(b"pickle")


def remove_the_list(folder: Path) -> None:
    (folder / COMPLETE).unlink()


def empty_the_list(folder: Path) -> None:
    (folder / COMPLETE).write_text("")


def write_into_the_list(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for path in folder.rglob("*"):
            if path.is_file() and path.name != COMPLETE:
                path.unlink()
        (folder / COMPLETE).write_text(text)

    return write


DAMAGE = [
    flip_a_byte,
    cut_a_file,
    remove_a_file,
    add_a_file,
    remove_the_list,
    empty_the_list,
    *(
        pytest.param(write_into_the_list(text), id=text[:20])
        for text in ("[]", "{}", "5", '{"sha256": 5}', '{"sha256": []}', "[" * 100_000)
    ),
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_not_whole(folder: Path, damage: Callable[[Path], None]) -> None:
    (made,) = make(folder, 5)
    damage(made.folder)
    assert not checkpoints.is_whole(made.folder)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_is_set_aside_and_the_next_older_used(
    folder: Path, damage: Callable[[Path], None]
) -> None:
    older, newest = make(folder, 5, 10)
    damage(newest.folder)
    assert checkpoints.newest_verified(folder) == older
    assert checkpoints.finished(folder) == [older]
    assert (folder.parent / "damaged" / "checkpoint-10").is_dir()  # not deleted


def test_a_checkpoint_damaged_twice_is_set_aside_twice(folder: Path) -> None:
    for _ in range(2):
        (made,) = make(folder, 5)
        flip_a_byte(made.folder)
        assert checkpoints.newest_verified(folder) is None
    assert len(list((folder.parent / "damaged").iterdir())) == 1


def test_a_file_in_the_place_of_a_checkpoint_is_set_aside(folder: Path) -> None:
    (older,) = make(folder, 5)
    (folder / "checkpoint-6").write_text("no folder")
    assert checkpoints.newest_verified(folder) == older
    assert (folder.parent / "damaged" / "checkpoint-6").is_file()


def test_a_half_staged_checkpoint_is_not_seen(folder: Path) -> None:
    (whole,) = make(folder, 5)
    stage(folder, 10)
    assert checkpoints.newest_verified(folder) == whole


def test_no_checkpoint_is_none(folder: Path) -> None:
    assert checkpoints.newest_verified(folder) is None
    assert checkpoints.finished(folder) == []


def test_checkpoints_are_ordered_by_step_and_other_names_left_alone(folder: Path) -> None:
    made = make(folder, 100, 9, 20)
    for name in ("checkpoint-", "checkpoint-x", "checkpoint-²", "checkpoint-5.old", "notes"):
        (folder / name).mkdir()
    assert checkpoints.finished(folder) == sorted(made, key=lambda one: one.step)
    assert checkpoints.newest_verified(folder) == made[0]
    checkpoints.prune(folder, 1)
    assert (folder / "notes").is_dir() and (folder / "checkpoint-x").is_dir()


@pytest.mark.parametrize(("keep", "left"), [(1, [30]), (2, [20, 30]), (3, [10, 20, 30])])
def test_pruning_keeps_the_newest(folder: Path, keep: int, left: list[int]) -> None:
    make(folder, 10, 30, 20)
    checkpoints.prune(folder, keep)
    assert [one.step for one in checkpoints.finished(folder)] == left
    assert all(checkpoints.is_whole(one.folder) for one in checkpoints.finished(folder))
    checkpoints.prune(folder, 5)
    assert len(checkpoints.finished(folder)) == len(left)


def make_tested(folder: Path, losses: dict[int, float | None]) -> None:
    for step, loss in losses.items():
        checkpoints.commit(stage(folder, step), folder, loss)


def test_tested_checkpoints_come_the_best_first_and_untested_ones_not_at_all(folder: Path) -> None:
    make_tested(folder, {1: 2.5, 2: None, 3: 1.5, 4: 1.5, 5: 2.0})
    found = [(checkpoint.step, loss) for checkpoint, loss in checkpoints.best_first(folder)]
    assert found == [(3, 1.5), (4, 1.5), (5, 2.0), (1, 2.5)]
    assert all(
        checkpoints.is_whole(checkpoint.folder) for checkpoint in checkpoints.finished(folder)
    )


@pytest.mark.parametrize("told", ["", "[]", "{}", '{"held_out_loss": "low"}',
                                  '{"held_out_loss": NaN}', '{"held_out_loss": null}'])  # fmt: skip
def test_a_checkpoint_with_a_damaged_note_of_its_test_counts_as_untested(
    folder: Path, told: str
) -> None:
    make_tested(folder, {1: 2.5, 2: 1.5})
    (folder / "checkpoint-2" / COMPLETE).write_text(told)
    assert [checkpoint.step for checkpoint, _ in checkpoints.best_first(folder)] == [1]


@pytest.mark.parametrize(
    ("keep_best", "left"), [(True, [2, 5, 6]), (False, [5, 6])], ids=["keep best", "newest only"]
)
def test_the_best_checkpoint_stays_beside_the_newest_when_it_is_to_be_kept(
    folder: Path, keep_best: bool, left: list[int]
) -> None:
    make_tested(folder, {1: 2.5, 2: 1.5, 3: None, 4: 2.0, 5: 1.6, 6: None})
    checkpoints.prune(folder, 2, keep_best)
    assert [checkpoint.step for checkpoint in checkpoints.finished(folder)] == left


def test_a_result_knows_which_of_its_files_are_damaged(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    staged = stage(tmp_path / "checkpoints", 5)
    target.mkdir()
    (target / "of an earlier attempt").touch()
    checkpoints.move_sealed(staged, target)
    assert not staged.exists() and not (target / "of an earlier attempt").exists()
    (target / "notes.txt").write_text("of the person")
    assert checkpoints.damaged_since(target) == []
    (target / WEIGHTS).write_bytes(b"x" + (target / WEIGHTS).read_bytes()[1:])
    (target / "optimizer.pt").unlink()
    assert sorted(checkpoints.damaged_since(target)) == [WEIGHTS, "optimizer.pt"]


def test_nothing_is_said_of_a_result_that_was_never_sealed(tmp_path: Path) -> None:
    assert checkpoints.damaged_since(tmp_path / "adapter") == []
    (tmp_path / "adapter.sha256.json").write_text("[1]")
    assert checkpoints.damaged_since(tmp_path / "adapter") == []
