"""Looking for models on a Hub on the loopback, and what one of them consists of."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.hub_server import HubServer
from tests.model_files import model_files
from training_backend import preferences
from training_backend.catalog import CatalogEntry
from training_backend.errors import UserError
from training_backend.hub import downloads, hub_models, hub_token
from training_backend.hub.hub_models import fetch_config, info, search
from training_backend.preferences import Preferences

TRANSFORMERS = ["transformers", "safetensors", "license:apache-2.0"]


def publish(
    hub: HubServer, id: str, parameters: int = 1_000_000, config: dict[str, Any] | None = None,
    files: dict[str, bytes] | None = None, **fields: Any,
) -> None:  # fmt: skip
    """A model as the Hub tells of it; its files are small."""
    content = {"config.json": json.dumps({**_LLAMA, **(config or {})}).encode()}
    told = {"total": parameters, "parameters": {"BF16": parameters}}
    hub.add(id, files or content, **{"tags": TRANSFORMERS, "safetensors": told, **fields})


_LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}


def ids(found: hub_models.Search) -> list[str]:
    return [entry.id for entry in found.models]


def test_models_that_write_text_are_found_by_words(hub: HubServer) -> None:
    publish(hub, "acme/Llama-Writer", 8_000_000)
    publish(hub, "acme/Llama-Encoder", pipeline_tag="fill-mask")
    publish(hub, "acme/other")
    found = search("llama")
    assert ids(found) == ["acme/Llama-Writer"]
    (entry,) = found.models
    assert (entry.parameters, entry.size_bytes) == (8_000_000, 16_000_000)
    assert (entry.licence, entry.family, entry.source) == ("apache-2.0", "Llama", "hub")
    assert (entry.location, entry.gated, entry.problem) == (None, False, "")
    document = json.loads(json.dumps(entry.to_json()))
    assert CatalogEntry.from_json(document) == entry


def test_a_search_can_be_narrowed(hub: HubServer) -> None:
    publish(hub, "acme/small", 1_000_000)
    publish(hub, "acme/large", 70_000_000_000)
    publish(hub, "acme/gated", 2_000_000, gated=True)
    publish(hub, "acme/free", 3_000_000, tags=["safetensors", "license:mit"])
    assert len(ids(search("acme"))) == 4
    assert ids(search("acme", max_parameters=10_000_000)) == [
        "acme/small", "acme/gated", "acme/free"
    ]  # fmt: skip
    assert ids(search("acme", licence="mit")) == ["acme/free"]
    assert ids(search("acme", gated=True)) == ["acme/gated"]
    assert "acme/gated" not in ids(search("acme", gated=False))
    assert len(ids(search("acme", limit=2))) == 2


def test_what_cannot_be_trained_is_left_out_and_counted(hub: HubServer) -> None:
    publish(hub, "acme/writer")
    publish(hub, "acme/writer-GPTQ", config={"quantization_config": {"quant_method": "gptq"}})
    publish(hub, "acme/writer-GGUF", files={"w.gguf": b"GGUF"}, safetensors=None, tags=["gguf"])
    publish(hub, "acme/writer-VL", config={"vision_config": {}})
    found = search("writer")
    assert ids(found) == ["acme/writer"]
    assert found.left_out == 3


@pytest.mark.parametrize(
    ("words", "id", "reason"),
    [
        ("writer gptq", None, ""),  # the Hub looks for the words as they stand
        ("writer-GPTQ", "acme/writer-GPTQ", "quantised already (GPTQ)"),
        ("GGUF", "acme/writer-GGUF", "GGUF"),
        ("acme/writer-VL", "acme/writer-VL", "images"),
        ("https://huggingface.co/acme/writer-awq", "acme/writer-awq", "quantised already (AWQ)"),
    ],
)
def test_what_is_asked_for_by_name_is_shown_with_the_reason(
    hub: HubServer, words: str, id: str | None, reason: str
) -> None:
    publish(hub, "acme/writer-GPTQ", config={"quantization_config": {"quant_method": "gptq"}})
    publish(hub, "acme/writer-GGUF", files={"w.gguf": b"GGUF"}, safetensors=None, tags=["gguf"])
    publish(hub, "acme/writer-VL", config={"vision_config": {}}, pipeline_tag="image-text-to-text")
    publish(hub, "acme/writer-awq", tags=[*TRANSFORMERS, "awq"])
    found = search(words)
    assert ids(found) == ([id] if id else [])
    if id:
        assert reason in found.models[0].problem
        assert found.models[0].problem.count(".") == 1


def test_trainable_models_stand_before_the_others(hub: HubServer) -> None:
    publish(hub, "acme/w-gptq", config={"quantization_config": {"quant_method": "gptq"}})
    publish(hub, "acme/w-gptq-restored")
    assert ids(search("w-gptq")) == ["acme/w-gptq-restored", "acme/w-gptq"]


def test_info_tells_files_sizes_and_what_is_here(hub: HubServer) -> None:
    files = model_files(shards=2)
    commit = hub.add("acme/tiny", {**files, "pytorch_model.bin": b"x"}, tags=TRANSFORMERS)
    found = info("https://huggingface.co/acme/tiny")
    assert found.commit == commit
    assert {file.name: file.bytes for file in found.files} == {
        name: len(content) for name, content in files.items()
    }
    assert [file.is_weights for file in found.files][-2:] == [True, True]  # the large ones last
    assert found.total_bytes == found.entry.size_bytes == sum(map(len, files.values()))
    assert downloads.on_disk_bytes(found) == 0
    assert (found.entry.id, found.problem) == ("acme/tiny", None)


def test_info_names_the_problem_of_a_model_that_cannot_be_trained(hub: HubServer) -> None:
    hub.add("acme/pickled", {"config.json": json.dumps(_LLAMA).encode(), "pytorch_model.bin": b""})
    found = info("acme/pickled")
    assert found.problem is not None and found.problem.code == "model_weights_unsafe"
    assert "pytorch_model.bin" in found.entry.problem


def test_the_configuration_alone_can_be_had(hub: HubServer) -> None:
    commit = hub.add("acme/tiny", model_files())
    expected = json.loads(model_files()["config.json"])
    assert fetch_config("acme/tiny") == fetch_config("acme/tiny", commit) == expected
    hub.add("acme/gguf", {"model.gguf": b"GGUF"})
    hub.add("acme/gated", model_files(), gated=True)
    hub.add("acme/awq", model_files(quantization_config={"quant_method": "awq"}))
    for id, revision, code in (
        ("acme/gguf", None, "model_is_gguf"),
        ("acme/gated", None, "hub_gated"),
        ("acme/awq", None, "model_quantised_already"),
        ("acme/nothing", None, "hub_not_found"),
        ("acme/tiny", "v9", "hub_revision_not_found"),
        ("acme/tiny", "../x", "hub_revision_not_found"),
    ):
        with pytest.raises(UserError) as caught:
            fetch_config(id, revision)
        assert caught.value.code == code


def test_a_gated_model_is_described_to_everyone(hub: HubServer) -> None:
    hub.add("acme/tiny", model_files(), gated=True)
    assert info("acme/tiny").entry.gated


def test_a_token_tells_whose_it_is(hub: HubServer) -> None:
    assert hub_models.token_owner() == ""
    hub_token.store(hub.token)
    assert hub_models.token_owner() == "tester"
    hub_token.store("hf_wrong")
    with pytest.raises(UserError) as caught:
        hub_models.token_owner()
    assert caught.value.code == "hub_unauthorized"


@pytest.mark.parametrize("ask", [lambda: search("x"), lambda: info("acme/tiny")])
def test_the_sign_in_page_of_a_network_is_not_taken_for_the_hub(
    hub: HubServer, ask: Callable[[], object]
) -> None:
    hub.fault("api", wrong=True)
    with pytest.raises(UserError) as caught:
        ask()
    assert caught.value.code == "hub_strange_answer"
    assert "sign in" in caught.value.remedy


def test_working_offline_asks_nobody(hub: HubServer) -> None:
    publish(hub, "acme/tiny")
    preferences.save(Preferences(work_offline=True))
    hub_token.store(hub.token)
    try:
        for ask in (
            lambda: search("tiny"),
            lambda: info("acme/tiny"),
            lambda: downloads.fetch_model("acme/tiny"),
            lambda: downloads.fetch_tokenizer("acme/tiny"),
            hub_models.token_owner,
        ):
            with pytest.raises(UserError) as caught:
                ask()
            assert caught.value.code == "hub_offline"
            assert "work offline" in caught.value.message
        assert not hub.asked
    finally:
        preferences.save(Preferences())
    assert ids(search("tiny")) == ["acme/tiny"]  # at once, in the same process
