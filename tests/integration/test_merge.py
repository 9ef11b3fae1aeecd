"""Base + adapter into a folder: the same numbers as PEFT's, or one sentence and nothing left."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training_backend import runs
from training_backend.job import parse_job
from training_backend.models.model_cache import adapter_entry

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_adapter(base: str, folder: str, options: dict[str, Any]) -> None:
    """An adapter with random weights, saved by PEFT."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
        elif parameter.requires_grad and "lora_A" not in name:  # lengths, and parts in full
            parameter.data *= 1 + 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)


@pytest.fixture
def adapter(backend: Any, tiny_model: Path, tmp_path: Path) -> Path:
    """A plain PEFT adapter of the tiny model."""
    folder = tmp_path / "adapter"
    backend(make_adapter, tiny_model, folder, {"r": 4, "lora_alpha": 8, "target_modules": ALL})
    return folder


Export = Callable[..., Any]


@pytest.fixture
def export(do: Any, tmp_path: Path) -> Export:
    def exported(source: Path, out: Path = tmp_path / "out", **options: Any) -> Any:
        return do({"kind": "export", "run": str(source), "out": str(out), **options})

    return exported


def compare_with_peft(base: str, adapter: str, merged: str) -> dict[str, Any]:
    """The merged files against PEFT's own merge in float64; and whether transformers agrees."""
    from pathlib import Path

    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    model = PeftModel.from_pretrained(model, adapter).double()
    exact = model.merge_and_unload().state_dict()
    before, after = (
        {k: v for path in sorted(Path(p).glob("*.safetensors")) for k, v in load_file(path).items()}
        for p in (base, merged)
    )
    bits, smallest = {
        torch.bfloat16: (8, -126), torch.float16: (11, -14), torch.float32: (24, -126),
    }[next(iter(after.values())).dtype]  # fmt: skip
    wrong, changed = [], 0
    for name, got in after.items():
        if torch.equal(got, before[name]):
            assert torch.equal(exact[name], before[name].double())
            continue
        changed += 1
        exponent = torch.floor(torch.log2(exact[name].abs().clamp(min=2.0**smallest)))
        off = (got.double() - exact[name]).abs() / torch.exp2(exponent - bits + 1)
        if off.max() > 0.5 + 1e-4:  # a rounding to float32 before the one to 16 bits
            wrong.append([name, float(off.max())])
    loaded, told = AutoModelForCausalLM.from_pretrained(merged, output_loading_info=True)
    same = all(
        torch.equal(value, after[name])
        for name, value in loaded.state_dict().items()
        if name in after
    )
    return {
        "wrong": wrong,
        "changed": changed,
        "same": same and after.keys() == before.keys(),
        "missing": sorted(told["missing_keys"]) + sorted(told["unexpected_keys"]),
        "files": sorted(path.name for path in Path(merged).glob("model*")),
    }


BASES: dict[str, dict[str, Any]] = {
    "bfloat16": {},
    "float16": {"dtype": "float16"},
    "float32": {"dtype": "float32"},
    "sharded": {"shard": "50KB"},
    "untied": {"tie_word_embeddings": False},
}
ADAPTERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 8},
        "alpha_pattern": {r"layers\.0\.self_attn\.[qk]_proj": 3, "up_proj": 64},
        "use_rslora": True,
    },
    "dora": {"use_dora": True},
    "dora of unlike ranks": {"use_dora": True, "use_rslora": True, "rank_pattern": {"q_proj": 2}},
    "norms in full": {"modules_to_save": ["norm"]},
    "one layer": {"layers_to_transform": [1], "target_modules": ["v_proj"]},
}


