"""What to do with an export: the commands of the programs that run it, ready to copy.

Light: reads the heads of files and small JSON.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from training_backend.errors import UserError, as_document
from training_backend.export import gguf_file, lm_studio, ollama, ollama_modelfile, shell_words
from training_backend.hub import hub_cache
from training_backend.job import ExportFormat
from training_backend.models import vllm
from training_backend.models.adapters import CONFIG
from training_backend.models.export_form import form_of
from training_backend.paths import UNFINISHED, not_reserved

Program = Literal["ollama", "lm_studio", "llama_cpp", "vllm", "tgi"]
TITLES: dict[Program, str] = {
    "ollama": "Ollama",
    "lm_studio": "LM Studio",
    "llama_cpp": "llama.cpp",
    "vllm": "vLLM",
    "tgi": "TGI",
}

_BASE_FILE = "BASE.gguf"  # stands for what only the person knows
_BASE = "BASE"
_TGI_IMAGE = "ghcr.io/huggingface/text-generation-inference"


@dataclass(frozen=True)
class Command:
    """One command. `does`: create, chat or serve."""

    does: str
    words: tuple[str, ...]

    @property
    def posix(self) -> str:
        return shell_words.posix(self.words)

    @property
    def powershell(self) -> str:
        return shell_words.powershell(self.words)


@dataclass(frozen=True)
class Way:
    """How one program gets the export.

    Attributes:
        found: where the program was found on this computer; "" if it was not, or not looked for.
        commands: in their order; none where it cannot have this export.
        notes: what to know; where there are no commands, why not and what to do instead.
    """

    program: Program
    commands: tuple[Command, ...] = ()
    notes: tuple[UserError, ...] = ()
    found: str = ""


@dataclass(frozen=True)
class HandOff:
    """An export and the ways on from it.

    Attributes:
        file: the GGUF file, of the formats that are one.
        name: a plain one for the model, which all programs take.
        warnings: what speaks against using it at all.
    """

    folder: Path
    kind: ExportFormat
    file: Path | None
    name: str
    ways: tuple[Way, ...]
    warnings: tuple[UserError, ...]

    def document(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "folder": str(self.folder),
            "format": self.kind,
            "file": str(self.file) if self.file else None,
            "name": self.name,
            "warnings": [as_document(warning) for warning in self.warnings],
            "programs": [
                {
                    "program": way.program,
                    "title": TITLES[way.program],
                    "found": way.found,
                    "notes": [as_document(note) for note in way.notes],
                    "commands": [
                        {"does": one.does, "posix": one.posix, "powershell": one.powershell}
                        for one in way.commands
                    ],
                }
                for way in self.ways
            ],
        }


def look(folder: Path) -> HandOff:
    """What an export is, and where it can go; a Modelfile that is missing is written.

    Args:
        folder: of an export, or one GGUF file.

    Raises `UserError` where there is no export.
    """
    folder = Path(os.path.expanduser(folder)).absolute()  # Path's own raises for an unknown user
    try:
        kind, file = _kind(folder)
    except OSError as error:
        raise UserError(
            "hand_off_unreadable",
            "The export in {folder} cannot be read: {reason}.",
            "Look whether the drive is connected, and whether you may read the folder.",
            folder=folder,
            reason=error.strerror or error,
        ) from None
    folder = file.parent if file else folder
    name = plain_name(folder.name)
    if kind == "gguf":
        assert file is not None
        ways = _gguf_ways(file, name)
    elif kind == "gguf_adapter":
        assert file is not None
        ways = _gguf_adapter_ways(file)
    elif kind == "adapter":
        ways = _adapter_ways(folder, name)
    else:
        ways = _model_ways(folder, name, four_bit=kind == "bnb_4bit")
    return HandOff(folder, kind, file, name, tuple(ways), tuple(_warnings(folder)))


def plain_name(text: str) -> str:
    """A name of lower-case letters, digits, dots and dashes, made of any words."""
    plain = unicodedata.normalize("NFKD", text.casefold()).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^a-z0-9.]+", "-", plain).strip("-.")
    return not_reserved(plain[:60].rstrip("-.") or "model")


# ------------------------------------------------------------------------------- what is there


def _kind(folder: Path) -> tuple[ExportFormat, Path | None]:
    if folder.suffix == ".gguf" and folder.is_file():
        files = [folder]
    elif not folder.is_dir():
        raise UserError(
            "hand_off_no_folder",
            "There is no folder {folder}.",
            "Give the folder that an export wrote.",
            folder=folder,
        )
    elif (folder / UNFINISHED).exists():
        raise UserError(
            "hand_off_unfinished",
            "The export in {folder} did not come to its end.",
            "Export it again.",
            folder=folder,
        )
    else:
        files = sorted(folder.glob("*.gguf"))
    if len(files) > 1:
        raise UserError(
            "hand_off_several",
            "There are {count} GGUF files in {folder}.",
            "Give one of them instead of the folder.",
            count=len(files),
            folder=folder,
        )
    if files:
        is_adapter = gguf_file.read(files[0]).metadata.get("general.type") == "adapter"
        return "gguf_adapter" if is_adapter else "gguf", files[0]
    form = form_of(folder)
    if form is None or (form != "adapter" and not list(folder.glob("*.safetensors"))):
        raise UserError(
            "hand_off_nothing",
            "There is no export in {folder}: no GGUF file, no adapter and no model.",
            "Give the folder that an export wrote.",
            folder=folder,
        )
    return form, None


def _warnings(folder: Path) -> list[UserError]:
    if _json(folder / "proof.json").get("verdict") != "different":
        return []
    return [
        UserError(
            "hand_off_different",
            "The check after the export found that this model answers differently from the one "
            "that was trained.",
            "See why on the Export page before you use it.",
        )
    ]


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


# ------------------------------------------------------------------------- the ways of each kind


def _gguf_ways(file: Path, name: str) -> list[Way]:
    models = lm_studio.models_folder()
    import_words = ("lms", "import", str(file), "--user-repo", f"{lm_studio.PUBLISHER}/{name}")
    return [
        _ollama_way(file, name),
        Way(
            "lm_studio",
            (Command("create", (*import_words, "--copy", "--yes")),),
            found=str(models or ""),
        ),
        Way("llama_cpp", _llama_cpp("-m", str(file))),
        _instead("vllm", "a whole model (safetensors) or a 4-bit one"),
        _instead("tgi", "a whole model (safetensors)"),
    ]


def _ollama_way(file: Path, name: str) -> Way:
    modelfile = file.with_name(ollama_modelfile.NAME)
    found = str(ollama.find() or "")
    try:
        if not modelfile.exists():
            problem = ollama_modelfile.write(file)
        elif "\nTEMPLATE " in modelfile.read_text(encoding="utf-8", errors="replace"):
            problem = None
        else:
            problem = ollama_modelfile.compose(gguf_file.read(file)).problem
    except OSError as error:
        unwritten = UserError(
            "ollama_modelfile_unwritten",
            "The Modelfile cannot be kept beside the GGUF file: {reason}.",
            "Copy the GGUF file into a folder that you can write to.",
            reason=error.strerror or error,
        )
        return Way("ollama", notes=(unwritten,), found=found)
    commands = (
        Command("create", ("ollama", "create", name, "-f", str(modelfile))),
        Command("chat", ("ollama", "run", name)),
    )
    return Way("ollama", commands, (problem,) if problem else (), found)


def _gguf_adapter_ways(file: Path) -> list[Way]:
    base = UserError(
        "hand_off_base_file",
        "{placeholder} stands for the base model as a GGUF file.",
        placeholder=_BASE_FILE,
    )
    whole = "the whole model as a GGUF file"
    return [
        _instead("ollama", whole),
        _instead("lm_studio", whole),
        Way("llama_cpp", _llama_cpp("-m", _BASE_FILE, "--lora", str(file)), (base,)),
        _instead("vllm", "the adapter (PEFT) or a whole model"),
        _instead("tgi", "the adapter (PEFT) or a whole model"),
    ]


def _adapter_ways(folder: Path, name: str) -> list[Way]:
    config = _json(folder / CONFIG)
    named = hub_cache.parse_id(str(config.get("base_model_name_or_path") or ""))
    notes = () if named else (
        UserError(
            "hand_off_base",
            "{placeholder} stands for the folder or the Hub name of the base model.",
            placeholder=_BASE,
        ),
    )  # fmt: skip
    whole = "a whole model (safetensors)"
    rest = [
        _instead("ollama", "a GGUF file"),
        _instead("lm_studio", "a GGUF file"),
        _instead("llama_cpp", "a GGUF file, or the adapter as one"),
    ]
    beyond = vllm.beyond(config)
    if beyond:
        problem = UserError(
            "hand_off_adapter_beyond",
            "It takes plain LoRA adapters alone, and this one has {what}.",
            "Export {instead} instead.",
            what=beyond,
            instead=whole,
        )
        return [*rest, Way("vllm", notes=(problem,)), Way("tgi", notes=(problem,))]
    revision = str(config.get("revision") or "")
    base = [named or _BASE]
    if named and hub_cache.is_revision(revision):  # the version that it was trained on
        base += ["--revision", revision]
    rank = str(vllm.max_lora_rank(config))
    words = ["vllm", "serve", *base, "--enable-lora", "--max-lora-rank", rank]
    words += ["--lora-modules", f"{name}={folder}"]
    if (folder / "chat_template.jinja").is_file():
        words += ["--chat-template", str(folder / "chat_template.jinja")]
    tgi = _tgi(folder, "/adapter", "--model-id", *base, "--lora-adapters")
    served = UserError(
        "hand_off_adapter_name",
        "Ask for the model “{name}”; the base model answers under its own name.",
        name=name,
    )
    return [
        *rest,
        Way("vllm", (Command("serve", tuple(words)),), (*notes, served)),
        Way("tgi", (Command("serve", (*tgi, f"{name}=/adapter")),), (*notes, served)),
    ]


def _model_ways(folder: Path, name: str, *, four_bit: bool) -> list[Way]:
    vllm = ("vllm", "serve", str(folder), "--served-model-name", name)
    tgi = _tgi(folder, "/model", "--model-id", "/model")
    return [
        *(_instead(program, "a GGUF file") for program in ("ollama", "lm_studio", "llama_cpp")),
        Way("vllm", (Command("serve", vllm),)),
        _instead("tgi", "a whole model (safetensors)")
        if four_bit
        else Way("tgi", (Command("serve", tgi),)),
    ]  # fmt: skip


def _llama_cpp(*words: str) -> tuple[Command, ...]:
    return (
        Command("chat", ("llama-cli", *words, "--jinja")),
        Command("serve", ("llama-server", *words, "--jinja", "--port", "8080")),
    )


def _tgi(folder: Path, inside: str, *words: str) -> tuple[str, ...]:
    """The command as its documentation has it; the folder is called `inside` in there."""
    docker = ("docker", "run", "--gpus", "all", "--shm-size", "1g", "-p", "8080:80")
    return (*docker, "-v", f"{folder}:{inside}", _TGI_IMAGE, *words)


def _instead(program: Program, form: str) -> Way:
    note = UserError(
        "hand_off_other_format",
        "{title} does not take this format.",
        "Export {form} for it.",
        title=TITLES[program],
        form=form,
    )
    return Way(program, notes=(note,))
