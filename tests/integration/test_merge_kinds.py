"""Adapters and models of every kind: the merged folder answers as base + adapter, or is refused.

What counts is what the model computes with the adapter beside it, as it did in training: PEFT's
own merge is wrong where input and output share a table of tokens and only one was trained.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LLAMA = {"model_type": "llama", "tie_word_embeddings": True}
UNTIED = {"model_type": "llama", "tie_word_embeddings": False}
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32,
        "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
MIXTRAL = {"model_type": "mixtral", "num_local_experts": 4}
QWEN2_MOE = {"model_type": "qwen2_moe", "num_experts": 4, "moe_intermediate_size": 16,
             "shared_expert_intermediate_size": 24}  # fmt: skip
QWEN3_MOE = {"model_type": "qwen3_moe", "num_experts": 3, "num_experts_per_tok": 2,
             "moe_intermediate_size": 16, "head_dim": 8}  # fmt: skip
GPT_OSS = {"model_type": "gpt_oss", "num_local_experts": 4, "num_experts_per_tok": 2,
           "head_dim": 8, "intermediate_size": 32}  # fmt: skip
GPT_NEOX = {"model_type": "gpt_neox", "tie_word_embeddings": False}
GEMMA2 = {"model_type": "gemma2", "head_dim": 8, "tie_word_embeddings": True}
GRANITE_MOE = {"model_type": "granitemoe", "num_local_experts": 4, "num_experts_per_tok": 2}
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
FAMILIES = {"llama": LLAMA, "untied": UNTIED, "gpt2": GPT2, "mixtral": MIXTRAL,
            "qwen2_moe": QWEN2_MOE, "qwen3_moe": QWEN3_MOE, "gpt_oss": GPT_OSS,
            "gpt_neox": GPT_NEOX, "granitemoe": GRANITE_MOE, "gemma2": GEMMA2}  # fmt: skip


def make(config: dict[str, Any], options: dict[str, Any], folder: str) -> dict[str, Any]:
    """A random model in `base`, an adapter in `adapter`, its answers in `answers.pt`."""
    from pathlib import Path

    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    torch.manual_seed(3)
    sizes = {"vocab_size": 101, "hidden_size": 32, "intermediate_size": 48, "pad_token_id": 2,
             "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
             "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
    config = {**sizes, **config}
    kind = CONFIG_MAPPING[config.pop("model_type")]
    rows, columns = config.pop("shape", (2, 9))
    model = AutoModelForCausalLM.from_config(kind(**config))
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3) if parameter.dim() > 1 else None
    base = Path(folder) / "base"
    model.save_pretrained(base)
    grow = options.pop("more_tokens", 0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if grow:
        model.resize_token_embeddings(config["vocab_size"] + grow, mean_resizing=False)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=5, **options))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn_like(parameter)
    adapter = Path(folder) / "adapter"
    model.save_pretrained(adapter)
    fresh = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokens = torch.randint(3, config["vocab_size"] + grow, (rows, columns))
    tokens[0, :6] = torch.arange(3, 9)
    if grow:
        fresh.resize_token_embeddings(config["vocab_size"] + grow, mean_resizing=False)
        alone = None
    else:
        alone = fresh(tokens).logits
    answers = PeftModel.from_pretrained(fresh, adapter).eval()(tokens).logits
    torch.save({"tokens": tokens, "answers": answers}, Path(folder) / "answers.pt")
    changed = 1.0 if alone is None else float((answers - alone).abs().max() / answers.std())
    return {"changed": changed}


def compare(folder: str, merged: str) -> dict[str, Any]:
    """How far the merged folder's answers are from those of base + adapter, in their own spread."""
    from pathlib import Path

    import torch
    from transformers import AutoModelForCausalLM

    kept = torch.load(Path(folder) / "answers.pt")
    model, told = AutoModelForCausalLM.from_pretrained(
        merged, dtype=torch.float32, output_loading_info=True
    )
    answers = model.eval()(kept["tokens"]).logits
    head, table = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    return {
        "off": float((answers - kept["answers"]).abs().max() / kept["answers"].std()),
        "tied": head.data_ptr() == table.data_ptr(),
        "problems": sorted({*told["missing_keys"], *told["unexpected_keys"]}),
    }


Merged = Callable[..., Any]


@pytest.fixture
def merged(backend: Any, do: Any, tmp_path: Path) -> Merged:
    """Makes a model of a family and an adapter, and exports both as one."""

    def made(family: str, options: dict[str, Any], **export: Any) -> Any:
        targets = ["q_proj"] if "target_parameters" not in options else []
        options = {"target_modules": targets, **options}
        found = backend(make, FAMILIES[family], options, tmp_path)
        assert found["changed"] > 0.02, "the adapter does nothing"
        job = {"kind": "export", "run": str(tmp_path / "adapter"), "out": str(tmp_path / "out"),
               "verify": False}  # fmt: skip
        return do({**job, **export})

    return made