@pytest.mark.parametrize(
    ("base", "kind"),
    [(base, "plain") for base in BASES] + [("bfloat16", kind) for kind in ADAPTERS][1:],
)
def test_a_merge_equals_pefts_to_one_rounding(
    backend: Any, make_model: Any, export: Export, tmp_path: Path, base: str, kind: str
) -> None:
    model = make_model(**BASES[base])
    options = {"r": 4, "lora_alpha": 8, "target_modules": ALL, **ADAPTERS[kind]}
    backend(make_adapter, model, tmp_path / "adapter", options)
    done = export(tmp_path / "adapter")
    assert done.exit_code == 0, done.terminal
    found = backend(compare_with_peft, model, tmp_path / "adapter", tmp_path / "out")
    assert found["wrong"] == [] and found["missing"] == []
    assert found["same"]
    assert found["changed"] == {"one layer": 1, "norms in full": 14 + 5}.get(kind, 14)
    assert ("model.safetensors.index.json" in found["files"]) == (base == "sharded")
    assert (len(found["files"]) > 3) == (base == "sharded")


def test_a_runs_own_adapter_merges_and_so_does_a_checkpoint_of_it(
    backend: Any, do: Any, export: Export, job_document: Any, tiny_model: Path, tmp_path: Path
) -> None:
    run = do(job_document(training={"save_steps": 1})).run
    for source, options in ((run.adapter, {}), (run.checkpoints / "checkpoint-2", None)):
        options = {"checkpoint": "checkpoint-2"} if options is None else options
        out = tmp_path / source.name
        assert export(run.folder, out, **options).exit_code == 0
        found = backend(compare_with_peft, tiny_model, source, out)
        assert found["wrong"] == [] and found["changed"] == 14


def test_a_base_with_an_index_beside_a_whole_file_is_read_as_transformers_does(
    backend: Any, make_model: Any, export: Export, adapter: Path, tmp_path: Path, tiny_model: Path
) -> None:
    both = make_model(shard="50KB")
    shutil.copyfile(tiny_model / "model.safetensors", both / "model.safetensors")
    (both / "model-00001-of-00099.safetensors").write_bytes(b"an interrupted download")
    _change(adapter / "adapter_config.json", base_model_name_or_path=str(both))
    done = export(adapter)
    assert done.exit_code == 0, done.terminal
    files = {path.name for path in (tmp_path / "out").glob("model*")}
    assert files == {"model.safetensors"}
    found = backend(compare_with_peft, tiny_model, adapter, tmp_path / "out")
    assert found["wrong"] == [] and found["changed"] == 14


# ------------------------------------------------------------------------------------- rounding


def rounding_differs(seed: int) -> list[str]:
    """Where our conversions and torch's give other bits; over random and chosen patterns."""
    import numpy as np
    import torch

    from training_backend.export.tensor_file import from_float32, to_float32

    random = np.random.default_rng(seed)
    bits = random.integers(0, 2**32, 400_000, dtype=np.uint32)
    upper = random.integers(0, 2**16, 100_000, dtype=np.uint32) << 16
    chosen = np.concatenate([upper + low for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)])
    subnormal = random.integers(0, 2**23, 100_000, dtype=np.uint32)
    values = np.concatenate([bits, chosen, subnormal, subnormal | 0x80000000]).view(np.float32)
    values = values[np.isfinite(values)]
    differs = []
    for dtype, name in ((torch.bfloat16, "BF16"), (torch.float16, "F16"), (torch.float32, "F32")):
        fitting = values[np.abs(values) < 65_520] if name == "F16" else values
        expected = torch.from_numpy(fitting.copy()).to(dtype).view(torch.uint8).numpy().tobytes()
        if from_float32(fitting, name).tobytes() != expected:
            differs.append(f"to {name}")
    every = np.arange(2**16, dtype=np.uint16)
    for dtype, name in ((torch.bfloat16, "BF16"), (torch.float16, "F16")):
        expected = torch.from_numpy(every.copy()).view(dtype).float().numpy()
        got = to_float32(every.tobytes(), name)
        same = np.isnan(got) & np.isnan(expected) | (
            got.view(np.uint32) == expected.view(np.uint32)
        )
        if not same.all():
            differs.append(f"from {name}")
    return differs


@pytest.mark.parametrize("seed", range(3))
def test_rounding_is_torchs_bit_for_bit(backend: Any, seed: int) -> None:
    assert backend(rounding_differs, seed) == []


