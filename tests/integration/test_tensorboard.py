"""TensorBoard logs: what the journal says, and never anything that the run would notice."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from training_backend import runs
from training_backend.job import parse_job
from training_backend.lifecycle import checkpoints


@pytest.fixture
def logged_job(job_document: Any) -> dict[str, Any]:
    job: dict[str, Any] = job_document(
        lora={"lora_dropout": 0.2},
        training={"max_steps": 6, "save_steps": 2, "save_total_limit": 9, "tensorboard": True},
        evaluation={"held_out_fraction": 0.25, "eval_steps": 3, "prompts": ["Hi *you*"],
                    "max_new_tokens": 2, "task_metric_rows": 2},
    )  # fmt: skip
    return job


def read_back(folder: str) -> list[list[Any]]:
    """Every record of the files, oldest first, as [kind, step, tag, value]; checksums compared."""
    import struct
    from pathlib import Path

    from tensorboardX.proto import event_pb2
    from tensorboardX.record_writer import masked_crc32c

    found = []
    for path in sorted(Path(folder).iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack("<Q", data[at : at + 8])
            content = data[at + 12 : at + 12 + length]
            sums = struct.unpack("<I", data[at + 8 : at + 12])
            sums += struct.unpack("<I", data[at + 12 + length : at + 16 + length])
            assert sums == (masked_crc32c(data[at : at + 8]), masked_crc32c(content))
            event = event_pb2.Event.FromString(content)
            at += 16 + length
            if event.WhichOneof("what") != "summary":
                found.append([event.WhichOneof("what"), event.step, "", event.file_version])
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "text":
                    text = value.tensor.string_val[0].decode()
                    found.append(["text", event.step, value.tag, text])
                else:
                    found.append(["scalar", event.step, value.tag, value.simple_value])
    return found


def numbers(events: list[Any]) -> list[tuple[Any, ...]]:
    return [
        (event.type, event.step, event.loss, getattr(event, "grad_norm", None))
        for event in events
        if event.type in ("MetricsLogged", "EvaluationLogged")
    ]


def curve(records: list[list[Any]], tag: str) -> dict[int, float]:
    return {step: value for kind, step, name, value in records if (kind, name) == ("scalar", tag)}


def test_the_log_says_what_the_journal_says_and_the_numbers_are_those_of_a_run_without(
    do: Any, backend: Any, logged_job: dict[str, Any]
) -> None:
    logged = do(logged_job)
    plain = do({**logged_job, "training": {**logged_job["training"], "tensorboard": False}})
    assert logged.exit_code == plain.exit_code == 0
    assert not (plain.run.folder / "tensorboard").exists()
    assert numbers(logged.events) == numbers(plain.events)
    one, other = ((done.run.adapter / "adapter_model.safetensors") for done in (logged, plain))
    assert one.read_bytes() == other.read_bytes()

    records = backend(read_back, logged.run.folder / "tensorboard")
    assert records[0] == ["file_version", 0, "", "brain.Event:2"]
    told = logged.of("MetricsLogged")
    for tag, key in (
        ("loss/train", "loss"),
        ("learning_rate", "learning_rate"),
        ("gradient_norm", "grad_norm"),
        ("tokens_per_second", "tokens_per_second"),
    ):
        expected = {each.step: getattr(each, key) for each in told}
        assert len(expected) == 6
        assert curve(records, tag) == pytest.approx(expected, rel=1e-6)  # TensorBoard has floats
    held_out = {each.step: each.loss for each in logged.of("EvaluationLogged")}
    assert curve(records, "loss/held_out") == pytest.approx(held_out, rel=1e-6) and held_out
    unsure = {each.step: each.perplexity for each in logged.of("EvaluationLogged")}
    assert curve(records, "perplexity/held_out") == pytest.approx(unsure, rel=1e-6)
    (scored,) = logged.of("AnswersScored")
    for score in scored.scores:
        told_after = {scored.step: score.after}
        assert curve(records, f"scores/{score.name}") == pytest.approx(told_after, rel=1e-6)
    assert min(curve(records, "memory/run_GiB").values()) > 0.01
    texts = [(step, tag, text) for kind, step, tag, text in records if kind == "text"]
    assert texts[0][1] == "job/text_summary" and '"tensorboard": true' in texts[0][2]
    answers = [
        (
            each.step,
            f"answers/1{'_base' if each.base else ''}/text_summary",
            f"> Hi *you*\n\n{each.answer}",
        )
        for each in logged.of("SampleGenerated")
    ]
    assert texts[1:] == answers and {step for step, _, _ in answers} >= {0, 6}


def test_a_resumed_run_voids_the_steps_that_it_does_again(
    do: Any, backend: Any, logged_job: dict[str, Any]
) -> None:
    done = do(logged_job)
    for checkpoint in checkpoints.finished(done.run.checkpoints):
        if checkpoint.step > 2:
            shutil.rmtree(checkpoint.folder)
    resumed = do(done.run)
    assert resumed.of("RunStarted")[-1].resumed_from_step == 2
    records = backend(read_back, done.run.folder / "tensorboard")
    starts = [step for kind, step, _, _ in records if kind == "session_log"]
    assert starts == [0, 3]
    second = records[[kind for kind, *_ in records].index("session_log", 2) :]
    assert sorted(curve(second, "loss/train")) == [3, 4, 5, 6]
    assert curve(second, "loss/train") == {
        step: loss for step, loss in curve(records, "loss/train").items() if step > 2
    }


def work_on_a_full_disk(folder: str) -> int:
    """As `work`, with the log on a device that is always full from the third step on."""
    import queue
    from pathlib import Path

    from training_backend import worker
    from training_backend.protocol import MetricsLogged
    from training_backend.runs import Run
    from training_backend.training import tensorboard_log

    class Full(tensorboard_log.TensorBoardLog):
        def take(self, event):
            if isinstance(event, MetricsLogged) and event.step == 3:
                self._file.close()
                self._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115 - closed by the log
            super().take(event)

    kept, tensorboard_log.TensorBoardLog = tensorboard_log.TensorBoardLog, Full
    try:
        return worker._work(Run(Path(folder)), queue.Queue())
    finally:
        tensorboard_log.TensorBoardLog = kept


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_ends_the_log_with_one_note_and_not_the_run(
    backend: Any, lorasmith_home: Path, logged_job: dict[str, Any]
) -> None:
    run = runs.create(parse_job(logged_job))
    assert backend(work_on_a_full_disk, run.folder) == 0
    events = run.events()
    assert [event.step for event in events if event.type == "MetricsLogged"] == [*range(1, 7)]
    notes = [each for each in events if getattr(each, "code", "") == "tensorboard_failed"]
    assert [note.message for note in notes] == [
        "TensorBoard logs are no longer written (No space left on device); the training goes on."
    ]
    records = backend(read_back, run.folder / "tensorboard")
    assert sorted(curve(records, "loss/train")) == [1, 2]


def test_a_log_that_cannot_even_begin_is_said_and_the_run_goes_on(
    do: Any, lorasmith_home: Path, logged_job: dict[str, Any], backend: Any
) -> None:
    run = runs.create(parse_job(logged_job))
    (run.folder / "tensorboard").write_text("a file", encoding="utf-8")
    done = do(run)
    assert done.exit_code == 0
    notes = [each for each in done.events if getattr(each, "code", "") == "tensorboard_failed"]
    assert len(notes) == 1
