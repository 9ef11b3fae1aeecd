"""Where an export comes from: told by its public name, never by a path of this computer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from training_backend.models import demo_model, licence, origin
from training_backend.models.adapters import Adapter
from training_backend.models.licence import Licence

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _card(folder: Path, head: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(f"---\n{head}\n---\n# A model\nlicense: none\n", "utf-8")
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A snapshot of acme/writer in a Hugging Face cache of its own."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    repo = tmp_path / "hub" / "models--acme--writer"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    return _card(repo / "snapshots" / COMMIT, "license: mit")


def test_a_base_in_the_hubs_cache_is_told_by_its_id_and_commit(cache: Path) -> None:
    found = origin.find(str(cache))
    assert (found.id, found.name, found.revision) == ("acme/writer", "acme/writer", COMMIT)
    assert found.licence == Licence("mit") and found.folder == cache
    assert origin.find("acme/writer").folder == cache
    assert origin.find("acme/writer", COMMIT).licence == Licence("mit")


def test_a_base_of_the_catalogue_has_its_licence_though_it_is_not_here(cache: Path) -> None:
    found = origin.find("Qwen/Qwen2.5-3B-Instruct")
    assert found.folder is None and found.licence == Licence("qwen-research")
    assert origin.find("nobody/knows").licence == Licence()


def test_a_folder_of_this_computer_is_told_by_its_name_alone(tmp_path: Path) -> None:
    found = origin.find(str(_card(tmp_path / "mine", "license: apache-2.0")))
    assert (found.id, found.name, found.revision) == ("", "mine", "")
    assert found.licence == Licence("apache-2.0")
    gone = origin.find(str(tmp_path / "gone" / "model"))
    assert (gone.id, gone.name, gone.licence) == ("", "model", Licence())
    assert origin.find(r"C:\Users\me\models\mine").name == "mine"
    assert origin.find("~nobody-of-this-name/models/mine").name == "mine"


def test_the_demo_model_is_told_by_what_it_was_made_of(lorasmith_home: Path) -> None:
    _card(demo_model.demo_model_folder(), "license: apache-2.0")
    link = lorasmith_home / "elsewhere"
    names = ["demo", str(demo_model.demo_model_folder())]
    try:
        link.symlink_to(demo_model.demo_model_folder())
        names.append(str(link))
    except OSError:
        pass  # for administrators only here
    for name in names:
        found = origin.find(name)
        assert found.id == "HuggingFaceTB/SmolLM2-135M-Instruct"
        assert found.licence == Licence("apache-2.0")


def test_an_adapter_from_elsewhere_brings_about_no_look_at_another_computer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def looked(*_: Any) -> Any:
        raise AssertionError("it looked")

    monkeypatch.setattr("os.stat", looked)
    for base in (r"\\evil.example\share\model", "//evil.example/share/model"):
        found = origin.of_adapter(Adapter(Path("adapter"), base, {}, None))
        assert (found.id, found.name, found.folder) == ("", "model", None)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("license: apache-2.0", Licence("apache-2.0")),
        ("language: en\nlicense: 'mit'   # free", Licence("mit")),
        ("license:\n- llama3.2\nbase_model: x/y", Licence("llama3.2")),
        (
            'license: other\nlicense_name: "qwen-research"\nlicense_link: https://a.example/LICENSE',
            Licence("other", "qwen-research", "https://a.example/LICENSE"),
        ),
        ("license: other\nlicense_link: LICENSE.md", Licence("other", "", "LICENSE.md")),
        ("license: other\nlicense_link: /home/me/LICENSE", Licence("other")),
        ("license_name: only\nbase_model: x/license: mit", Licence("", "only")),
        ("license:\nbase_model: x", Licence()),
        ("", Licence()),
    ],
    ids=str,
)
def test_the_head_of_a_model_card_tells_the_licence(
    tmp_path: Path, head: str, expected: Licence
) -> None:
    assert licence.read(_card(tmp_path, head)) == expected


def test_a_card_that_cannot_be_read_tells_nothing(tmp_path: Path) -> None:
    assert licence.read(tmp_path) == Licence()
    (tmp_path / "README.md").write_bytes(b"---\nlicense: \xff\n---")
    assert licence.read(tmp_path) == Licence()
    (tmp_path / "README.md").write_text("license: mit\n")  # no head
    assert licence.read(tmp_path) == Licence()


def test_licences_notices_and_rules_of_use_are_the_files_that_go_along(tmp_path: Path) -> None:
    names = ["LICENSE", "LICENCE.txt", "NOTICE", "USE_POLICY.md", "COPYING", "license-gemma.md"]
    for name in [*names, "README.md", "notes.txt", "config.json", "unlicensed.txt"]:
        (tmp_path / name).touch()
    assert [path.name for path in licence.files(tmp_path)] == sorted(names)
    assert licence.files(tmp_path / "gone") == []