# ------------------------------------------------------------------------------ what is refused


def rewrite(adapter: str, changes: dict[str, Any]) -> None:
    """Change tensors of a safetensors file: None removes, text renames, a number fills."""
    from pathlib import Path

    import torch
    from safetensors.torch import load_file, save_file

    path = next(Path(adapter).glob("*.safetensors"))
    tensors = load_file(path)
    for name, change in changes.items():
        tensor = tensors.pop(name)
        if isinstance(change, str):
            tensors[change] = tensor
        elif isinstance(change, list):
            tensors[name] = torch.ones(change)
        elif change is not None:
            tensor[..., 0] = change
            tensors[name] = tensor
    save_file(tensors, path, metadata={"format": "pt"})


def _change(path: Path, **values: Any) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**document, **values}), encoding="utf-8")


def _nothing_left(tmp_path: Path) -> bool:
    return not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


Q = "base_model.model.model.layers.0.self_attn.q_proj"
HEAD = "base_model.model.lm_head"
A, B = f"{Q}.lora_A.weight", f"{Q}.lora_B.weight"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({A: A.replace("0", "7"), B: B.replace("0", "7")}, "layers.7", id="unused"),
        pytest.param({A: A.replace("q_", "x_"), B: B.replace("q_", "x_")}, "x_proj", id="no layer"),
        pytest.param({B: None}, "the two halves", id="no B"),
        pytest.param({A: None}, "the two halves", id="no A"),
        pytest.param({A: [4, 63]}, "another shape", id="too narrow"),
        pytest.param({B: [65, 4]}, "another shape", id="too tall"),
        pytest.param({B: [1, 4]}, "another shape", id="would be spread over all rows"),
        pytest.param({B: [64, 5]}, "the two halves", id="other rank"),
        pytest.param({A: [0, 64], B: [64, 0]}, "the two halves", id="no rank at all"),
        pytest.param({A: [64], B: [64]}, "the two halves", id="vectors"),
        pytest.param({A: [4, 64, 1]}, "the two halves", id="three dimensions"),
        pytest.param({A: float("nan")}, "finite", id="NaN"),
        pytest.param({B: float("inf")}, "finite", id="infinite"),
        pytest.param({B: 3e38, A: 3e38}, "finite", id="too large"),
        pytest.param({A: f"{Q}.lora_magnitude_vector"}, "the two halves", id="magnitude"),
        pytest.param(
            {A: f"{Q}.weight", B: None}, "not known what", id="a whole layer that nobody asked for"
        ),
        pytest.param({A: f"{HEAD}.weight", B: None}, "number of rows", id="a head of another size"),
        pytest.param(
            {A: f"{HEAD}.lora_A.weight", B: f"{HEAD}.lora_B.weight"},
            "lm_head",
            id="LoRA of a head of another size",
        ),
        pytest.param(
            {
                A: A.replace("q_proj", "q_proj.base_layer"),
                B: B.replace("q_proj", "q_proj.base_layer"),
            },
            "which parts",
            id="wrapped twice",
        ),
        pytest.param({A: "model.norm.weight", B: None}, "not known what", id="not PEFT's"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_in_a_sentence(
    backend: Any, export: Export, adapter: Path, tmp_path: Path, changes: Any, words: str
) -> None:
    backend(rewrite, adapter, changes)
    done = export(adapter)
    assert done.exit_code == 1
    assert done.terminal.code == "adapter_does_not_fit", done.terminal
    assert words in done.sentence and "\n" not in done.sentence
    assert done.terminal.field == "run"
    assert _nothing_left(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"trainable_token_indices": [1, 2]},
        {"modules_to_save": ["norm"]},
        {"lora_bias": True},
        {"peft_type": "LOHA"},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"alora_invocation_tokens": [1, 2]},
        {"use_qalora": True},
        {"layer_replication": [[0, 2], [0, 2]]},
        {"lora_alpha": None},
        {"lora_alpha": "much"},
        {"alpha_pattern": {"q_proj[": 3}},
        {"alpha_pattern": {"q_proj": "much"}},
        {"alpha_pattern": ["q_proj"]},
    ],
    ids=str,
)
def test_settings_that_we_cannot_merge_are_refused_in_a_sentence(
    export: Export, adapter: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    _change(adapter / "adapter_config.json", **settings)
    done = export(adapter)
    assert done.exit_code == 1
    assert done.terminal.code == "adapter_does_not_fit", done.terminal
    assert "\n" not in done.sentence
    assert _nothing_left(tmp_path)


def test_a_half_precision_base_that_would_overflow_is_refused(
    backend: Any, make_model: Any, export: Export, tmp_path: Path
) -> None:
    model = make_model(dtype="float16")
    backend(rewrite, model, {"model.layers.0.self_attn.q_proj.weight": 65_000.0})
    options = {"r": 4, "lora_alpha": 1_000_000, "target_modules": ALL}
    backend(make_adapter, model, tmp_path / "adapter", options)
    done = export(tmp_path / "adapter")
    assert done.terminal.code == "adapter_does_not_fit" and "finite" in done.sentence
    assert _nothing_left(tmp_path)


@pytest.mark.parametrize("name", ["LICENSE", "merges.txt"])
def test_a_link_in_a_models_folder_takes_no_file_of_this_computer_along(
    export: Export, adapter: Path, tiny_model: Path, tmp_path: Path, name: str
) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    private = tmp_path / "private"
    private.write_text("for me alone")
    _link(base / name, private)
    _change(adapter / "adapter_config.json", base_model_name_or_path=str(base))
    done = export(adapter)
    assert done.terminal.code == "file_leads_elsewhere" and name in done.sentence
    assert _nothing_left(tmp_path)
    (base / name).unlink()
    (base / "texts").mkdir()
    (base / "texts" / "own").write_text("of the model")
    _link(base / name, base / "texts" / "own")
    assert export(adapter).exit_code == 0
    assert (tmp_path / "out" / name).read_text() == "of the model"


def _link(path: Path, target: Path) -> None:
    try:
        path.symlink_to(target)
    except OSError:
        pytest.skip("links are for administrators only here")


def test_an_adapter_from_elsewhere_brings_about_no_look_at_another_computer(
    export: Export, adapter: Path, tmp_path: Path
) -> None:
    for base in (r"\\evil.example\share\model", "//evil.example/share/model"):
        _change(adapter / "adapter_config.json", base_model_name_or_path=base)
        done = export(adapter)
        assert done.terminal.code == "base_on_network" and done.terminal.field == "run"
        assert "evil.example" in done.sentence and _nothing_left(tmp_path)
        assert adapter_entry(adapter, str(adapter)) is None


def _cut(path: Path, size: int) -> None:
    with path.open("rb+") as file:
        file.truncate(size)


def _head(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + size])
    change(head)
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


