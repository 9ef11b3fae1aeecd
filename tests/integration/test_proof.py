"""An export is asked what it was made of is asked: what is the same passes, planted faults do not.

The model is random and tiny, yet sure of itself as trained ones are, so that a fault shows.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import REPOSITORY
from tests.integration.test_merge import make_adapter
from training_backend import runs
from training_backend.job import parse_job

LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]}
SURE = {"initializer_range": 0.3}


def prove(job: dict[str, Any], trouble: str) -> dict[str, Any]:
    """As a worker does it, less the processes; the answers are short.

    `trouble`: what happens when a model is to be loaded; "" for nothing.
    """
    import queue
    import signal

    from training_backend import runs
    from training_backend.export import proof, proof_reading
    from training_backend.export.child import ChildDied
    from training_backend.job import parse_job
    from training_backend.worker import Reporter

    def in_this_process(work, *arguments, name, meanwhile, tell=None):
        if trouble == "stop":
            run.request("stop")
        meanwhile()
        if trouble == "killed":
            raise ChildDied(-signal.SIGKILL, out_of_memory=True)
        if trouble == "no room":
            raise OSError(28, "No space left on device", arguments[0].folder)
        return work(*([tell] if tell else []), *arguments)

    before = proof.in_child, proof_reading.ANSWER_TOKENS, proof.proof_bytes
    proof.in_child, proof_reading.ANSWER_TOKENS = in_this_process, 8
    if trouble == "memory":
        proof.proof_bytes = lambda parameters, bits: bits * 10**12
    run = runs.create(parse_job(job))
    reporter = Reporter(run, queue.Queue())
    try:
        proof.run(run.job(), reporter)
    finally:
        proof.in_child, proof_reading.ANSWER_TOKENS, proof.proof_bytes = before
        reporter.close()
    events = run.events()
    return {
        "proved": next(e for e in events if e.type == "ExportProved").model_dump(mode="json"),
        "phases": [[e.phase, e.fraction] for e in events if e.type == "PhaseChanged"],
        "left": (run.folder / "proof").exists(),
    }


@pytest.fixture(scope="module")
def sure_model(make_model: Any) -> Path:
    return make_model(**SURE)


@pytest.fixture
def trained(backend: Any, sure_model: Path, job_document: Any, lorasmith_home: Path) -> Any:
    """A run that is over: its adapter is there, and a third of its rows was held out."""
    run = runs.create(
        parse_job(
            job_document(
                model={"id": str(sure_model)},
                quantization={"load_in_4bit": False},
                evaluation={"held_out_fraction": 0.34},
            )
        )
    )
    backend(make_adapter, sure_model, run.adapter, LORA)
    return run


@pytest.fixture
def merged(trained: Any, do: Any, tmp_path: Path) -> Path:
    job = {"kind": "export", "run": str(trained.folder), "out": str(tmp_path / "out")}
    done = do(job)
    assert done.exit_code == 0, done.terminal
    return tmp_path / "out"


Verify = Callable[..., dict[str, Any]]


@pytest.fixture
def verify(backend: Any, trained: Any) -> Verify:
    def verified(folder: Path, trouble: str = "", **options: Any) -> dict[str, Any]:
        job = {"kind": "verify", "folder": str(folder), "run": str(trained.folder), **options}
        found: dict[str, Any] = backend(prove, job, trouble)
        assert not found["left"]
        return found

    return verified


def change(file: Path, **values: Any) -> None:
    document = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**document, **values}), encoding="utf-8")


def checks(found: dict[str, Any]) -> dict[str, Any]:
    return {check["name"]: check for check in found["proved"]["checks"]}


def failed(found: dict[str, Any]) -> set[str]:
    return {name for name, check in checks(found).items() if not check["passed"]}


def test_a_merged_model_answers_alike_and_says_so_in_its_folder(
    merged: Path, verify: Verify, trained: Any, sure_model: Path, tmp_path: Path
) -> None:
    found = verify(merged, prompts=["What is 3 and 3?"])
    proved = found["proved"]
    assert proved["verdict"] == "alike", proved
    assert failed(found) == set()
    told = checks(found)
    assert told["kl"]["value"] < 1e-3 < 0.1 < float(told["adapter"]["params"]["effect"])
    assert told["adapter"]["value"] == pytest.approx(1, abs=0.02)
    # Eight held-out rows are there, six are asked, and the person's own question.
    assert told["prompts"]["params"]["prompts"] == 7
    assert {"perplexity", "ends", "agreement"} <= told.keys()
    fractions = [share for phase, share in found["phases"] if phase == "verifying"]
    assert fractions == sorted(fractions) and fractions[-1] > 0.9
    text = (merged / "proof.json").read_text(encoding="utf-8")
    assert json.loads(text)["verdict"] == "alike"
    card = (merged / "README.md").read_text(encoding="utf-8")
    assert proved["message"] in card
    for private in (str(tmp_path), str(trained.folder), str(sure_model), "What is"):
        assert private not in text + card
    assert not (merged / "DIFFERENT.txt").exists()


def asked_of(job: dict[str, Any]) -> dict[str, Any]:
    """What a run is asked about, beside what it kept back and what it learned from; in tokens."""
    from training_backend.data.training_rows import training_rows
    from training_backend.export.proof_questions import questions
    from training_backend.job import parse_job
    from training_backend.models.tokenizer import load_tokenizer

    job = parse_job(job)
    rows = training_rows(job, load_tokenizer(job.model.id))
    tokenizer = load_tokenizer(job.model.id)
    found, reason = questions(job, tokenizer, ["My own?"])
    whole = [
        tokenizer.apply_chat_template(
            [*question.messages, {"role": "assistant", "content": question.answer}],
            return_dict=False,
        )
        for question in found
        if question.answer
    ]
    return {
        "asked": whole,
        "kinds": [question.kind for question in found],
        "held_out": list(rows.held_out["input_ids"]) if rows.held_out is not None else [],
        "train": list(rows.train["input_ids"]),
        "reason": reason,
    }


def test_what_is_asked_was_held_out_by_the_training_itself(backend: Any, job_document: Any) -> None:
    found = backend(asked_of, job_document(evaluation={"held_out_fraction": 0.34}))
    assert found["kinds"] == ["held_out"] * 6 + ["own"] and found["reason"] == ""
    assert len(found["held_out"]) == 8
    for row in found["asked"]:
        assert row in found["held_out"] and row not in found["train"]

    found = backend(asked_of, job_document())
    assert found["kinds"] == ["data"] * 6 + ["own"]
    assert all(row in found["train"] for row in found["asked"])


def other_template(out: Path, base: Path) -> None:
    file = out / "chat_template.jinja"
    file.write_text(file.read_text(encoding="utf-8").replace("<|im_start|>", "### "), "utf-8")


def no_end(out: Path, base: Path) -> None:
    change(out / "config.json", eos_token_id=None)
    change(out / "generation_config.json", eos_token_id=None)


def end_of_texts_alone(out: Path, base: Path) -> None:
    change(out / "generation_config.json", eos_token_id=0)


def base_alone(out: Path, base: Path) -> None:
    shutil.copyfile(base / "model.safetensors", out / "model.safetensors")


def begins_twice(out: Path, base: Path) -> None:
    file = out / "chat_template.jinja"
    file.write_text("<|im_start|>" + file.read_text(encoding="utf-8"), "utf-8")


def cut(out: Path, base: Path) -> None:
    with (out / "model.safetensors").open("r+b") as file:
        file.truncate(100_000)


def without_a_weight(out: Path, base: Path) -> None:
    """As a merge that forgets one; the head is sound."""
    file = out / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content.replace(b"layers.1.mlp.up_proj", b"layers.7.mlp.up_proj", 1))


def not_a_number(out: Path, base: Path) -> None:
    with (out / "model.safetensors").open("r+b") as file:
        file.seek(-64, 2)
        file.write(b"\xc0\x7f" * 32)  # bfloat16


@pytest.mark.parametrize(
    ("fault", "code", "check"),
    [
        (other_template, "proof_other_template", "prompts"),
        (begins_twice, "proof_begins_twice", "prompts"),
        (no_end, "proof_no_end", "ends"),
        (end_of_texts_alone, "proof_no_end", "ends"),
        (base_alone, "proof_no_adapter", "adapter"),
        (cut, "export_file_cut", "files"),
        (without_a_weight, "model_incomplete", "files"),
        (not_a_number, "proof_not_finite", "kl"),
    ],
)
def test_a_planted_fault_is_found_and_named(
    merged: Path, verify: Verify, sure_model: Path, tmp_path: Path,
    fault: Callable[[Path, Path], None], code: str, check: str,
) -> None:  # fmt: skip
    fault(merged, sure_model)
    found = verify(merged)
    assert (found["proved"]["verdict"], found["proved"]["code"]) == ("different", code), found
    assert check in failed(found)
    marker = (merged / "DIFFERENT.txt").read_text(encoding="utf-8")
    assert marker.strip() == found["proved"]["message"]
    assert str(tmp_path) not in marker + (merged / "proof.json").read_text(encoding="utf-8")


def negate_a_layer(file: str) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    tensors["model.layers.0.self_attn.v_proj.weight"] *= -1
    save_file(tensors, file, metadata={"format": "pt"})


def test_a_merge_into_another_base_is_found(
    verify: Verify, backend: Any, sure_model: Path, do: Any, trained: Any, tmp_path: Path
) -> None:
    """The same shape, tokenizer and adapter; the base was trained otherwise."""
    other = tmp_path / "other"
    shutil.copytree(sure_model, other)
    backend(negate_a_layer, other / "model.safetensors")
    config = trained.adapter / "adapter_config.json"
    change(config, base_model_name_or_path=str(other))
    out = tmp_path / "out"
    done = do({"kind": "export", "run": str(trained.folder), "out": str(out)})
    assert done.exit_code == 0, done.terminal
    change(config, base_model_name_or_path=str(sure_model))
    found = verify(out)
    assert found["proved"]["code"] == "proof_other_weights", found


def test_an_export_names_the_end_that_its_base_did_not_know(
    verify: Verify, sure_model: Path, do: Any, trained: Any, tmp_path: Path
) -> None:
    """As of a base model that only knows where a text ends, trained to chat."""
    base, out = tmp_path / "base", tmp_path / "out"
    shutil.copytree(sure_model, base)
    change(base / "config.json", eos_token_id=0)
    change(base / "generation_config.json", eos_token_id=0)
    change(trained.adapter / "adapter_config.json", base_model_name_or_path=str(base))
    done = do({"kind": "export", "run": str(trained.folder), "out": str(out)})
    assert done.exit_code == 0, done.terminal
    assert json.loads((out / "generation_config.json").read_text("utf-8"))["eos_token_id"] == [0, 2]
    assert verify(out)["proved"]["verdict"] == "alike"


def test_a_merge_into_the_base_in_four_bits_is_asked_beside_that(
    backend: Any, sure_model: Path, job_document: Any, do: Any, verify: Verify, tmp_path: Path
) -> None:
    job = job_document(model={"id": str(sure_model)}, evaluation={"held_out_fraction": 0.34})
    run = runs.create(parse_job(job))
    backend(make_adapter, sure_model, run.adapter, LORA)
    out = tmp_path / "out"
    export = {"kind": "export", "run": str(run.folder), "out": str(out)}
    assert do({**export, "base": "4-bit"}).exit_code == 0
    # As an earlier check left it; without, the job of the export tells (test_proof_files.py).
    (out / "proof.json").write_text('{"base": "4-bit"}', encoding="utf-8")
    proved = verify(out, run=str(run.folder))
    assert proved["proved"]["verdict"] == "alike", json.dumps(proved["proved"])
    assert json.loads((out / "proof.json").read_text("utf-8"))["base"] == "4-bit"
    assert "four_bit" not in checks(proved)

    shutil.rmtree(out)
    assert do(export).exit_code == 0
    assert checks(verify(out, run=str(run.folder)))["four_bit"]["value"] > 0.01


def test_what_was_mended_loses_its_mark(merged: Path, verify: Verify, sure_model: Path) -> None:
    (merged / "DIFFERENT.txt").write_text("The export differs.", encoding="utf-8")
    assert verify(merged)["proved"]["verdict"] == "alike"
    assert not (merged / "DIFFERENT.txt").exists()


TROUBLES = pytest.mark.parametrize(
    ("trouble", "code", "words"),
    [
        ("memory", "proof_no_memory", "GB of memory for the model in 16 bits"),
        ("killed", "proof_memory_ran_out", "Close other programs"),
        ("stop", "proof_stopped", "stopped before its end"),
        ("no room", "proof_failed", "No space left on device"),
    ],
)


@TROUBLES
def test_what_could_not_be_asked_is_not_proven_and_never_alike(
    merged: Path, verify: Verify, trouble: str, code: str, words: str, tmp_path: Path
) -> None:
    proved = verify(merged, trouble)["proved"]
    assert (proved["verdict"], proved["code"], proved["kept"]) == ("not_proven", code, None), proved
    assert words in proved["message"] and str(tmp_path) not in proved["message"]
    assert json.loads((merged / "proof.json").read_text("utf-8"))["verdict"] == "not_proven"
    assert not (merged / "DIFFERENT.txt").exists()


def test_a_check_that_comes_to_nothing_leaves_what_was_found_of_the_same_files(
    merged: Path, verify: Verify
) -> None:
    """The files are changed in between, so both a good and a bad verdict are kept, and dropped."""
    settings = merged / "generation_config.json"
    sound = settings.read_text(encoding="utf-8")
    for verdict, ends in (("alike", None), ("different", 0)):
        if ends is not None:
            change(settings, eos_token_id=ends)
        found = verify(merged)["proved"]
        assert (found["verdict"], found["kept"]) == (verdict, None)
        marks = [path for path in merged.iterdir() if path.suffix in (".json", ".txt", ".md")]
        before = {path.name: path.read_bytes() for path in marks}
        card = (merged / "README.md").read_text(encoding="utf-8")
        assert found["message"].partition(":")[0] in card
        for trouble in ("stop", "memory"):
            proved = verify(merged, trouble)["proved"]
            assert (proved["verdict"], proved["kept"]) == ("not_proven", verdict)
            assert found["message"] in proved["message"]
        assert {path.name: path.read_bytes() for path in marks} == before
    assert (merged / "DIFFERENT.txt").exists()
    (merged / "README.md").write_text("It is mine.", encoding="utf-8")
    assert verify(merged, "stop")["proved"]["kept"] == "different"

    settings.write_text(sound, encoding="utf-8")
    proved = verify(merged, "stop")["proved"]
    assert (proved["verdict"], proved["kept"]) == ("not_proven", None)
    assert json.loads((merged / "proof.json").read_text("utf-8"))["code"] == "proof_stopped"
    assert not (merged / "DIFFERENT.txt").exists()


def test_without_its_base_an_export_is_not_proven(
    merged: Path, verify: Verify, trained: Any
) -> None:
    missing = "/nowhere/models/base"
    change(trained.adapter / "adapter_config.json", base_model_name_or_path=missing)
    proved = verify(merged)["proved"]
    assert (proved["verdict"], proved["code"]) == ("not_proven", "base_missing")
    assert "/nowhere" not in (merged / "proof.json").read_text("utf-8")


def test_an_adapter_is_asked_on_its_base_and_tells_when_its_data_is_gone(
    verify: Verify, trained: Any, do: Any, data_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "adapter-out"
    job = {"kind": "export", "format": "adapter", "run": str(trained.folder), "out": str(out)}
    assert do(job).exit_code == 0
    data_file.unlink()
    found = verify(out)
    assert found["proved"]["verdict"] == "alike", found
    assert checks(found)["prompts"]["params"]["prompts"] == 6
    assert "perplexity" not in checks(found), "general questions have no answers of the data"


def test_a_model_whose_every_weight_was_trained_is_its_own_reference(
    verify: Verify, sure_model: Path, job_document: Any, do: Any, tmp_path: Path
) -> None:
    trained = do(
        job_document(
            model={"id": str(sure_model)},
            quantization={"load_in_4bit": False},
            training={"method": "full", "max_steps": 6, "learning_rate": 1e-2},
            evaluation={"held_out_fraction": 0.34},
        )
    )
    assert trained.exit_code == 0, trained.terminal
    out = tmp_path / "out"
    done = do({"kind": "export", "run": str(trained.run.folder), "out": str(out)})
    assert done.exit_code == 0, done.terminal
    found = verify(out, run=str(trained.run.folder), prompts=["What is 3 and 3?"])
    assert (found["proved"]["verdict"], failed(found)) == ("alike", set()), found["proved"]
    told = checks(found)
    assert told["prompts"]["params"]["prompts"] == 7 and told["kl"]["value"] < 1e-3
    assert {"perplexity", "ends"} <= told.keys() and not {"adapter", "four_bit"} & told.keys()

    base_alone(out, sure_model)
    found = verify(out, run=str(trained.run.folder))
    assert found["proved"]["verdict"] == "different" and "kl" in failed(found), found["proved"]


# A token that a chat template would write says nothing of where a text ends.
POEMS = [{"text": f"Line {n} of the poem says that {n} roses are red, and then<|im_start|>so."}
         for n in range(24)]  # fmt: skip


@pytest.mark.parametrize("chats", [True, False])
def test_an_adapter_that_learned_plain_text_is_asked_to_go_on_with_it(
    verify: Verify, sure_model: Path, job_document: Any, do: Any, write_rows: Any,
    tmp_path: Path, chats: bool,
) -> None:  # fmt: skip
    base = tmp_path / "base"
    shutil.copytree(sure_model, base)
    if not chats:
        (base / "chat_template.jinja").unlink()
    write_rows(POEMS)
    trained = do(
        job_document(
            model={"id": str(base)},
            quantization={"load_in_4bit": False},
            training={"max_steps": 6, "learning_rate": 1e-2},
            evaluation={"held_out_fraction": 0.34},
        )
    )
    assert trained.exit_code == 0, trained.terminal
    out = tmp_path / "out"
    done = do({"kind": "export", "run": str(trained.run.folder), "out": str(out)})
    assert done.exit_code == 0, done.terminal
    found = verify(out, run=str(trained.run.folder), prompts=["Roses are"])
    assert (found["proved"]["verdict"], failed(found)) == ("alike", set()), found["proved"]
    told = checks(found)
    assert told["prompts"]["params"]["prompts"] == 7 and "perplexity" in told
    assert told["ends"]["params"]["tokens"] == "<|im_end|>"
    assert told["adapter"]["value"] == pytest.approx(1, abs=0.05)

    base_alone(out, base)
    found = verify(out, run=str(trained.run.folder))
    assert found["proved"]["code"] == "proof_no_adapter", found["proved"]


def begin_the_template_twice(file: Path) -> None:
    """In a GGUF file; a comment fills up to the 32 bytes by which all that follows is aligned."""
    data = file.read_bytes()
    place = data.index(b"tokenizer.chat_template") + len("tokenizer.chat_template") + 4
    length = int.from_bytes(data[place : place + 8], "little")
    more = b"<|im_start|>{#" + b" " * 16 + b"#}"
    head = data[:place] + (length + len(more)).to_bytes(8, "little")
    file.write_bytes(head + more + data[place + 8 :])


@pytest.mark.slow
def test_a_gguf_export_is_proven_in_llama_cpp_and_its_faults_are_found(
    trained: Any, verify: Verify, command_line: Any, tmp_path: Path
) -> None:
    out = tmp_path / "gguf"
    options = ("--format", "gguf", "--quantization", "f16", "--prompt", "What is 1 and 1?")
    answer = command_line("export", "--json", trained.folder, *options, "--out", out)
    assert answer.returncode == 0, answer.stderr
    *events, last = map(json.loads, answer.stdout.splitlines())
    assert last["type"] == "RunCompleted"
    (proved,) = [event for event in events if event["type"] == "ExportProved"]
    assert proved["verdict"] == "alike", proved
    assert json.loads((out / "proof.json").read_text("utf-8"))["verdict"] == "alike"
    assert proved["message"] in (out / "README.md").read_text("utf-8")

    file = out / "gguf-F16.gguf"
    sound = file.read_bytes()
    begin_the_template_twice(file)
    assert verify(out)["proved"]["code"] == "proof_begins_twice"
    file.write_bytes(sound.replace(b"<|im_start|>assistant", b"<|im_start|>Assistant"))
    assert verify(out)["proved"]["code"] == "proof_other_template"
    llama = b"\x05\0\0\0\0\0\0\0llama"
    assert llama in sound
    file.write_bytes(sound.replace(llama, llama[:-5] + b"lamal", 1))
    proved = verify(out)["proved"]
    assert (proved["verdict"], proved["code"]) == ("not_proven", "proof_beyond_engine")
    file.write_bytes(sound[:-50_000])

    answer = command_line("verify", out, "--run", trained.folder, "--json")
    assert answer.returncode == 1, answer.stderr
    told = json.loads(answer.stdout)
    assert (told["verdict"], told["code"]) == ("different", "gguf_damaged")
    assert [check["name"] for check in told["checks"]] == ["files"]
    assert file.name in told["message"]
    assert list((tmp_path / "home" / "probe-runs").iterdir()) == []


def test_a_check_stopped_by_ctrl_c_is_exit_code_3_and_saves_nothing(
    merged: Path, trained: Any, lorasmith_home: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "training_backend", "verify", merged, "--run", trained.folder],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    while not list(lorasmith_home.glob("probe-runs/*/events.jsonl")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 3, err
    assert "\nStopping. Ctrl+C again" in f"\n{err}" and "Saving" not in err
    assert "not_proven: The check was stopped" in out


def test_verify_says_what_it_cannot_find(command_line: Any, trained: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, run, words in (
        (tmp_path / "nowhere", trained.folder, "There is no folder"),
        (tmp_path / "empty", trained.folder, "holds no export"),
        (tmp_path / "empty", "no-such-run", "There is no run no-such-run"),
    ):
        answer = command_line("verify", folder, "--run", run)
        assert answer.returncode == 1
        assert words in answer.stderr and "Traceback" not in answer.stderr, answer.stderr