TOKENS = {"trainable_token_indices": [5, 3]}
CONV = ["c_attn", "c_proj", "c_fc"]
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    # One table for both ends: which end was trained, and does it stay one?
    "tied, input in full": ("llama", {"modules_to_save": ["embed_tokens"]}),
    "tied, head in full": ("llama", {"modules_to_save": ["lm_head"]}),
    "tied, both in full": ("llama", {"modules_to_save": ["embed_tokens", "lm_head"]}),
    "tied, both in full as one": (
        "llama", {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    ),
    "tied, LoRA of the input": ("llama", {"target_modules": ["embed_tokens", "q_proj"]}),
    "tied, DoRA of the input": ("llama", {"target_modules": ["embed_tokens"], "use_dora": True}),
    "tied, LoRA of the head": ("llama", {"target_modules": ["lm_head"]}),
    "tied, LoRA of both": ("llama", {"target_modules": ["embed_tokens", "lm_head"]}),
    "tied, LoRA as one": (
        "llama", {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
    ),
    "tied, tokens": ("llama", {**TOKENS}),
    "tied, tokens at both ends": (
        "llama", {"trainable_token_indices": {"embed_tokens": [5, 3], "lm_head": [4]}},
    ),
    "untied, tokens": ("untied", TOKENS),
    "untied, tokens at both ends": (
        "untied", {"trainable_token_indices": {"embed_tokens": [5, 3], "lm_head": [4, 6, 7]}},
    ),
    "untied, LoRA of both": ("untied", {"target_modules": ["embed_tokens", "lm_head"]}),
    "untied, both in full": ("untied", {"modules_to_save": ["embed_tokens", "lm_head"]}),
    "more tokens, tied": (
        "llama", {"more_tokens": 4, "modules_to_save": ["embed_tokens"],
                  "ensure_weight_tying": True},
    ),
    "more tokens, untied": (
        "untied", {"more_tokens": 4, "modules_to_save": ["embed_tokens", "lm_head"]},
    ),
    "more tokens, only a layer": ("llama", {"more_tokens": 4}),
    "tokens beyond, tied": ("llama", {"more_tokens": 4, "trainable_token_indices": [101, 3, 104]}),
    "more tokens, DoRA of both": (
        "untied", {"more_tokens": 4, "target_modules": ["embed_tokens", "lm_head"],
                   "use_dora": True},
    ),
    # Layers that are stored the other way round, and biases.
    "transposed": ("gpt2", {"target_modules": CONV}),
    "transposed DoRA": ("gpt2", {"target_modules": CONV, "use_dora": True, "use_rslora": True}),
    "transposed, last a head": ("gpt2", {"target_modules": ["c_proj", "lm_head"]}),
    "biases of LoRA": ("gpt2", {"target_modules": CONV, "lora_bias": True}),
    "biases of the layers": ("gpt2", {"target_modules": CONV, "bias": "lora_only"}),
    "all biases": ("gpt2", {"target_modules": CONV, "bias": "all"}),
    # Experts, which are one tensor in the loaded model and many in its files.
    "mixtral, experts": ("mixtral", {"target_parameters": EXPERTS, "target_modules": ["q_proj"]}),
    "mixtral, by the old names": ("mixtral", {"target_modules": ["w1", "w2", "w3", "q_proj"]}),
    "mixtral, all linear": ("mixtral", {"target_modules": "all-linear"}),
    "mixtral, experts in full": ("mixtral", {"modules_to_save": ["experts"]}),
    "mixtral, the router": ("mixtral", {"target_parameters": ["mlp.gate.weight"]}),
    "qwen2_moe, experts": ("qwen2_moe", {"target_parameters": EXPERTS, "use_rslora": True}),
    "qwen2_moe, all linear": ("qwen2_moe", {"target_modules": "all-linear"}),
    "qwen3_moe, one of the two": ("qwen3_moe", {"target_parameters": EXPERTS[1:]}),
    "qwen3_moe, the other": ("qwen3_moe", {"target_parameters": EXPERTS[:1]}),
    "qwen3_moe, all linear": ("qwen3_moe", {"target_modules": "all-linear"}),
    "qwen3_moe, patterns": (
        "qwen3_moe", {"target_parameters": [*EXPERTS, "q_proj.weight"],
                      "rank_pattern": {r".*\.down_proj": 5},
                      "alpha_pattern": {r".*\.gate_up_proj": 2, r"q_proj\.weight": 11}},
    ),
    "gpt_oss, square and the other way round": ("gpt_oss", {"target_parameters": EXPERTS}),
    "gpt_neox, a head by another name": ("gpt_neox", {"target_modules": ["lm_head"]}),
}  # fmt: skip
STAYS_TIED = {
    "tied, both in full as one",
    "tied, tokens",
    "more tokens, tied",
    "more tokens, only a layer",
    "tokens beyond, tied",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_folder_answers_as_base_and_adapter(
    backend: Any, merged: Merged, tmp_path: Path, kind: str
) -> None:
    family, options = KINDS[kind]
    done = merged(family, options)
    assert done.exit_code == 0, done.terminal
    found = backend(compare, tmp_path, tmp_path / "out")
    assert found["problems"] == []
    assert found["off"] < 2e-5
    if family == "llama":
        assert found["tied"] == (kind in STAYS_TIED)
        config = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
        assert bool(config["tie_word_embeddings"]) == found["tied"]


def test_experts_held_in_a_way_that_is_not_known_are_refused_and_nothing_is_left(
    merged: Merged, tmp_path: Path
) -> None:
    options = {"target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}
    done = merged("granitemoe", options)
    assert done.terminal.code == "adapter_does_not_fit"
    assert "how this base model holds its experts" in done.sentence
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == []


def test_an_adapter_for_another_number_of_experts_is_refused(
    backend: Any, do: Any, merged: Merged, tmp_path: Path
) -> None:
    assert merged("mixtral", {"target_parameters": EXPERTS}).exit_code == 0
    fewer = {**FAMILIES["mixtral"], "num_local_experts": 2}
    backend(make, fewer, {"target_modules": ["q_proj"]}, tmp_path / "fewer")
    config = tmp_path / "adapter" / "adapter_config.json"
    settings = json.loads(config.read_text("utf-8"))
    settings["base_model_name_or_path"] = str(tmp_path / "fewer" / "base")
    config.write_text(json.dumps(settings), encoding="utf-8")
    job = {"kind": "export", "run": str(tmp_path / "adapter"), "out": str(tmp_path / "second")}
    done = do(job)
    assert done.terminal.code == "adapter_does_not_fit" and "rank 6, and 3" in done.sentence


@pytest.mark.parametrize(
    "settings",
    [
        {"r": None}, {"r": "many"}, {"r": 4}, {"rank_pattern": ["q_proj"]},
        {"rank_pattern": {"q_proj": 9}}, {"modules_to_save": ["score"]}, {"lora_bias": True},
        {"trainable_token_indices": {"embed_tokens": [1]}}, {"use_dora": True},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_the_weights_contradict_are_refused_in_a_sentence(
    do: Any, merged: Merged, tmp_path: Path, settings: dict[str, Any]
) -> None:
    assert merged("llama", {}).exit_code == 0
    config = tmp_path / "adapter" / "adapter_config.json"
    kept = json.loads(config.read_text("utf-8"))
    config.write_text(json.dumps({**kept, **settings}), encoding="utf-8")
    job = {"kind": "export", "run": str(tmp_path / "adapter"), "out": str(tmp_path / "second")}
    done = do(job)
    assert done.exit_code == 1
    assert done.terminal.code == "adapter_does_not_fit", done.terminal
    assert "\n" not in done.sentence
    assert not list(tmp_path.glob("second*"))


@pytest.mark.parametrize(
    ("options", "rows"),
    [({"trainable_token_indices": [5, 500]}, "too few rows"),
     ({"trainable_token_indices": [5]}, "which tokens"),
     ({"trainable_token_indices": [5, -1]}, "which tokens")],
)  # fmt: skip
def test_trained_tokens_that_do_not_fit_are_refused(
    do: Any, merged: Merged, tmp_path: Path, options: dict[str, Any], rows: str
) -> None:
    assert merged("llama", TOKENS).exit_code == 0
    config = tmp_path / "adapter" / "adapter_config.json"
    kept = json.loads(config.read_text("utf-8"))
    config.write_text(json.dumps({**kept, **options}), encoding="utf-8")
    done = do({"kind": "export", "run": str(tmp_path / "adapter"), "out": str(tmp_path / "second")})
    assert done.terminal.code == "adapter_does_not_fit" and rows in done.sentence
    assert not list(tmp_path.glob("second*"))


def look_whether_gguf(model: str) -> str:
    from training_backend.export import gguf_tools

    try:
        return gguf_tools.check(model, f"{model}/vocabulary.gguf", False)
    except gguf_tools.Refused as error:
        return str(error)


def test_a_head_that_llama_cpp_would_leave_out_is_no_gguf_file(
    backend: Any, merged: Merged, tmp_path: Path
) -> None:
    assert merged("gemma2", {"modules_to_save": ["lm_head"]}).exit_code == 0
    assert "input and output tables" in backend(look_whether_gguf, tmp_path / "out")