def _reshaped(head: dict[str, Any]) -> None:
    entry = next(entry for name, entry in head.items() if "layers.1.mlp.up_proj" in name)
    entry["shape"] = [entry["shape"][0], entry["shape"][1] + 1]


def _moved(head: dict[str, Any]) -> None:
    entries = sorted((e for k, e in head.items() if k != "__metadata__"),
                     key=lambda entry: entry["data_offsets"][0])  # fmt: skip
    entries[1]["data_offsets"] = entries[0]["data_offsets"]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: _cut(path, 5), id="5 bytes"),
        pytest.param(lambda path: _cut(path, 100), id="within the head"),
        pytest.param(lambda path: _cut(path, 20_000), id="within the weights"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(b"\x02" + bytes(7) + b"[]"), id="no object"),
        pytest.param(lambda path: path.write_bytes(b"\xff" * 64), id="noise"),
        pytest.param(lambda path: path.write_text("version https://git-lfs"), id="a pointer"),
        pytest.param(lambda path: _head(path, _reshaped), id="a wrong shape"),
        pytest.param(lambda path: _head(path, _moved), id="two in one place"),
    ],
)
@pytest.mark.parametrize("which", ["base", "adapter"])
def test_a_damaged_file_is_named_in_a_sentence(
    export: Export, adapter: Path, tiny_model: Path, tmp_path: Path, which: str, damage: Any
) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    _change(adapter / "adapter_config.json", base_model_name_or_path=str(base))
    file = (
        (base / "model.safetensors") if which == "base" else adapter / "adapter_model.safetensors"
    )
    try:
        damage(file)
    except KeyError:
        pytest.skip("an adapter has no such weight")
    if which == "adapter" and file.stat().st_size > 1_000_000:
        pytest.skip("an adapter is smaller than that")
    done = export(adapter)
    assert done.exit_code == 1
    assert done.terminal.code == "weights_damaged", done.terminal
    assert str(file) in done.sentence and "\n" not in done.sentence
    assert _nothing_left(tmp_path)


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json", ""])
def test_a_base_that_is_gone_is_said_in_a_sentence(
    export: Export, adapter: Path, tiny_model: Path, tmp_path: Path, missing: str
) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    _change(adapter / "adapter_config.json", base_model_name_or_path=str(base))
    shutil.rmtree(base) if not missing else (base / missing).unlink()
    done = export(adapter)
    assert done.exit_code == 1
    assert done.terminal.field == "run" and str(base) in done.sentence
    assert _nothing_left(tmp_path)


