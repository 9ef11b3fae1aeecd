"""The adapter alone: it answers as it did, names its base for everyone, and tells nothing else."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_merge import ALL, make_adapter, rewrite

COMMIT = "0123456789abcdef0123456789abcdef01234567"
KEY = re.compile(r"base_model\.model\.model\.layers\.\d+\.\w+\.\w+\.lora_[AB]\.weight")
Export = Callable[..., Any]


@pytest.fixture
def export(do: Any, tmp_path: Path) -> Export:
    """Exports an adapter alone, to `out` by default."""

    def exported(source: Path, out: Path = tmp_path / "out", **options: Any) -> Any:
        job = {"kind": "export", "run": str(source), "out": str(out), "verify": False, **options}
        return do({"format": "adapter", **job})

    return exported


@pytest.fixture
def adapter(backend: Any, tiny_model: Path, tmp_path: Path) -> Path:
    """A plain PEFT adapter of the tiny model, with the README that PEFT writes."""
    folder = tmp_path / "adapter"
    backend(make_adapter, tiny_model, folder, {"r": 4, "lora_alpha": 8, "target_modules": ALL})
    assert str(tiny_model) in (folder / "README.md").read_text("utf-8")  # what must not go along
    return folder


def answers(base: str, adapters: list[str]) -> list[Any]:
    """Some logits of the base alone and with each adapter, loaded by PEFT."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    tokens = torch.arange(3, 40)[None]
    found = []
    for adapter in ["", *adapters]:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        model = PeftModel.from_pretrained(model, adapter) if adapter else model
        with torch.no_grad():
            found.append(model.eval()(tokens).logits[0, -1, :50].tolist())
    return found


def test_the_adapter_of_a_checkpoint_answers_as_it_did_and_nothing_else_goes_along(
    backend: Any, do: Any, export: Export, job_document: Any, tiny_model: Path, tmp_path: Path
) -> None:
    run = do(job_document(training={"save_steps": 1})).run
    checkpoint = run.checkpoints / "checkpoint-2"
    assert (checkpoint / "optimizer.pt").is_file()  # what must not go along
    done = export(run.folder, checkpoint="checkpoint-2")
    assert done.exit_code == 0, done.terminal
    out = tmp_path / "out"
    names = {path.name for path in out.iterdir()}
    assert names - {"loss.png"} == {
        "adapter_model.safetensors", "adapter_config.json", "README.md", "tokenizer.json",
        "tokenizer_config.json", "chat_template.jinja",
    }  # fmt: skip
    plain, before, after = backend(answers, tiny_model, [checkpoint, out])
    assert before == after != plain
    for path in out.iterdir():
        if path.suffix in (".json", ".md"):
            text = path.read_text("utf-8")
            assert str(tmp_path) not in text and str(run.folder) not in text
            assert str(tiny_model.parent) not in text


def test_every_weight_has_a_name_that_servers_know(
    export: Export, adapter: Path, tmp_path: Path
) -> None:
    done = export(adapter)
    assert done.exit_code == 0 and done.of("WarningRaised") == []
    head = _head(tmp_path / "out" / "adapter_model.safetensors")
    assert head.pop("__metadata__") == {"format": "pt"}
    assert len(head) == 28 and all(KEY.fullmatch(name) for name in head)
    assert {min(entry["shape"]) for entry in head.values()} == {4}


def test_what_a_server_could_not_take_is_said(
    backend: Any, export: Export, tiny_model: Path, tmp_path: Path
) -> None:
    options = {"r": 4, "lora_alpha": 8, "target_modules": ALL, "use_dora": True}
    backend(make_adapter, tiny_model, tmp_path / "adapter", options)
    done = export(tmp_path / "adapter")
    assert done.exit_code == 0
    (warning,) = done.of("WarningRaised")
    assert warning.code == "adapter_not_for_vllm" and "DoRA" in warning.message
    assert "vLLM cannot serve it" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_a_base_from_the_hub_is_named_as_it_is_there_with_its_licence(
    export: Export, adapter: Path, tiny_model: Path, tmp_path: Path
) -> None:
    base = tmp_path / "hub" / "models--acme--writer" / "snapshots" / COMMIT
    shutil.copytree(tiny_model, base)
    card = "---\nlicense: other\nlicense_name: acme-1\nlicense_link: LICENSE\n---\n# Writer\n"
    (base / "README.md").write_text(card)
    for name in ("LICENSE", "NOTICE.txt", "USE_POLICY.md"):
        (base / name).write_text(f"the {name} of acme")
    _change(adapter / "adapter_config.json", base_model_name_or_path=str(base))
    assert export(adapter).exit_code == 0
    out = tmp_path / "out"
    config = json.loads((out / "adapter_config.json").read_text("utf-8"))
    assert (config["base_model_name_or_path"], config["revision"]) == ("acme/writer", COMMIT)
    assert (out / "USE_POLICY.md").read_text() == "the USE_POLICY.md of acme"
    assert (out / "NOTICE.txt").is_file() and (out / "LICENSE").is_file()
    head = (out / "README.md").read_text("utf-8").split("---")[1]
    for line in ('base_model: "acme/writer"', 'license: "other"', 'license_name: "acme-1"',
                 'license_link: "LICENSE"', 'library_name: "peft"'):  # fmt: skip
        assert line in head.splitlines()

    assert export(adapter, tmp_path / "merged", format="safetensors").exit_code == 0
    merged = (tmp_path / "merged" / "README.md").read_text("utf-8").split("---")[1]
    assert 'base_model: "acme/writer"' in merged and 'license: "other"' in merged
    assert (tmp_path / "merged" / "NOTICE.txt").is_file()


def test_nothing_that_somebody_wrote_into_the_weights_head_goes_along(
    export: Export, adapter: Path, tmp_path: Path
) -> None:
    path = adapter / "adapter_model.safetensors"
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    head = {**json.loads(data[8 : 8 + size]), "__metadata__": {"author": "me", "from": "/home/me"}}
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
    assert export(adapter).exit_code == 0
    written = tmp_path / "out" / "adapter_model.safetensors"
    assert b"/home/me" not in written.read_bytes()
    assert written.read_bytes().endswith(data[8 + size :])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_adapter_that_is_no_numbers_is_refused(
    backend: Any, export: Export, adapter: Path, tmp_path: Path, value: float
) -> None:
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    backend(rewrite, adapter, {name: value})
    done = export(adapter)
    assert done.terminal.code == "weights_not_finite" and name in done.sentence
    assert done.terminal.field == "run" and not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


def _head(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    head: dict[str, Any] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return head


def _change(path: Path, **values: Any) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**document, **values}), encoding="utf-8")
