"""Pushing to a Hub on the loopback: whole, paused, broken off, refused, renewed, full."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.hub_server import HubServer
from tests.model_files import model_files
from training_backend import preferences
from training_backend.errors import StopRequested, UserError
from training_backend.hub import hub_token, large_files, push, push_files, push_repo
from training_backend.hub.push import Pushed
from training_backend.hub.transfer import TransferProgress
from training_backend.preferences import Preferences

REPO = "tester/mine"
WEIGHTS = "model.safetensors"
CARD = "---\nlicense: mit\n---\n\n# Mine\n"
PICTURE = b"\x89PNG picture"
AT_ONCE = (0.0,) * 5


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A whole model, as an export leaves it."""
    folder = tmp_path / "export"
    folder.mkdir()
    for name, content in model_files().items():
        if name != "README.md":
            (folder / name).write_bytes(content)
    (folder / "LICENSE").write_text("Do what you like.\n")
    return folder


@pytest.fixture
def hub(hub: HubServer) -> HubServer:
    """One that knows the token that is kept here."""
    hub_token.store(hub.token)
    return hub


@pytest.fixture(autouse=True)
def _nothing_begun() -> None:
    large_files._begun.clear()


def send(
    folder: Path, repo: str = REPO, *, tries: int = 5, card: str = CARD, private: bool = True,
    renew: bool = False,
) -> Pushed:  # fmt: skip
    return push.push(
        folder, repo, card, PICTURE, private=private, renew=renew, pauses=AT_ONCE[:tries]
    )


def refused(folder: Path, repo: str = REPO, **how: object) -> UserError:
    with pytest.raises(UserError) as caught:
        send(folder, repo, **{"tries": 0, **how})  # type: ignore[arg-type]
    assert caught.value.remedy and "Traceback" not in str(caught.value)
    return caught.value


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def parts_sent(hub: HubServer) -> int:
    return sum(asked.method == "PUT" for asked in hub.asked)


# --- what arrives ------------------------------------------------------------------------------


def test_a_model_arrives_private_whole_and_in_one_commit(hub: HubServer, export: Path) -> None:
    told = send(export)
    assert (told.repo, told.url, told.private) == (REPO, f"{hub.url}/{REPO}", True)
    assert hub.models[REPO].private and told.commit == hub.models[REPO].commit
    there = dict(hub.models[REPO].files)
    assert there.pop(".gitattributes")
    assert (there["loss.png"], there["README.md"]) == (PICTURE, CARD.encode())
    assert there == contents(export)  # the card stays beside the model
    assert told.sent_bytes == sum(map(len, contents(export).values()))
    assert len(hub.store.commits) == 1
    kinds = {line["value"]["path"]: line["key"] for line in hub.store.commits[0][1:]}
    assert kinds[WEIGHTS] == "lfsFile" and kinds["README.md"] == kinds["config.json"] == "file"


