"""What is said of an export, and of every program that may run it."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.fake_ollama import FakeOllama
from tests.gguf_files import write_gguf
from training_backend.__main__ import main
from training_backend.errors import UserError
from training_backend.export import hand_off, ollama
from training_backend.export.hand_off import HandOff, Way
from training_backend.paths import UNFINISHED


@pytest.fixture(autouse=True)
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ollama, "find", lambda: None)
    for variable in ("HOME", "USERPROFILE", "XDG_CONFIG_HOME", "APPDATA"):
        monkeypatch.setenv(variable, str(tmp_path / "person"))


def way(found: HandOff, program: str) -> Way:
    (one,) = [way for way in found.ways if way.program == program]
    return one


def words(found: HandOff, program: str, does: str) -> list[str]:
    (one,) = [command for command in way(found, program).commands if command.does == does]
    return list(one.words)


def notes(found: HandOff, program: str) -> str:
    return " ".join(str(note) for note in way(found, program).notes)


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    folder = tmp_path / "Größe test"
    folder.mkdir()
    return write_gguf(folder / "Größe test-Q8_0.gguf")


def adapter(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    document = {"base_model_name_or_path": "owner/base", "r": 12, "bias": "none", **config}
    (folder / "adapter_config.json").write_text(json.dumps(document))
    (folder / "adapter_model.safetensors").touch()
    return folder


def model(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    (folder / "model.safetensors").touch()
    return folder


def test_a_gguf_file_goes_to_ollama_lm_studio_and_llama_cpp(gguf: Path) -> None:
    found = hand_off.look(gguf.parent)
    assert (found.kind, found.file, found.name) == ("gguf", gguf, "grosse-test")
    assert (gguf.parent / "Modelfile").is_file()
    modelfile = str(gguf.parent / "Modelfile")
    assert words(found, "ollama", "create") == ["ollama", "create", "grosse-test", "-f", modelfile]
    assert words(found, "ollama", "chat") == ["ollama", "run", "grosse-test"]
    assert words(found, "lm_studio", "create")[:3] == ["lms", "import", str(gguf)]
    assert words(found, "llama_cpp", "chat") == ["llama-cli", "-m", str(gguf), "--jinja"]
    assert words(found, "llama_cpp", "serve")[:3] == ["llama-server", "-m", str(gguf)]
    for program in ("vllm", "tgi"):
        assert not way(found, program).commands
        assert "Export a whole model (safetensors)" in notes(found, program)
    assert hand_off.look(gguf).document() == found.document(), "the file itself may be given"


def test_a_modelfile_that_a_person_changed_stays(gguf: Path) -> None:
    modelfile = gguf.with_name("Modelfile")
    modelfile.write_text("FROM ./mine.gguf\nTEMPLATE mine\n")
    assert not notes(hand_off.look(gguf), "ollama")
    assert modelfile.read_text() == "FROM ./mine.gguf\nTEMPLATE mine\n"


def test_a_template_that_ollama_cannot_have_is_said_every_time(tmp_path: Path) -> None:
    file = write_gguf(
        tmp_path / "a.gguf", "{% for m in messages %}{{ m.content|upper }}{% endfor %}"
    )
    for _ in range(2):
        assert "cannot be given this model's chat template" in notes(hand_off.look(file), "ollama")


def test_a_modelfile_that_cannot_be_had_is_a_sentence(gguf: Path) -> None:
    gguf.with_name("Modelfile").mkdir()
    assert "The Modelfile cannot be" in notes(hand_off.look(gguf), "ollama")
    assert way(hand_off.look(gguf), "llama_cpp").commands


def test_a_gguf_adapter_needs_its_base(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "lora.gguf", general__type="adapter")
    found = hand_off.look(tmp_path)
    assert found.kind == "gguf_adapter"
    assert words(found, "llama_cpp", "chat")[1:5] == ["-m", "BASE.gguf", "--lora", str(file)]
    assert "BASE.gguf stands for" in notes(found, "llama_cpp")
    assert not way(found, "ollama").commands and not (tmp_path / "Modelfile").exists()


def test_an_adapter_is_served_beside_its_base(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "support bot")
    (folder / "chat_template.jinja").touch()
    found = hand_off.look(folder)
    assert words(found, "vllm", "serve") == [
        "vllm", "serve", "owner/base", "--enable-lora", "--max-lora-rank", "16",
        "--lora-modules", f"support-bot={folder}",
        "--chat-template", str(folder / "chat_template.jinja"),
    ]  # fmt: skip
    tgi = words(found, "tgi", "serve")
    assert f"{folder}:/adapter" in tgi and tgi[-1] == "support-bot=/adapter"
    assert "Ask for the model “support-bot”" in notes(found, "vllm")
    assert "a GGUF file" in notes(found, "ollama")


def test_the_version_of_the_base_is_named(tmp_path: Path) -> None:
    found = hand_off.look(adapter(tmp_path / "a", revision="0a1b"))
    for program in ("vllm", "tgi"):
        said = words(found, program, "serve")
        assert said[said.index("--revision") + 1] == "0a1b"
    bad = hand_off.look(adapter(tmp_path / "b", revision="../x --y"))
    assert "--revision" not in words(bad, "vllm", "serve")


def test_a_base_that_is_a_folder_elsewhere_is_left_to_the_person(tmp_path: Path) -> None:
    found = hand_off.look(adapter(tmp_path / "a", base_model_name_or_path="SmolLM2"))
    assert words(found, "vllm", "serve")[2] == "BASE"
    assert "BASE stands for" in notes(found, "vllm") and "BASE stands for" in notes(found, "tgi")


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "layers that were trained whole"),
        ({"alpha_pattern": {"q_proj": 4}}, "layers of other ranks"),
        ({"bias": "all"}, "biases"),
        ({"trainable_token_indices": [1]}, "trained tokens"),
        ({"r": 1024}, "a rank above 512"),
    ],
)
def test_an_adapter_that_a_server_would_misread_is_not_offered(
    config: dict[str, Any], what: str, tmp_path: Path
) -> None:
    found = hand_off.look(adapter(tmp_path / "a", **config))
    for program in ("vllm", "tgi"):
        assert not way(found, program).commands
        assert what in notes(found, program) and "a whole model" in notes(found, program)


def test_a_model_folder_is_served(tmp_path: Path) -> None:
    folder = model(tmp_path / "whole")
    found = hand_off.look(folder)
    assert words(found, "vllm", "serve") == [
        "vllm", "serve", str(folder), "--served-model-name", "whole"
    ]  # fmt: skip
    assert f"{folder}:/model" in words(found, "tgi", "serve")
    four = hand_off.look(model(tmp_path / "four", quantization_config={"load_in_4bit": True}))
    assert four.kind == "bnb_4bit"
    assert way(four, "vllm").commands and not way(four, "tgi").commands


def test_an_export_that_answers_differently_is_warned_of(tmp_path: Path) -> None:
    folder = model(tmp_path / "whole")
    for verdict, warned in (("alike", False), ("different", True)):
        (folder / "proof.json").write_text(json.dumps({"verdict": verdict}))
        assert bool(hand_off.look(folder).warnings) == warned


def test_what_is_no_export_is_a_sentence(tmp_path: Path, gguf: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / UNFINISHED).touch()
    write_gguf(gguf.with_name("second.gguf"))
    (tmp_path / "odd" / "x.gguf").mkdir(parents=True)
    for place, sentence in (
        (tmp_path / "gone", "There is no folder"),
        (tmp_path, "There is no export in"),
        (tmp_path / "half", "did not come to its end"),
        (gguf.parent, "There are 2 GGUF files"),
        (tmp_path / "odd", "cannot be read"),
    ):
        with pytest.raises(UserError, match=sentence):
            hand_off.look(place)


@pytest.mark.parametrize(
    ("text", "name"),
    [("Größe", "grosse"), ("日本", "model"), ("a b--c", "a-b-c"), ("con", "con-"), ("..", "model"),
     ("x" * 99, "x" * 60), ("Qwen3 0.6B", "qwen3-0.6b")],
)  # fmt: skip
def test_a_name_is_made_plain(text: str, name: str) -> None:
    assert hand_off.plain_name(text) == name
    ollama.check_name(name)


def test_the_command_prints_what_can_be_copied(
    gguf: Path, capsys: pytest.CaptureFixture[str], lorasmith_home: Path
) -> None:
    assert main(["hand-off", str(gguf.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    if os.name != "nt":
        run = next(line for line in lines if line.strip().startswith("llama-cli"))
        assert shlex.split(run)[2] == str(gguf)
    assert main(["hand-off", str(gguf.parent), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["program"] for one in document["programs"]] == list(hand_off.TITLES)
    assert document["programs"][0]["commands"][1]["powershell"] == "ollama run grosse-test"
    assert main(["hand-off", str(gguf.parent / "gone")]) == 1
    assert "There is no folder" in capsys.readouterr().err


def test_the_command_gives_a_file_to_ollama_and_lm_studio(
    gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, lorasmith_home: Path,
) -> None:  # fmt: skip
    fake = FakeOllama(tmp_path / "fake", monkeypatch)
    monkeypatch.setattr(ollama, "find", lambda: fake.program)
    assert main(["hand-off", str(gguf.parent), "--ollama", "mine"]) == 0
    assert capsys.readouterr().out == "ollama run mine\n"
    assert fake.given() == gguf.with_name("Modelfile").read_text("utf-8")
    assert main(["hand-off", str(gguf.parent), "--ollama", "mine"]) == 1
    assert "has a model called mine already" in capsys.readouterr().err
    assert main(["hand-off", str(gguf.parent), "--lm-studio"]) == 1
    assert "LM Studio was not found" in capsys.readouterr().err
    (tmp_path / "person" / ".lmstudio").mkdir(parents=True)
    assert main(["hand-off", str(gguf), "--lm-studio", "--json"]) == 0
    target = Path(json.loads(capsys.readouterr().out)["file"])
    assert os.path.samefile(target, gguf)
    assert main(["hand-off", str(model(tmp_path / "whole")), "--ollama"]) == 1
    assert "Export the run with --format gguf" in capsys.readouterr().err
