"""A LoRA as a GGUF adapter: the base's file with it over it answers as the merged model's file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import TOKENIZER_FILES
from tests.integration.test_gguf import ask_engine, in_new_process, mean_kl, metadata
from tests.integration.test_merge import ALL, make_adapter

# Queries and keys are in another order in the first; the second has them in one weight.
FAMILIES = ("llama", "phi3", "qwen3")
ADAPTER = {
    "r": 8, "lora_alpha": 4, "target_modules": "all-linear", "use_rslora": True,
    "rank_pattern": {"down_proj": 3, "o_proj": 20}, "alpha_pattern": {"o_proj": 3},
}  # fmt: skip
TOKENS = [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198]


def make_families(folder: str, adapter: dict[str, Any]) -> None:
    """A tiny model of each family, an adapter of it, and the two merged by PEFT."""
    from pathlib import Path

    import torch
    import transformers
    from peft import LoraConfig, get_peft_model

    sizes = {
        "vocab_size": 49152, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2,
        "pad_token_id": 2, "tie_word_embeddings": False,
    }  # fmt: skip
    for name in ("Llama", "Phi3", "Qwen3"):
        torch.manual_seed(0)
        own = Path(folder, name.lower())
        config = getattr(transformers, f"{name}Config")(**sizes)
        family = getattr(transformers, f"{name}ForCausalLM")
        model = family(config).float()
        for parameter in model.parameters():
            parameter.data *= 2  # the family's own beginning answers nothing in particular
        model.save_pretrained(own / "base")
        model = family.from_pretrained(own / "base")  # PEFT notes where it is
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **adapter))
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(own / "adapter")
        model.merge_and_unload().save_pretrained(own / "merged")


def write_files(folder: str) -> None:
    """The GGUF files of every family: the base's, the adapter's, the merged model's."""
    from pathlib import Path

    from training_backend.export import gguf_adapter, gguf_tools
    from training_backend.models.adapters import read_adapter

    for own in sorted(Path(folder).iterdir()):
        for kind in ("base", "merged"):
            with gguf_tools.converter(own / kind, str(own / f"{kind}.gguf"), "f16", kind) as work:
                if own.name == "phi3":  # its converter knows only its own vocabulary
                    work.set_vocab = work._set_vocab_gpt2
                work.write()
        adapter = read_adapter(own / "adapter", None)
        gguf_adapter.convert(
            str(adapter.folder), str(own / "base"), str(own / "adapter.gguf"), "adapter",
            gguf_adapter._layers(adapter, own / "base"),
        )  # fmt: skip


@pytest.fixture(scope="module")
def families(backend: Any, demo_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families")
    backend(make_families, folder, ADAPTER)
    for own in folder.iterdir():
        for name in TOKENIZER_FILES:
            for kind in ("base", "merged"):
                shutil.copyfile(demo_model_dir / name, own / kind / name)
    in_new_process("write_files", folder, module=__name__)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_the_base_with_the_adapter_over_it_equals_the_merged_model(
    families: Path, tmp_path: Path, family: str
) -> None:
    own = families / family
    known: dict[str, Any] = {"prompts": [], "sequences": [TOKENS]}
    _, merged = ask_engine(own / "merged.gguf", known, tmp_path)
    _, base = ask_engine(own / "base.gguf", known, tmp_path)
    _, both = ask_engine(
        own / "base.gguf", {**known, "adapter": str(own / "adapter.gguf")}, tmp_path
    )
    assert mean_kl(merged, base) > 0.1, "the adapter changes nothing"
    assert mean_kl(merged, both) < 1e-4


@pytest.fixture
def export(do: Any, tmp_path: Path) -> Callable[..., Any]:
    def exported(source: Path, out: str = "out") -> Any:
        job = {"kind": "export", "run": str(source), "out": str(tmp_path / out)}
        return do({"format": "gguf_adapter", **job})

    return exported


def test_an_exported_adapter_names_its_kind_and_nothing_of_this_computer(
    backend: Any, tiny_model: Path, export: Callable[..., Any], tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    options = {"r": 4, "lora_alpha": 6, "target_modules": ALL}
    backend(make_adapter, tiny_model, adapter, options)
    done = export(adapter)
    assert done.exit_code == 0, done.terminal
    file = tmp_path / "out" / "out-LoRA.gguf"
    told = metadata(file)
    assert told["general.type"] == "adapter" and told["adapter.type"] == "lora"
    assert told["general.architecture"] == "llama" and told["adapter.lora.alpha"] == 12, (
        "r is 8 there"
    )
    content = file.read_bytes()
    assert str(tmp_path).encode() not in content and str(tiny_model).encode() not in content


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"use_dora": True}, "trained with DoRA"),
        ({"modules_to_save": ["norm"]}, "was trained in full"),
        ({"trainable_token_indices": [5, 7]}, "was trained in full"),
        ({"target_modules": ["embed_tokens"]}, "tied to another weight"),
        ({"modules_to_save": ["lm_head"]}, "tied to another weight"),
    ],
)
def test_what_such_a_file_cannot_hold_is_refused_with_the_reason(
    backend: Any, tiny_model: Path, export: Callable[..., Any], tmp_path: Path,
    options: dict[str, Any], words: str,
) -> None:  # fmt: skip
    given = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], **options}
    backend(make_adapter, tiny_model, tmp_path / "adapter", given)
    done = export(tmp_path / "adapter")
    assert done.exit_code == 1
    assert done.terminal.code == "gguf_adapter_refused" and words in done.terminal.message
    assert not (tmp_path / "out").exists()