def test_a_large_file_goes_in_parts_to_the_store_which_never_sees_the_token(
    hub: HubServer, export: Path
) -> None:
    size = (export / WEIGHTS).stat().st_size
    assert size > 2 * hub.store.part_bytes
    send(export)
    sent = [asked for asked in hub.asked if asked.method == "PUT"]
    assert len(sent) >= -(-size // hub.store.part_bytes)
    assert {(asked.host, asked.authorization) for asked in sent} == {("cdn", None)}
    told = [asked for asked in hub.asked if asked.host == "hub"]
    assert {asked.authorization for asked in told} == {f"Bearer {hub.token}"}


def test_public_is_only_what_was_asked_to_be(hub: HubServer, export: Path) -> None:
    assert not send(export, private=False).private
    assert not hub.models[REPO].private


def test_a_name_alone_is_the_accounts_own(hub: HubServer, export: Path) -> None:
    assert send(export, "mine").repo == "tester/mine"
    assert send(export, "acme/mine").repo == "acme/mine"
    assert send(export, "https://huggingface.co/tester/third").repo == ("tester/third")


def test_an_adapter_and_a_gguf_file_arrive_too(hub: HubServer, tmp_path: Path) -> None:
    adapter, gguf = tmp_path / "adapter", tmp_path / "gguf"
    for folder, names in (
        (adapter, ("adapter_config.json", "adapter_model.safetensors")),
        (gguf, ("mine-Q8_0.gguf", "Modelfile")),
    ):
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes(b"{}" if name.endswith(".json") else name.encode() * 40)
    (adapter / "adapter_model.safetensors").write_bytes(model_files()[WEIGHTS])
    assert (push_files.look(adapter).form, push_files.look(gguf).form) == ("adapter", "gguf")
    send(adapter, "tester/adapter")
    send(gguf, "tester/gguf")
    assert contents(adapter).items() <= hub.models["tester/adapter"].files.items()
    assert contents(gguf).items() <= hub.models["tester/gguf"].files.items()


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the library itself
def test_the_server_of_these_tests_takes_what_huggingface_hub_itself_sends(
    hub: HubServer, export: Path
) -> None:
    """So that both speak the Hub's language, and not one that was made up here."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=hub.url, token=hub.token)
    api.create_repo("tester/theirs", private=True)
    (export / "README.md").write_text(CARD)
    api.upload_folder(repo_id="tester/theirs", folder_path=export, commit_message="theirs")
    theirs = dict(hub.models["tester/theirs"].files)
    send(export, "tester/ours")
    ours = dict(hub.models["tester/ours"].files)
    assert ours.pop("loss.png") and ours == theirs


# --- progress, pauses, broken lines --------------------------------------------------------------


def test_progress_counts_the_bytes_of_all_files(hub: HubServer, export: Path) -> None:
    seen: list[TransferProgress] = []
    push.push(export, REPO, CARD, on_progress=seen.append)
    total = sum(map(len, contents(export).values()))
    sending = [progress for progress in seen if progress.phase == "uploading"]
    assert {progress.total_bytes for progress in sending} == {total}
    counts = [progress.done_bytes for progress in sending]
    assert counts == sorted(counts) and len(set(counts)) > 2
    assert seen[0].phase == "asking" and seen[-1].phase == "done"
    assert seen[-1].done_bytes == total


def test_stopping_is_a_pause_and_the_next_push_sends_the_rest(hub: HubServer, export: Path) -> None:
    seen: list[TransferProgress] = []
    enough = hub.store.part_bytes + 20_000  # in the second part
    hub.fault("part", pause=0.01, times=2)

    def is_enough() -> bool:
        return bool(seen) and seen[-1].done_bytes >= enough

    with pytest.raises(StopRequested):
        push.push(export, REPO, CARD, on_progress=seen.append, should_stop=is_enough)
    assert not hub.store.commits and hub.models[REPO].files.keys() == {".gitattributes"}
    assert {number for _, number in hub.store.parts} == {1}
    hub.faults.clear()
    again: list[TransferProgress] = []
    push.push(export, REPO, CARD, on_progress=again.append)
    assert hub.models[REPO].files[WEIGHTS] == (export / WEIGHTS).read_bytes()
    sent = [asked.path.rpartition("/")[2] for asked in hub.asked if asked.method == "PUT"]
    assert sent.count("1") == 1 and sent.count("3") == 1
    begun = next(p for p in again if p.phase == "uploading")
    assert begun.done_bytes >= hub.store.part_bytes  # it does not begin at nothing again


def test_another_process_sends_only_the_files_that_are_not_there(
    hub: HubServer, export: Path
) -> None:
    weights = (export / WEIGHTS).read_bytes()
    hub.store.objects[hashlib.sha256(weights).hexdigest()] = weights
    told = send(export)
    assert hub.models[REPO].files[WEIGHTS] == weights
    assert not any(a.method == "PUT" and not a.path.endswith("/0") for a in hub.asked)
    assert told.commit


def test_a_line_that_breaks_is_waited_for_and_no_part_goes_twice(
    hub: HubServer, export: Path
) -> None:
    hub.fault("part", cut_at=1_000, times=2)
    seen: list[TransferProgress] = []
    push.push(export, REPO, CARD, on_progress=seen.append, pauses=AT_ONCE)
    assert hub.models[REPO].files[WEIGHTS] == (export / WEIGHTS).read_bytes()
    assert "waiting" not in {progress.phase for progress in seen}  # the pauses are of no time here
    assert seen[-1].done_bytes == seen[-1].total_bytes


def test_a_line_that_stays_broken_is_one_sentence_and_what_arrived_is_kept(
    hub: HubServer, export: Path
) -> None:
    send_parts = hub.store.parts
    hub.fault("part", cut_at=1_000, times=99)
    error = refused(export)
    assert error.code == "no_connection" and not send_parts
    hub.faults.clear()
    assert send(export).commit


@pytest.mark.parametrize("status", [500, 502, 503, 429])
@pytest.mark.parametrize("step", ["whoami", "create", "preupload", "batch", "part", "commit"])
def test_a_hub_that_stumbles_once_is_asked_again(
    hub: HubServer, export: Path, step: str, status: int
) -> None:
    hub.fault(step, status=status)
    assert send(export).commit == hub.models[REPO].commit


@pytest.mark.parametrize("step", ["create", "commit"])
def test_an_answer_that_is_lost_does_the_thing_only_once(
    hub: HubServer, export: Path, step: str
) -> None:
    hub.fault(step, cut_at=1)
    told = send(export)
    assert told.commit == hub.models[REPO].commit and len(hub.store.commits) == 1


def test_addresses_that_expired_are_asked_for_anew(hub: HubServer, export: Path) -> None:
    hub.fault("part", status=503, times=99)
    refused(export)
    hub.faults.clear()
    assert large_files._begun
    hub.store.signature = "another"
    assert send(export).commit == hub.models[REPO].commit
    assert not large_files._begun


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "status", "code", "field"),
    [
        ("whoami", 401, "hub_unauthorized", "push.token"),
        ("create", 401, "hub_unauthorized", "push.token"),
        ("create", 403, "hub_no_right", "push.token"),
        ("preupload", 403, "hub_no_right", "push.token"),
        ("preupload", 404, "hub_repo_missing", "push.repo"),
        ("batch", 403, "hub_no_right", "push.token"),
        ("commit", 403, "hub_no_right", "push.token"),
        ("commit", 412, "hub_conflict", "push.repo"),
        ("commit", 409, "hub_conflict", "push.repo"),
        ("commit", 413, "hub_refused", "push.repo"),
        ("commit", 402, "hub_no_room", "push.repo"),
        ("whoami", 429, "hub_busy", "push.repo"),
        ("part", 500, "hub_unavailable", "push.repo"),
        ("finish", 500, "hub_unavailable", "push.repo"),
        ("finish", 422, "hub_refused", "push.repo"),
    ],
)
def test_each_refusal_is_one_sentence_with_its_field(
    hub: HubServer, export: Path, step: str, status: int, code: str, field: str
) -> None:
    hub.fault(step, status=status, times=99)
    error = refused(export)
    assert (error.code, error.field) == (code, field)
    assert hub.token not in str(error) and "signature" not in str(error)


def test_the_hubs_own_reason_is_told(hub: HubServer, export: Path) -> None:
    hub.fault("create", status=403, headers={"X-Error-Message": "Your account is too new."})
    assert "(the Hub says: Your account is too new)" in str(refused(export))


def test_a_full_account_is_named(hub: HubServer, export: Path) -> None:
    hub.store.full = True
    error = refused(export)
    assert error.code == "hub_no_room" and "storage limit reached" in error.message


def test_without_a_token_nothing_is_asked(hub: HubServer, export: Path) -> None:
    hub_token.forget()
    assert refused(export).code == "hub_token_missing"
    assert not hub.asked


def test_a_wrong_token_and_one_that_only_reads_are_told_apart(hub: HubServer, export: Path) -> None:
    hub.store.role = "read"
    error = refused(export)
    assert (error.code, error.params["name"]) == ("hub_token_reads_only", "tester")
    hub_token.store("hf_other")
    assert refused(export).code == "hub_unauthorized"
    assert not hub.models


def test_someone_elses_name_is_refused_before_anything_is_read(
    hub: HubServer, export: Path
) -> None:
    error = refused(export, "google/mine")
    assert error.code == "hub_owner_unknown" and "tester, acme" in error.remedy


@pytest.mark.parametrize("name", ["", "a b", "tester/../x", "tester/", "x" * 100, "a/b/c", "é"])
def test_a_name_that_cannot_be_is_refused(hub: HubServer, export: Path, name: str) -> None:
    error = refused(export, name)
    assert error.field == "push.repo" and not hub.models


def test_working_offline_sends_nothing_and_stops_what_is_sent(hub: HubServer, export: Path) -> None:
    preferences.save(Preferences(work_offline=True))
    assert refused(export).code == "hub_offline" and not hub.asked
    preferences.save(Preferences())
    hub.fault("part", pause=0.05, times=99)
    flipped: list[int] = []

    def flip(progress: TransferProgress) -> None:
        if progress.phase == "uploading" and not flipped:
            flipped.append(1)
            preferences.save(Preferences(work_offline=True))

    with pytest.raises(UserError) as caught:
        push.push(export, REPO, CARD, on_progress=flip, pauses=())
    assert caught.value.code == "hub_offline" and not hub.store.commits


def test_what_is_no_answer_of_the_hub_is_named(hub: HubServer, export: Path) -> None:
    for step in ("preupload", "batch", "commit"):
        hub.faults.clear()
        hub.fault(step, wrong=True, times=99)
        assert refused(export).code == "hub_strange_answer"


# --- what is there already -----------------------------------------------------------------------


def test_what_is_there_already_is_not_sent_again(hub: HubServer, export: Path) -> None:
    first = send(export)
    again = send(export)
    assert (again.commit, again.sent_bytes) == (first.commit, 0)
    assert len(hub.store.commits) == 1


def test_a_repository_with_other_files_is_only_renewed_when_asked(
    hub: HubServer, export: Path
) -> None:
    hub.add(REPO, {"old.txt": b"old", ".gitattributes": b""}, private=True)
    error = refused(export)
    assert (error.code, error.params["count"]) == ("hub_repo_not_empty", 1)
    assert hub.models[REPO].files["old.txt"] == b"old"
    send(export, renew=True)
    files = hub.models[REPO].files
    assert files["old.txt"] == b"old" and files[WEIGHTS] == (export / WEIGHTS).read_bytes()


def test_weights_that_are_no_longer_of_the_model_are_removed(hub: HubServer, export: Path) -> None:
    old = {"model-00001-of-00002.safetensors": b"a", "model.safetensors.index.json": b"{}"}
    hub.add(REPO, {**old, "notes.md": b"n", "mine-Q4.gguf": b"g"}, private=True)
    send(export, renew=True)
    files = hub.models[REPO].files
    assert not old.keys() & files.keys() and {"notes.md", "mine-Q4.gguf"} <= files.keys()


def test_nothing_private_goes_into_a_repository_that_all_can_see(
    hub: HubServer, export: Path
) -> None:
    hub.add(REPO, {".gitattributes": b""}, private=False)
    error = refused(export)
    assert (error.code, error.field) == ("hub_repo_is_public", "push.visibility")
    assert not parts_sent(hub)
    assert not send(export, private=False).private


def test_a_repository_that_is_private_stays_so(hub: HubServer, export: Path) -> None:
    hub.add(REPO, {".gitattributes": b""}, private=True)
    assert send(export, private=False).private


# --- what may leave ------------------------------------------------------------------------------


def test_only_what_belongs_to_an_export_goes(hub: HubServer, export: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    for name in ("optimizer.pt", "training_args.bin", ".env", "run.log", "rows.jsonl"):
        (export / name).write_text("x")
    (export / "data").mkdir()
    (export / "notes.txt").symlink_to(secret)
    found = push_files.look(export)
    assert set(found.left_out) == {
        "optimizer.pt", "training_args.bin", ".env", "run.log", "rows.jsonl", "data", "notes.txt",
    }  # fmt: skip
    send(export)
    assert not set(found.left_out) & hub.models[REPO].files.keys()


def test_a_folder_that_is_no_finished_export_is_refused(
    hub: HubServer, export: Path, tmp_path: Path
) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        assert refused(folder).code == "not_an_export"
    for name in ("config.json", "adapter_config.json"):
        (tmp_path / name).write_text("{}")
        assert refused(tmp_path).code == "not_an_export", "it has no weights"
    (export / ".lorasmith-partial").touch()
    assert refused(export).code == "not_an_export" and not hub.asked


def test_a_model_with_a_damaged_file_stays_here(hub: HubServer, export: Path) -> None:
    with (export / WEIGHTS).open("r+b") as file:
        file.truncate(100_000)
    error = refused(export)
    assert (error.code, error.field) == ("export_file_cut", "push.folder") and not hub.asked


@pytest.mark.parametrize("text", [str(Path.home() / "models" / "x"), "hf_" + "a1B2" * 8])
def test_a_file_or_card_that_tells_of_this_person_stays_here(
    hub: HubServer, export: Path, text: str
) -> None:
    assert refused(export, card=f"# Mine\n\nfrom {text}\n").code == "hub_card_private"
    (export / "config.json").write_text(f'{{"_name_or_path": "{text}"}}')
    error = refused(export)
    assert (error.code, error.params["name"]) == ("file_names_path", "config.json")
    (export / "config.json").write_text("{}")
    (export / "Modelfile").write_text(f"FROM {text}\n")
    assert refused(export).params["name"] == "Modelfile" and not hub.asked


@pytest.mark.parametrize(
    "card", ["---\nlicense: [mit\n---\n", "---\n- mit\n---\n", "---\nlicense: nonsense\n---\nx"]
)
def test_a_card_that_the_hub_would_refuse_is_refused_first(
    hub: HubServer, export: Path, card: str
) -> None:
    error = refused(export, card=card)
    assert (error.code, error.field) == ("hub_card_malformed", "push.card")
    assert not hub.models


def test_a_file_that_changes_or_goes_meanwhile_is_named(hub: HubServer, export: Path) -> None:
    def shrink(progress: TransferProgress) -> None:
        if progress.phase == "uploading":
            with (export / WEIGHTS).open("r+b") as file:
                file.truncate(1_000)

    with pytest.raises(UserError) as caught:
        push.push(export, REPO, CARD, on_progress=shrink, pauses=())
    assert caught.value.code in ("push_file_changed", "hub_refused", "no_connection")
    assert not hub.store.commits
    if os.geteuid() != 0 and os.name != "nt":  # root may read everything
        (export / WEIGHTS).chmod(0)
        assert refused(export).code == "push_file_unreadable"


def test_the_account_tells_where_one_may_write(hub: HubServer) -> None:
    found = push_repo.account()
    assert (found.name, found.owners, found.may_write) == ("tester", ("tester", "acme"), True)


def test_no_token_lies_in_any_file_after_a_push(
    hub: HubServer, export: Path, lorasmith_home: Path
) -> None:
    send(export)
    hub_token.forget()
    for path in (*export.rglob("*"), *lorasmith_home.rglob("*")):
        assert path.is_dir() or hub.token.encode() not in path.read_bytes()


def test_pushing_imports_no_torch(hub: HubServer, export: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from training_backend.hub import push; "
        f"push.push(Path({str(export)!r}), {REPO!r}, '# Mine'); "
        "print({'torch', 'transformers', 'datasets'} & set(sys.modules))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, encoding="utf-8",
        check=True,
    )  # fmt: skip
    assert answer.stdout.strip() == "set()"
