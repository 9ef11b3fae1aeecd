"""An export that is cut off goes on where it was, or begins anew, and never passes for finished."""

from __future__ import annotations

import errno
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from training_backend import runs, worker
from training_backend.errors import StopRequested, UserError
from training_backend.export import partial, seen_base, shards, weights
from training_backend.export.tensor_file import TensorFile
from training_backend.job import ExportJob, parse_job
from training_backend.paths import UNFINISHED
from training_backend.protocol import LogLine
from training_backend.runs import Run

LAYERS = 4
WIDTH = 16

Tensors = dict[str, Any]


def _weight(layer: int) -> str:
    return f"model.layers.{layer}.self_attn.q_proj.weight"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base of four files, one a layer."""
    folder = tmp_path / "base"
    folder.mkdir()
    random = np.random.default_rng(0)
    names = {}
    for layer in range(LAYERS):
        file = f"model-{layer + 1:05}-of-{LAYERS:05}.safetensors"
        tensors = {
            _weight(layer): random.standard_normal((WIDTH, WIDTH)).astype(np.float16),
            f"model.layers.{layer}.input_layernorm.weight": np.ones(WIDTH, np.float16),
        }
        save_file(tensors, folder / file, metadata={"format": "pt"})
        names.update(dict.fromkeys(tensors, file))
    index = {"metadata": {}, "weight_map": names}
    (folder / shards.INDEX).write_text(json.dumps(index), encoding="utf-8")
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    random = np.random.default_rng(1)
    tensors = {}
    for layer in range(LAYERS):
        stem = f"base_model.model.{_weight(layer).removesuffix('.weight')}"
        tensors[f"{stem}.lora_A.weight"] = random.standard_normal((2, WIDTH)).astype(np.float32)
        tensors[f"{stem}.lora_B.weight"] = random.standard_normal((WIDTH, 2)).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    _set_alpha(folder, base, 4)
    return folder


def _set_alpha(adapter: Path, base: Path, alpha: int) -> None:
    config = {
        "peft_type": "LORA", "r": 2, "lora_alpha": alpha, "target_modules": ["q_proj"],
        "base_model_name_or_path": str(base),
    }  # fmt: skip
    (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")


def _expected(base: Path, adapter: Path, alpha: int = 4) -> Tensors:
    """Base + adapter, in float64."""
    merged = {k: v for path in base.glob("*.safetensors") for k, v in load_file(path).items()}
    halves = load_file(adapter / "adapter_model.safetensors")
    for layer in range(LAYERS):
        stem = f"base_model.model.{_weight(layer).removesuffix('.weight')}"
        a, b = (halves[f"{stem}.lora_{half}.weight"].astype(np.float64) for half in "AB")
        weight = merged[_weight(layer)].astype(np.float64) + alpha / 2 * (b @ a)
        merged[_weight(layer)] = weight.astype(np.float32).astype(np.float16)
    return merged


def _read(folder: Path) -> Tensors:
    """The tensors of a folder by its index, as a program that loads it finds them."""
    if not (folder / shards.INDEX).is_file():
        return load_file(folder / "model.safetensors")
    index = json.loads((folder / shards.INDEX).read_text("utf-8"))
    files = set(index["weight_map"].values())
    assert files == {path.name for path in folder.glob("*.safetensors")}
    opened = {file: load_file(folder / file) for file in files}
    total = sum(tensor.nbytes for tensors in opened.values() for tensor in tensors.values())
    assert index["metadata"]["total_size"] == total
    assert sum(map(len, opened.values())) == len(index["weight_map"])
    return {name: opened[file][name] for name, file in index["weight_map"].items()}


def _same(found: Tensors, expected: Tensors) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == expected[name].dtype and np.array_equal(found[name], expected[name])
        for name in expected
    )


Export = Callable[..., Run]


@pytest.fixture
def export(adapter: Path, tmp_path: Path, lorasmith_home: Path) -> Export:
    """Does an export as the worker does, in this process, which has no torch."""

    def exported(**options: Any) -> Run:
        out = str(tmp_path / "out")
        run = runs.create(ExportJob(run=str(adapter), out=out, verify=False, **options))
        worker._work(run, queue.Queue())
        return run

    return exported


Interrupt = Callable[[int, BaseException | Callable[[], None]], None]


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Interrupt:
    """Something happens instead of the n-th file being written from now on."""
    write = shards.write

    def at(number: int, what: BaseException | Callable[[], None]) -> None:
        count = 0

        def writes(*arguments: Any) -> str:
            nonlocal count
            count += 1
            if count == number and isinstance(what, BaseException):
                raise what
            if count == number and callable(what):
                what()
            return write(*arguments)

        monkeypatch.setattr(shards, "write", writes)

    return at


FULL = OSError(28, "No space left on device")


def _said(run: Run) -> str:
    return " ".join(event.message for event in run.events() if isinstance(event, LogLine))


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Which files these are: renamed ones stay the same, written ones do not."""
    stats = {path.name: path.stat() for path in folder.glob("*.safetensors")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def test_a_full_disk_leaves_what_is_whole_and_the_same_export_goes_on(
    export: Export, interrupt: Interrupt, base: Path, adapter: Path, tmp_path: Path
) -> None:
    interrupt(3, FULL)
    last: Any = export().events()[-1]
    assert last.code == "export_disk_full"
    assert str(tmp_path / "out.partial") in last.remedy
    left = _files(tmp_path / "out.partial")
    assert len(left) == 2 and not (tmp_path / "out").exists()

    interrupt(3, AssertionError("only two are missing"))
    run = export()
    assert run.state() == "completed"
    assert "2 finished files stay" in _said(run)
    assert left.items() <= _files(tmp_path / "out").items()
    assert _same(_read(tmp_path / "out"), _expected(base, adapter))
    assert not list(tmp_path.glob("*.partial")) and not list((tmp_path / "out").glob(".*"))


KILLED = """
import os, queue, signal, sys
from pathlib import Path
from training_backend import worker
from training_backend.export import shards
from training_backend.runs import Run
write, count = shards.write, 0
def writes(shard, path, on_piece):
    global count
    count += 1
    if count == 3:
        path.write_bytes(b"half a file")
        os.kill(os.getpid(), signal.SIGKILL)
    return write(shard, path, on_piece)
shards.write = writes
worker._work(Run(Path(sys.argv[1])), queue.Queue())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_killed_export_goes_on(
    export: Export, base: Path, adapter: Path, tmp_path: Path, lorasmith_home: Path
) -> None:
    run = runs.create(ExportJob(run=str(adapter), out=str(tmp_path / "out"), verify=False))
    killed = subprocess.run([sys.executable, "-c", KILLED, str(run.folder)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert len(_files(tmp_path / "out.partial")) == 3  # one of them half written
    run = export()
    assert run.state() == "completed" and "2 finished files stay" in _said(run)
    assert _same(_read(tmp_path / "out"), _expected(base, adapter))


def test_a_file_damaged_since_is_written_again(
    export: Export, interrupt: Interrupt, base: Path, adapter: Path, tmp_path: Path
) -> None:
    interrupt(3, FULL)
    export()
    damaged = tmp_path / "out.partial" / "model-00002-of-00004.safetensors"
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    interrupt(0, FULL)
    said = _said(export())
    assert f"{damaged.name} of the unfinished export is damaged" in said
    assert "1 finished files stay" in said
    assert _same(_read(tmp_path / "out"), _expected(base, adapter))


def _another_adapter(base: Path, adapter: Path) -> None:
    _set_alpha(adapter, base, 8)


def _another_base(base: Path, adapter: Path) -> None:
    path = base / "model-00001-of-00004.safetensors"
    tensors = load_file(path)
    tensors[_weight(0)][0, 0] += 1
    save_file(tensors, path, metadata={"format": "pt"})


def _other_file(name: str) -> Callable[[Path, Path], None]:
    """One more key in a JSON file of the base, which may not have been there."""

    def change(base: Path, adapter: Path) -> None:
        path = base / name
        known = json.loads(path.read_text("utf-8")) if path.exists() else {}
        path.write_text(json.dumps({**known, "rope_theta": 5}), encoding="utf-8")

    return change


@pytest.mark.parametrize(
    ("change", "options", "alpha"),
    [
        pytest.param(_another_adapter, {}, 8, id="adapter"),
        pytest.param(_another_base, {}, 4, id="base"),
        pytest.param(lambda *_: None, {"max_shard_gb": 1}, 4, id="settings"),
        *(
            pytest.param(_other_file(name), {}, 4, id=name)
            for name in ("config.json", "generation_config.json", "tokenizer_config.json")
        ),
    ],
)
def test_another_export_to_the_same_place_begins_anew_and_says_so(
    export: Export,
    interrupt: Interrupt,
    base: Path,
    adapter: Path,
    tmp_path: Path,
    change: Callable[[Path, Path], None],
    options: dict[str, Any],
    alpha: int,
) -> None:
    interrupt(3, FULL)
    export()
    change(base, adapter)
    interrupt(0, FULL)
    run = export(**options)
    assert run.state() == "completed" and "this one begins anew" in _said(run)
    assert _same(_read(tmp_path / "out"), _expected(base, adapter, alpha))


def test_other_settings_of_the_four_bits_that_training_saw_begin_anew(
    base: Path,
    adapter: Path,
    interrupt: Interrupt,
    tmp_path: Path,
    lorasmith_home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seen_base, "seen_weights", lambda *_: {})  # that takes torch
    document = {"model": {"id": str(base)}, "dataset": {"path": "demo"}}
    trained = runs.create(parse_job(document))
    shutil.copytree(adapter, trained.adapter)

    def said() -> str:
        job = ExportJob(run=trained.id, out=str(tmp_path / "out"), base="4-bit", verify=False)
        run = runs.create(job)
        worker._work(run, queue.Queue())
        return _said(run)

    interrupt(3, FULL)
    said()
    interrupt(1, FULL)
    assert "2 finished files stay" in said()
    document["quantization"] = {"bnb_4bit_quant_type": "fp4"}
    (trained.folder / "job.json").write_text(json.dumps(document), encoding="utf-8")
    interrupt(0, FULL)
    assert "this one begins anew" in said()


def test_who_cancels_an_export_that_went_on_leaves_nothing(
    export: Export, interrupt: Interrupt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(3, FULL)
    export()
    assert (tmp_path / "out.partial").is_dir()
    monkeypatch.setattr(weights, "PROGRESS_SECONDS", -1)
    interrupt(2, lambda: runs.find(_newest(tmp_path)).request("stop"))
    assert export().state() == "stopped"
    assert not (tmp_path / "out.partial").exists() and not (tmp_path / "out").exists()


def _newest(tmp_path: Path) -> str:
    return str(max((tmp_path / "home" / "export-runs").iterdir(), key=os.path.getmtime))


def test_an_export_stopped_by_the_system_goes_on_later(
    export: Export, interrupt: Interrupt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "PROGRESS_SECONDS", -1)
    interrupt(3, lambda: runs.find(_newest(tmp_path)).requests.ask_to_stop("system"))
    assert export().state() == "stopped"
    assert (tmp_path / "out.partial").is_dir()
    run = export()
    assert run.state() == "completed" and "2 finished files stay" in _said(run)


def test_no_room_for_the_rest_keeps_what_is_there(
    export: Export, interrupt: Interrupt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(3, FULL)
    export()
    left = _files(tmp_path / "out.partial")
    with monkeypatch.context() as patched:
        patched.setattr("training_backend.paths.free_bytes", lambda _: 1_000)
        last: Any = export().events()[-1]
    assert last.code == "disk_full_ahead"
    assert _files(tmp_path / "out.partial") == left
    assert export().state() == "completed"


def test_room_for_the_rest_is_enough_to_go_on(
    export: Export, interrupt: Interrupt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(3, FULL)
    export()
    left = sum(path.stat().st_size for path in (tmp_path / "out.partial").glob("*.safetensors"))
    monkeypatch.setattr("training_backend.paths.free_bytes", lambda _: weights.BESIDE_BYTES + left)
    interrupt(0, FULL)
    run = export()
    assert run.state() == "completed" and "2 finished files stay" in _said(run)


def test_a_failing_disk_is_told_as_of_an_export(export: Export, interrupt: Interrupt) -> None:
    interrupt(3, OSError(errno.EIO, "Input/output error"))
    last: Any = export().events()[-1]
    assert last.code == "disk_error" and last.remedy.endswith("Then start the same export again.")
    interrupt(0, FULL)
    assert export().state() == "completed"


def test_a_full_disk_before_the_first_file_leaves_nothing(
    export: Export, interrupt: Interrupt, tmp_path: Path
) -> None:
    interrupt(1, FULL)
    last: Any = export().events()[-1]
    assert last.code == "disk_full"
    assert not (tmp_path / "out.partial").exists()


def test_a_bit_that_flips_while_writing_is_noticed(
    export: Export, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fsync = os.fsync

    def flips(handle: int) -> None:
        fsync(handle)
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if path.suffix == ".safetensors":
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(data)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("which file it is cannot be told")
    monkeypatch.setattr(os, "fsync", flips)
    last: Any = export().events()[-1]
    assert last.code == "written_wrong" and "model-00001" in last.message
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_a_file_that_is_not_whole_has_no_head(tmp_path: Path) -> None:
    """Its length and its last tensor may be there already."""
    rows = [np.ones(1000, np.float32), np.ones(1000, np.float32)]

    def stop(_: int) -> None:
        raise StopRequested

    tensors = tuple(
        shards.OutTensor(name, "F32", (1000,), 4000, "w", lambda row=row: lambda _: row)
        for name, row in zip("ab", rows, strict=True)
    )
    path = tmp_path / "model.safetensors"
    with pytest.raises(StopRequested):
        shards.write(shards.Shard(path.name, tensors), path, stop)
    with pytest.raises(UserError), TensorFile(path):
        pass
    assert path.read_bytes()[:8] == bytes(8)


@pytest.mark.parametrize(("dtype", "shape", "size"), [("F4", (8,), 4), ("F6_E2M3", (4, 2), 6)])
def test_a_tensor_of_less_than_a_byte_a_value_is_written_whole(
    dtype: str, shape: tuple[int, ...], size: int, tmp_path: Path
) -> None:
    head = json.dumps({"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}).encode()
    (tmp_path / "a").write_bytes(len(head).to_bytes(8, "little") + head + bytes(range(1, size + 1)))
    with TensorFile(tmp_path / "a") as file:
        made = shards.converted(file, file.tensors[0], "BF16")
        digest = shards.write(shards.Shard("b", (made,)), tmp_path / "b", lambda _: None)
    with TensorFile(tmp_path / "b") as file:
        assert file.read_bytes(file.tensors[0]) == bytes(range(1, size + 1))
    assert digest == shards.hash_file(tmp_path / "b")


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_a_tensor_without_values_goes_along_in_any_type(
    export: Export, base: Path, tmp_path: Path, dtype: str
) -> None:
    path = base / "model-00001-of-00004.safetensors"
    empty = {f"empty.{n}": np.ones(shape, np.float16) for n, shape in enumerate([(3, 0), (0, 3)])}
    save_file({**load_file(path), **empty}, path, metadata={"format": "pt"})
    assert export(dtype=dtype).state() == "completed"
    with TensorFile(tmp_path / "out" / path.name) as file:
        found = {tensor.name: tensor for tensor in file.tensors}
    stored = "F16" if dtype == "auto" else "BF16"
    for name, tensor in empty.items():
        written = found[name]
        assert (written.dtype, written.shape, written.size) == (stored, tensor.shape, 0)
    assert {tensor.dtype for tensor in found.values()} == {stored} and len(found) == 4


def test_a_tensor_that_comes_out_too_short_is_no_file(tmp_path: Path) -> None:
    made = shards.OutTensor("w", "F32", (1000,), 4000, "w", lambda: lambda _: b"")
    with pytest.raises(RuntimeError, match="bytes were made"):
        shards.write(shards.Shard("w", (made,)), tmp_path / "w", lambda _: None)


def test_notes_in_a_partial_folder_reach_no_file_outside_it(
    export: Export, base: Path, adapter: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    folder = tmp_path / "out.partial"
    folder.mkdir()
    noted = {"size": 4, "xxh3_128": "0" * 32}
    names = ["../thesis.txt", str(tmp_path / "thesis.txt"), "a/../../thesis.txt", "link"]
    (folder / "link").symlink_to(tmp_path / "thesis.txt")
    marker = {"key": "", "files": dict.fromkeys(names, noted)}
    (folder / UNFINISHED).write_text(json.dumps(marker), encoding="utf-8")
    assert export().state() == "completed"
    assert (tmp_path / "thesis.txt").read_text("utf-8") == "mine"
    assert not (tmp_path / "out" / "link").exists()
    assert _same(_read(tmp_path / "out"), _expected(base, adapter))


@pytest.mark.parametrize("marker", ["", "[]", '{"key": 1}', '{"key": "", "files": {"a": 1}}'])
def test_a_marker_that_cannot_be_read_means_that_nothing_is_kept(
    export: Export, tmp_path: Path, marker: str
) -> None:
    folder = tmp_path / "out.partial"
    folder.mkdir()
    (folder / UNFINISHED).write_text(marker, encoding="utf-8")
    (folder / "model-00001-of-00004.safetensors").write_bytes(b"half")
    assert export().state() == "completed"


@pytest.mark.parametrize("names", [[], [f".{UNFINISHED}.{'0' * 32}.tmp"]])
def test_a_partial_folder_that_was_only_just_made_is_no_obstacle(
    export: Export, tmp_path: Path, names: list[str]
) -> None:
    folder = tmp_path / "out.partial"
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    assert export().state() == "completed"
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_no_export_left_is_not_touched(export: Export, tmp_path: Path, kind: str) -> None:
    other = tmp_path / "out.partial"
    if kind == "folder":
        other.mkdir()
        other = other / "thesis.txt"
    other.write_text("mine", encoding="utf-8")
    last: Any = export().events()[-1]
    assert last.code == "partial_in_the_way" and other.read_text("utf-8") == "mine"


def test_two_exports_to_one_place_at_once_are_one_too_many(export: Export, tmp_path: Path) -> None:
    with partial.claimed(tmp_path / "out"):
        last: Any = export().events()[-1]
    assert last.code == "out_being_written" and last.field == "out"
    assert export().state() == "completed"


@pytest.mark.parametrize(
    ("unit", "names"),
    [
        (10**9, ["model.safetensors"]),
        (11_000, [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]),
        (1, [f"model-0000{n}-of-00008.safetensors" for n in range(1, 9)]),
    ],
)
def test_files_are_as_large_as_was_asked_and_the_index_is_right(
    export: Export,
    base: Path,
    adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unit: int,
    names: list[str],
) -> None:
    monkeypatch.setattr(weights, "GB", unit)
    assert export(max_shard_gb=0.1).state() == "completed"
    out = tmp_path / "out"
    assert sorted(path.name for path in out.glob("*.safetensors")) == names
    assert (out / shards.INDEX).exists() == (len(names) > 1)
    assert _same(_read(out), _expected(base, adapter))


NO_TORCH = """
import queue, sys
from pathlib import Path
from training_backend import worker
from training_backend.runs import Run
code = worker._work(Run(Path(sys.argv[1])), queue.Queue())
print(code, sorted({"torch", "transformers", "peft", "safetensors"} & set(sys.modules)))
"""


def test_a_process_that_merges_has_no_torch_in_it(
    adapter: Path, tmp_path: Path, lorasmith_home: Path
) -> None:
    run = runs.create(ExportJob(run=str(adapter), out=str(tmp_path / "out"), verify=False))
    done = subprocess.run(
        [sys.executable, "-c", NO_TORCH, str(run.folder)], stdout=subprocess.PIPE, text=True
    )
    assert done.stdout == "0 []\n"
