"""Downloads from a Hub on the loopback: whole, paused, broken off, wrong, refused, full."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.hub_server import HubServer
from tests.model_files import model_files
from training_backend import catalog, paths, preferences
from training_backend.errors import StopRequested, UserError
from training_backend.hub import downloads, hub_cache, hub_store, hub_token
from training_backend.hub.downloads import discard, fetch_model, on_disk_bytes
from training_backend.hub.hub_models import info
from training_backend.hub.transfer import TransferProgress
from training_backend.preferences import Preferences

ID = "acme/tiny"
WEIGHTS = "model.safetensors"
AT_ONCE = (0.0,) * 5


def get(id: str = ID, revision: str | None = None, tries: int = 5) -> Path:
    return fetch_model(id, revision, pauses=AT_ONCE[:tries])


def refused(id: str = ID, revision: str | None = None, tries: int = 0) -> UserError:
    with pytest.raises(UserError) as caught:
        get(id, revision, tries)
    assert caught.value.remedy
    return caught.value


def cut_off(hub: HubServer, at: int = 100_000) -> None:
    """A download whose line breaks in the middle of the weights."""
    hub.fault(WEIGHTS, cut_at=at)
    assert refused().code == "no_connection"


def repo() -> Path:
    return hub_cache.repo_folder(hub_cache.folder(), ID)


@pytest.fixture
def files() -> dict[str, bytes]:
    return model_files()


def test_what_training_needs_arrives_in_the_layout_of_the_cache(
    hub: HubServer, files: dict[str, bytes]
) -> None:
    extra = dict.fromkeys(
        ("pytorch_model.bin", "model.Q4.gguf", "model.onnx", "consolidated.safetensors"), b"x"
    )
    commit = hub.add(ID, {**files, **extra})
    folder = get()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert folder == repo() / "snapshots" / commit
    assert (repo() / "refs" / "main").read_text() == commit
    if os.name != "nt":
        target = Path(os.readlink(folder / WEIGHTS))
        assert not target.is_absolute()
        assert target.name == hashlib.sha256(files[WEIGHTS]).hexdigest()
    assert not list(repo().glob("blobs/*.incomplete"))
    entry = catalog.describe_model(ID)
    assert (entry.location, entry.problem) == (folder, "")

    asked = len(hub.asked)
    assert get() == folder
    assert len(hub.asked) == asked  # what is here is not asked for again


def test_huggingface_hub_finds_what_was_downloaded(hub: HubServer, files: dict[str, bytes]) -> None:
    from huggingface_hub import snapshot_download

    hub.add(ID, files)
    folder = get()
    cache = str(hub_cache.folder())
    assert snapshot_download(ID, cache_dir=cache, local_files_only=True) == str(folder)


def test_a_model_in_several_parts_arrives_with_all_of_them(hub: HubServer) -> None:
    files = model_files(shards=3)
    hub.add(ID, files)
    assert {path.name for path in get().iterdir()} == set(files)


def test_progress_counts_bytes_over_all_files(hub: HubServer, files: dict[str, bytes]) -> None:
    hub.add(ID, files)
    seen: list[TransferProgress] = []
    fetch_model(ID, None, seen.append)
    total = sum(map(len, files.values()))
    coming = [progress for progress in seen if progress.phase == "downloading"]
    assert {progress.total_bytes for progress in coming} == {total}
    counts = [progress.done_bytes for progress in coming]
    assert counts == sorted(counts) and counts[-1] == total and len(set(counts)) > 2
    assert seen[0].phase == "asking" and seen[-1].phase == "done"
    assert info(ID).total_bytes == total == on_disk_bytes(info(ID))


def test_the_time_left_follows_from_the_rate(hub: HubServer, files: dict[str, bytes]) -> None:
    hub.add(ID, files)
    hub.fault(WEIGHTS, pause=0.1)
    seen: list[TransferProgress] = []
    fetch_model(ID, None, seen.append)
    told = [progress for progress in seen if progress.seconds_left is not None]
    assert told
    for progress in told:
        assert progress.bytes_per_second and progress.total_bytes
        assert progress.seconds_left is not None
        left = progress.total_bytes - progress.done_bytes
        assert progress.seconds_left * progress.bytes_per_second == pytest.approx(left)
        assert progress.bytes_per_second < 2_000_000  # 32 KiB each tenth of a second, or longer


def test_stopping_is_a_pause_and_the_next_call_asks_for_the_rest(
    hub: HubServer, files: dict[str, bytes]
) -> None:
    hub.add(ID, files)
    hub.fault(WEIGHTS, held_at=300_000)
    seen: list[TransferProgress] = []
    enough = len(b"".join(files.values())) - len(files[WEIGHTS]) + 200_000
    with pytest.raises(StopRequested):
        fetch_model(ID, None, seen.append, lambda: bool(seen) and seen[-1].done_bytes >= enough)
    (part,) = repo().glob("blobs/*.incomplete")
    arrived = part.stat().st_size
    assert 0 < arrived < len(files[WEIGHTS])
    assert on_disk_bytes(info(ID)) >= seen[-1].done_bytes
    half = catalog.describe_model(ID)
    assert half.location is None  # it is not offered as here
    assert downloads.unfinished() == {ID: on_disk_bytes(info(ID))}

    again: list[TransferProgress] = []
    folder = fetch_model(ID, None, again.append)
    assert (folder / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert [asked.range for asked in hub.downloads(WEIGHTS)] == [None, f"bytes={arrived}-"]
    assert downloads.unfinished() == {}
    assert again[1].done_bytes >= seen[-1].done_bytes  # it does not begin at nothing again


def test_a_line_that_breaks_is_waited_for(hub: HubServer, files: dict[str, bytes]) -> None:
    hub.add(ID, files)
    hub.fault(WEIGHTS, cut_at=90_000, times=4)  # more often than the two tries: each brings some
    assert (get(tries=2) / WEIGHTS).read_bytes() == files[WEIGHTS]
    starts = [int((asked.range or "bytes=0-")[6:-1]) for asked in hub.downloads(WEIGHTS)]
    assert starts == sorted(starts) and len(set(starts)) == 5


def test_what_arrived_stays_when_the_line_is_gone_for_good(
    hub: HubServer, files: dict[str, bytes]
) -> None:
    hub.add(ID, files)
    hub.fault(WEIGHTS, cut_at=0, times=99)
    error = refused(tries=2)
    assert error.code == "no_connection"
    assert "what has arrived so far is kept" in error.remedy
    assert len(hub.downloads(WEIGHTS)) == 3
    hub.faults.clear()
    cut_off(hub)
    assert (get() / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert hub.downloads(WEIGHTS)[-1].range is not None


def test_nobody_there_is_one_clear_sentence(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    error = refused()
    assert error.code == "no_connection"
    assert "127.0.0.1:9" in error.message


def test_a_server_without_range_is_read_from_the_start(
    hub: HubServer, files: dict[str, bytes]
) -> None:
    hub.add(ID, files)
    cut_off(hub)
    hub.fault(WEIGHTS, no_range=True)
    assert (get() / WEIGHTS).read_bytes() == files[WEIGHTS]


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_a_wrong_file_is_removed_and_said(
    hub: HubServer, files: dict[str, bytes], name: str
) -> None:
    hub.add(ID, files)
    hub.fault(name, wrong=True)
    error = refused()
    assert error.code == "checksum_mismatch"
    assert name in error.message
    assert not list(repo().glob("blobs/*.incomplete"))
    assert catalog.describe_model(ID).location is None
    assert (get() / name).read_bytes() == files[name]


def test_a_part_that_was_altered_meanwhile_does_not_pass(
    hub: HubServer, files: dict[str, bytes]
) -> None:
    hub.add(ID, files)
    cut_off(hub)
    (part,) = repo().glob("blobs/*.incomplete")
    part.write_bytes(b"\0" * part.stat().st_size)
    assert refused().code == "checksum_mismatch"
    assert (get() / WEIGHTS).read_bytes() == files[WEIGHTS]


def test_a_busy_hub_is_waited_for_as_long_as_it_says(
    hub: HubServer, files: dict[str, bytes]
) -> None:
    hub.add(ID, files)
    hub.fault(WEIGHTS, status=429, headers={"Retry-After": "1"})
    seen: list[TransferProgress] = []
    fetch_model(ID, None, seen.append, pauses=AT_ONCE)
    assert sum(progress.phase == "waiting" for progress in seen) >= 4  # a second, in fifths


@pytest.mark.parametrize("where", [WEIGHTS, "api"])
def test_an_error_of_the_server_is_tried_again(
    hub: HubServer, files: dict[str, bytes], where: str
) -> None:
    hub.add(ID, files)
    hub.fault(where, status=500, times=2)
    get()
    hub.add("acme/other", files)
    hub.fault(where, status=503, times=99)
    error = refused("acme/other", tries=2)
    assert error.code == "hub_unavailable"
    assert "503" in error.message


def test_too_many_requests_are_named_when_they_do_not_end(
    hub: HubServer, files: dict[str, bytes]
) -> None:
    hub.add(ID, files)
    hub.fault("api", status=429, times=99)
    assert refused(tries=1).code == "hub_busy"


def test_a_gated_model_names_its_licence_page(hub: HubServer, files: dict[str, bytes]) -> None:
    hub.add(ID, files, gated=True)
    error = refused()
    assert error.code == "hub_gated"
    assert error.params["licence_page"] == f"{hub.url}/{ID}"
    assert "token" in error.remedy
    hub_token.store(hub.token)
    assert (get() / WEIGHTS).is_file()


def test_a_token_without_access_to_a_gated_model_is_told_apart(
    hub: HubServer, files: dict[str, bytes]
) -> None:
    hub.add(ID, files)
    hub_token.store(hub.token)
    hub.fault("config.json", status=403, code="GatedRepo")
    error = refused()
    assert error.code == "hub_gated"
    assert "owner is not among them" in error.message


def test_a_wrong_token_is_told_from_a_missing_model(
    hub: HubServer, files: dict[str, bytes]
) -> None:
    hub.add(ID, files, private=True)
    assert refused().code == "hub_not_found"
    hub_token.store("hf_wrong")
    error = refused()
    assert error.code == "hub_unauthorized"
    assert "hf_wrong" not in str(error)
    hub_token.store(hub.token)
    assert (get() / WEIGHTS).is_file()
    assert refused("acme/nothing").code == "hub_not_found"


def test_a_missing_version_is_about_the_revision(hub: HubServer, files: dict[str, bytes]) -> None:
    commit = hub.add(ID, files)
    error = refused(revision="v9")
    assert (error.code, error.field) == ("hub_revision_not_found", "model.revision")
    assert "v9" in error.message
    for bad in ("../../etc", "a b", "/abs", "x//y"):
        assert refused(revision=bad).code == "hub_revision_not_found"
    asked = len(hub.asked)
    assert get(revision=commit) == repo() / "snapshots" / commit
    assert get(revision=commit).is_dir()
    assert len(hub.asked) > asked


@pytest.mark.parametrize(
    "id", ["../../etc/passwd", "acme", "a/b/c", "acme/..", "a--b/c", "ä/b", ""]
)
def test_no_name_leads_out_of_the_cache(hub: HubServer, id: str) -> None:
    assert refused(id).code == "hub_not_found"
    assert not hub.asked


def test_a_hub_that_names_files_outside_gets_nothing_written(
    hub: HubServer, files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.add(ID, {**files, "../../../outside.json": b"{}", "/etc/config.json": b"{}"})
    assert {path.name for path in get().iterdir()} == set(files)
    assert not list(tmp_path.rglob("outside.json"))


def test_an_answer_with_a_checksum_that_is_none_is_refused(
    hub: HubServer, files: dict[str, bytes]
) -> None:
    hub.add(ID, files, siblings=[{"rfilename": "config.json", "size": 2, "blobId": "../../x"}])
    assert refused().code == "hub_strange_answer"


def test_the_token_goes_to_the_hub_alone(hub: HubServer, files: dict[str, bytes]) -> None:
    hub_token.store(hub.token)
    hub.add(ID, files)
    get()
    told = {(asked.host, asked.authorization) for asked in hub.asked}
    assert told == {("hub", f"Bearer {hub.token}"), ("cdn", None)}


def test_a_full_disk_is_known_before(
    hub: HubServer, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(ID, files)
    monkeypatch.setattr(paths, "free_bytes", lambda path: 20_300_000)
    error = refused()
    assert error.code == "disk_full_ahead"
    assert ID in error.message
    assert not hub.downloads(WEIGHTS)
    assert not list(repo().glob("blobs/*"))


def test_what_is_here_already_counts_for_the_room(
    hub: HubServer, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(ID, files)
    cut_off(hub, len(files[WEIGHTS]) - 50_000)
    monkeypatch.setattr(paths, "free_bytes", lambda path: 20_100_000)
    assert (get() / WEIGHTS).is_file()


def test_a_disk_that_fills_up_on_the_way_keeps_what_arrived(
    hub: HubServer, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(ID, files)

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hub_store, "fsync_file", full)
    error = refused()
    assert error.code == "disk_full"
    assert "kept" in error.remedy


def test_a_folder_that_cannot_be_written_is_named(
    hub: HubServer, files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.add(ID, files)
    (tmp_path / "file").write_text("in the way")
    preferences.save(Preferences(models_folder=str(tmp_path / "file" / "models")))
    error = refused()
    assert error.code == "models_folder_not_writable"
    assert str(tmp_path / "file") in error.message
    preferences.save(Preferences())


def test_a_tokenizer_alone_is_no_unfinished_download(
    hub: HubServer, files: dict[str, bytes]
) -> None:
    hub.add(ID, files)
    folder = downloads.fetch_tokenizer(ID)
    assert (folder / "tokenizer.json").is_file() and not (folder / WEIGHTS).exists()
    assert downloads.unfinished() == {}
    assert downloads.tokenizer_folder(ID) == folder and downloads.whole_model(ID) is None
    assert get() == folder
    assert len(hub.downloads("tokenizer.json")) == 1


def test_discarding_leaves_nothing_of_an_unfinished_download(
    hub: HubServer, files: dict[str, bytes]
) -> None:
    hub.add(ID, files)
    cut_off(hub)
    assert repo().is_dir()
    assert set(downloads.unfinished()) == {ID}
    discard(ID)
    assert downloads.unfinished() == {}
    assert not repo().exists()
    assert not list(hub_cache.folder().rglob("*lorasmith*"))
    discard(ID)  # nothing is left to do
    assert (get() / WEIGHTS).read_bytes() == files[WEIGHTS]


def test_discarding_a_new_version_leaves_the_old_one_whole(
    hub: HubServer, files: dict[str, bytes]
) -> None:
    hub.add(ID, files)
    old = get()
    newer = model_files(seed=1)
    commit = hub.add(ID, newer)
    hub.fault(WEIGHTS, cut_at=1000)
    assert refused(revision=commit).code == "no_connection"
    discard(ID)
    assert {path.name: path.read_bytes() for path in old.iterdir()} == files
    assert hub_cache.find_snapshot(ID) == old
    assert not (repo() / "snapshots" / commit).exists()
    assert not list(repo().glob("blobs/*.incomplete"))


def test_of_two_at_once_one_downloads_and_the_other_waits(
    hub: HubServer, files: dict[str, bytes]
) -> None:
    hub.add(ID, files)
    hub.fault(WEIGHTS, held_at=100_000)
    phases: set[str] = set()
    began = threading.Event()
    first = threading.Thread(
        target=fetch_model, args=(ID, None, lambda progress: began.set() if progress.file else None)
    )
    first.start()
    assert began.wait(60)
    with pytest.raises(UserError) as caught:
        discard(ID)
    assert caught.value.code == "download_running"

    def hear(progress: TransferProgress) -> None:
        phases.add(progress.phase)
        if progress.phase == "waiting":
            hub.let_go()

    folder = fetch_model(ID, None, hear)
    first.join()
    assert "waiting" in phases
    assert (folder / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert len(hub.downloads(WEIGHTS)) == 1


def test_a_model_that_cannot_be_trained_is_refused_before_its_weights_come(
    hub: HubServer, files: dict[str, bytes]
) -> None:
    config = {**json.loads(files["config.json"]), "quantization_config": {"quant_method": "awq"}}
    hub.add(ID, {**files, "config.json": json.dumps(config).encode()})
    assert refused().code == "model_quantised_already"
    assert not hub.downloads(WEIGHTS) and not hub.downloads("config.json")


def test_weights_whose_head_does_not_fit_are_no_model(
    hub: HubServer, files: dict[str, bytes]
) -> None:
    hub.add(ID, {**files, WEIGHTS: files[WEIGHTS][:-8]})  # so the Hub has it
    assert refused().code == "model_weights_truncated"
    assert catalog.describe_model(ID).location is None


@pytest.mark.parametrize("damage", ["cut off", "altered"])
def test_a_model_that_was_damaged_here_is_mended(
    hub: HubServer, files: dict[str, bytes], damage: str
) -> None:
    hub.add(ID, files)
    folder = get()
    good = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).resolve().write_bytes(
        good[:1000] if damage == "cut off" else b"\xff" * 100 + good[100:]
    )
    assert "damaged" in catalog.describe_model(ID).problem
    assert downloads.whole_model(ID) is None
    assert (get() / WEIGHTS).read_bytes() == good
    assert len(hub.downloads(WEIGHTS)) == 2
    assert len(hub.downloads("config.json")) == 1
    assert catalog.describe_model(ID).problem == ""


def test_the_switch_ends_a_download_that_runs(hub: HubServer, files: dict[str, bytes]) -> None:
    hub.add(ID, files)
    hub.fault(WEIGHTS, held_at=100_000)
    seen: list[TransferProgress] = []

    def flip(progress: TransferProgress) -> None:
        seen.append(progress)
        if progress.phase == "downloading" and progress.file == WEIGHTS and len(seen) < 100:
            seen.extend([progress] * 100)
            preferences.save(Preferences(work_offline=True))

    with pytest.raises(UserError) as caught:
        fetch_model(ID, None, flip)
    assert caught.value.code == "hub_offline"
    assert list(repo().glob("blobs/*.incomplete"))
    preferences.save(Preferences())
    assert (get() / WEIGHTS).read_bytes() == files[WEIGHTS]


def test_models_go_to_the_folder_that_was_chosen(
    hub: HubServer, files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.add(ID, files)
    chosen = tmp_path / "big drive"
    preferences.save(Preferences(models_folder=str(chosen)))
    folder = get()
    assert chosen in folder.parents
    assert catalog.describe_model(ID).location == folder
    preferences.save(Preferences())
    assert catalog.describe_model(ID).location is None


def test_without_the_right_to_make_links_files_lie_in_their_place(
    hub: HubServer, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise OSError("A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", forbidden)
    hub.add(ID, files)
    cut_off(hub)
    folder = get()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert not any(path.is_symlink() for path in folder.iterdir())
    assert not list(repo().glob("blobs/*"))


def test_a_download_that_was_killed_is_gone_on_with(
    hub: HubServer, files: dict[str, bytes]
) -> None:
    hub.add(ID, files)
    hub.fault(WEIGHTS, held_at=200_000)
    code = f"from training_backend.hub import downloads; downloads.fetch_model({ID!r})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY)
    while not any(part.stat().st_size > 100_000 for part in repo().glob("blobs/*.incomplete")):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert downloads.unfinished()[ID] > 100_000
    assert (get() / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert hub.downloads(WEIGHTS)[-1].range is not None