def test_a_missing_part_of_a_base_is_said_in_a_sentence(
    backend: Any, make_model: Any, export: Export, adapter: Path, tmp_path: Path
) -> None:
    base = make_model(shard="50KB")
    last = sorted(base.glob("model-*.safetensors"))[-1]
    last.unlink()
    _change(adapter / "adapter_config.json", base_model_name_or_path=str(base))
    done = export(adapter)
    assert done.terminal.field == "run" and last.name in done.sentence
    assert _nothing_left(tmp_path)


# ------------------------------------------------------------------------------ the output folder


def cancel_in_the_middle(folder: str) -> int:
    """As `work`, with a request to stop while the fifth weight is merged."""
    import queue
    from pathlib import Path

    from training_backend import worker
    from training_backend.export import merge, weights
    from training_backend.runs import Run

    run = Run(Path(folder))
    rows, seconds, count = merge.Merge._rows, weights.PROGRESS_SECONDS, []

    def slow(*arguments):
        count.append(1)
        if len(count) == 5:
            run.request("stop")
        return rows(*arguments)

    merge.Merge._rows, weights.PROGRESS_SECONDS = slow, -1
    try:
        code = worker._work(run, queue.Queue())
    finally:
        merge.Merge._rows, weights.PROGRESS_SECONDS = rows, seconds
    assert 5 <= len(count) < 15, "it was not in the middle"
    return code


