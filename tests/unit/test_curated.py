"""What the catalogue says of its models, and which one stands in for another."""

from __future__ import annotations

import re

import pytest

from training_backend.models import curated
from training_backend.models.curated import models, nearest_trainable


def test_the_catalogue_spans_families_and_sizes() -> None:
    sizes = [model.parameters or 0 for model in models()]
    assert len(sizes) >= 40
    assert min(sizes) < 200e6
    assert max(sizes) > 70e9
    assert len({model.family for model in models()}) >= 10
    assert len({model.id for model in models()}) == len(sizes)


def test_every_entry_is_complete_and_plausible() -> None:
    for model in models():
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", model.id)
        assert model.parameters and model.size_bytes and model.context_length
        # 16 bits a number; some files hold tied embeddings twice.
        assert 2 * model.parameters <= model.size_bytes <= 2.6 * model.parameters, model.id
        assert model.context_length >= 2048
        assert model.licence and ":" in model.licence_note
        assert model.description.endswith(".") and len(model.description) < 100
        assert (model.source, model.location, model.problem) == ("catalogue", None, "")
        assert curated.family_of(model.id) == model.family, model.id
        assert curated.entry(model.id) == model


def test_a_configuration_can_be_changed_without_harm() -> None:
    first = curated.config("Qwen/Qwen3-8B")
    assert first is not None
    assert (first["hidden_size"], first["max_position_embeddings"]) == (4096, 40960)
    first.clear()
    assert curated.config("Qwen/Qwen3-8B")
    assert curated.config("acme/unknown") is None


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("TheBloke/Mistral-7B-GPTQ", "mistralai/Mistral-7B-Instruct-v0.3"),
        ("TheBloke/Mistral-7B-Instruct-v0.2-GPTQ", "mistralai/Mistral-7B-Instruct-v0.3"),
        ("Qwen/Qwen2.5-7B-Instruct-AWQ", "Qwen/Qwen2.5-7B-Instruct"),
        ("Qwen/Qwen2.5-Coder-7B-Instruct-GGUF", "Qwen/Qwen2.5-Coder-7B-Instruct"),
        ("unsloth/Qwen3-8B-Base-bnb-4bit", "Qwen/Qwen3-8B-Base"),
        ("Qwen/Qwen2-VL-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("meta-llama/Llama-3.2-11B-Vision-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("bartowski/gemma-2-9b-it-GGUF", "google/gemma-2-9b-it"),
        ("x/DeepSeek-R1-Distill-Qwen-7B-GGUF", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"),
        ("TinyLlama-1.1B-Chat-v1.0-GGUF", "TinyLlama/TinyLlama-1.1B-Chat-v1.0"),
        ("smollm2-135m-instruct.Q4_1", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    ],
)
def test_the_nearest_trainable_model(name: str, id: str) -> None:
    found = nearest_trainable(name)
    assert found is not None
    assert found.id == id


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("cognitivecomputations/dolphin-2.9-llama3-8b", "Llama"),
        ("acme/playing", ""),
        ("microsoft/Phi-3-mini-4k-instruct", "Phi"),
        ("codellama/CodeLlama-7b-hf", "Llama"),
        ("01-ai/Yi-6B", "Yi"),
        ("mistralai/Mixtral-8x7B-v0.1", "Mistral"),
    ],
)
def test_the_family_that_a_name_speaks_of(name: str, family: str) -> None:
    assert curated.family_of(name) == family


def test_a_known_number_of_parameters_goes_before_the_name() -> None:
    found = nearest_trainable("acme/my-llama", 3_000_000_000)
    assert found is not None
    assert found.id == "meta-llama/Llama-3.2-3B-Instruct"


def test_nothing_stands_in_for_a_model_of_no_known_family() -> None:
    assert nearest_trainable("google-bert/bert-base-uncased") is None