def test_a_cancelled_merge_leaves_nothing(
    backend: Any, adapter: Path, tmp_path: Path, lorasmith_home: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    job = parse_job({"kind": "export", "run": str(adapter), "out": str(out)})
    run = runs.create(job)
    assert backend(cancel_in_the_middle, run.folder) == 3
    assert run.state() == "stopped"
    assert list(out.iterdir()) == [] and not (tmp_path / "out.partial").exists()


def test_an_output_folder_in_use_is_left_alone(
    export: Export, adapter: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine", encoding="utf-8")
    done = export(adapter)
    assert done.terminal.code == "out_not_empty" and done.terminal.field == "out"
    assert (out / "thesis.txt").read_text("utf-8") == "mine"
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    assert export(adapter, out / "thesis.txt").terminal.code == "out_is_file"


def test_somebody_elses_partial_folder_is_not_removed(
    export: Export, adapter: Path, tmp_path: Path
) -> None:
    partial = tmp_path / "out.partial"
    partial.mkdir()
    (partial / "thesis.txt").write_text("mine", encoding="utf-8")
    done = export(adapter)
    assert done.terminal.code == "partial_in_the_way" and done.terminal.field == "out"
    assert (partial / "thesis.txt").read_text("utf-8") == "mine"
    assert not (tmp_path / "out").exists()


def test_what_a_killed_export_left_is_replaced(
    export: Export, adapter: Path, tmp_path: Path
) -> None:
    partial = tmp_path / "out.partial"
    partial.mkdir()
    (partial / ".lorasmith-partial").touch()
    (partial / "model.safetensors").write_bytes(b"half")
    assert export(adapter).exit_code == 0
    assert not partial.exists()
    assert not list((tmp_path / "out").glob(".*"))


def test_no_path_and_no_code_leaves_with_the_folder_and_nothing_else_is_lost(
    export: Export, adapter: Path, tiny_model: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    _change(
        base / "config.json",
        _name_or_path=str(base),
        auto_map={"AutoConfig": "evil.Evil"},
        attn_implementation="somebody/kernel",
        nested={"list": [{"cache": "/home/me/cache", "auto_map": 1}, "C:\\Users\\me\\x"]},
        kept={"slash": "/", "slashes": "//", "token": "</s>", "command": "/think", "ratio": "1/2"},
    )
    _change(base / "tokenizer_config.json", name_or_path=str(base), sep_token="/",
            auto_map={"AutoTokenizer": ["evil.Evil", None]})  # fmt: skip
    (base / "evil.py").write_text("raise SystemExit", encoding="utf-8")
    (base / "pytorch_model.bin").write_bytes(b"pickle")
    _change(adapter / "adapter_config.json", base_model_name_or_path=str(base))
    assert export(adapter).exit_code == 0
    out = tmp_path / "out"
    assert not [p for p in out.iterdir() if p.suffix in (".py", ".bin")]
    text = "".join(path.read_text("utf-8") for path in out.glob("*config.json"))
    for secret in (str(tmp_path), "/home/me", "Users", "evil", "somebody"):
        assert secret not in text
    config = json.loads((out / "config.json").read_text("utf-8"))
    assert config["nested"] == {"list": [{"cache": "cache"}, "x"]}
    assert config["kept"] == {
        "slash": "/", "slashes": "//", "token": "</s>", "command": "/think", "ratio": "1/2",
    }  # fmt: skip
    assert json.loads((out / "tokenizer_config.json").read_text("utf-8"))["sep_token"] == "/"

    assert export(adapter, tmp_path / "plain", format="adapter").exit_code == 0
    config = json.loads((tmp_path / "plain" / "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"] == "base"


def fill_while_merging(folder: str, filler: str) -> int:
    """As `work`, while something else takes what is left of the disk."""
    import contextlib
    import queue
    from pathlib import Path

    from training_backend import worker
    from training_backend.export import merge
    from training_backend.runs import Run

    rows = merge.Merge._rows

    def greedy(*arguments):
        with open(filler, "ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(65_536))
        return rows(*arguments)

    merge.Merge._rows = greedy
    try:
        return worker._work(Run(Path(folder)), queue.Queue())
    finally:
        merge.Merge._rows = rows


def test_a_disk_that_fills_up_while_merging_leaves_nothing(
    backend: Any, adapter: Path, tmp_path: Path, lorasmith_home: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=70m", "tmpfs", str(small)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    try:
        job = {"kind": "export", "run": str(adapter), "out": str(small / "out")}
        run = runs.create(parse_job(job))
        assert backend(fill_while_merging, run.folder, small / "other") == 1
        last: Any = run.events()[-1]
        assert last.code == "disk_full" and str(small) in last.message
        assert [path.name for path in small.iterdir()] == ["other"]

        (small / "other").write_bytes(bytes(30_000_000))
        run = runs.create(parse_job(job))
        backend(fill_while_merging, run.folder, small / "other")
        last = run.events()[-1]
        assert last.code == "disk_full_ahead" and str(small) in last.message
        assert [path.name for path in small.iterdir()] == ["other"]
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)
