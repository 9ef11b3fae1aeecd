"""The helper process: it answers, several kinds at once, and ends with its pipe."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pytest

from training_backend import helper
from training_backend.computer.devices import this_device
from training_backend.job import parse_job
from training_backend.vram import TraceNeeded, estimate_job


class Helper:
    """A helper of the test's own, asked without a window."""

    def __init__(self, needs_torch: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        theirs, self.commands = context.Pipe(duplex=False)
        self.answers: Connection
        self.answers, their_answers = context.Pipe(duplex=False)
        self.process = context.Process(
            target=helper.main, args=(theirs, their_answers, needs_torch)
        )
        self.process.start()
        theirs.close()
        their_answers.close()

    def ask(self, id: int, kind: str, **document: Any) -> None:
        self.commands.send({"id": id, "kind": kind, **document})

    def answer(self) -> tuple[int, str, dict[str, Any]]:
        assert self.answers.poll(300)
        answer: tuple[int, str, dict[str, Any]] = self.answers.recv()
        return answer

    def result(self) -> tuple[int, str, dict[str, Any]]:
        while True:
            answer = self.answer()
            if answer[1] != "progress":
                return answer


@pytest.fixture
def asked(home_with_demo_model: Path) -> Iterator[Helper]:
    found = Helper()
    yield found
    found.commands.close()
    found.process.join(120)
    assert found.process.exitcode == 0  # it went by itself
    found.answers.close()


def job(**dataset: Any) -> dict[str, Any]:
    return {
        "model": {"id": "demo"},
        "dataset": {"path": "demo", **dataset},
        "training": {"max_length": 40},
    }


def test_rows_their_lengths_and_findings(asked: Helper) -> None:
    asked.ask(1, "preview", job=job(), start=2)
    id, kind, found = asked.result()
    assert (id, kind) == (1, "done")
    (row,) = found["rows"]
    assert row["index"] == 2
    assert row["truncated"]
    assert row["cut_text"]
    assert "text" not in row

    asked.ask(2, "lengths", job=job(), start=0, rows=4)
    _, _, lengths = asked.result()
    assert lengths["lengths"].keys() == {2, 3}
    assert lengths["lengths"][2] == row["n_tokens_full"]

    asked.ask(3, "lint", job=job())
    _, _, report = asked.result()
    assert report["rows"] == 240
    assert {finding["code"] for finding in report["findings"]} >= {"truncated"}

    # A template that one job asks for does not stick to the next.
    asked.ask(4, "preview", job=job(chat_template="alpaca"), start=2)
    assert asked.result()[2]["rows"][0]["tokens"] != row["tokens"]
    asked.ask(5, "preview", job=job(), start=2)
    assert asked.result()[2]["rows"][0]["tokens"] == row["tokens"]


def test_mistakes_come_back_as_sentences(asked: Helper, tmp_path: Path) -> None:
    asked.ask(1, "preview", job=job(path=str(tmp_path / "no.jsonl")), start=0)
    _, kind, error = asked.result()
    assert kind == "failed"
    assert (error["code"], error["field"]) == ("data_missing", "dataset.path")
    asked.ask(2, "preview", job={**job(), "model": {"id": "nobody/nothing"}}, start=0)
    _, kind, error = asked.result()
    assert (kind, error["code"]) == ("failed", "model_not_here")


def test_a_row_is_shown_while_all_are_gone_through(asked: Helper, tmp_path: Path) -> None:
    file = tmp_path / "many.jsonl"
    row = json.dumps({"prompt": "How far is it? " * 20, "completion": "Not far. " * 20})
    file.write_text(f"{row}\n" * 60_000)
    asked.ask(1, "lint", job=job(path=str(file)))
    while asked.answer()[1] != "progress":
        pass
    asked.ask(2, "preview", job=job(path=str(file)), start=3)
    assert asked.result()[0] == 2  # before the first is done
    asked.ask(1, "cancel")
    assert asked.result()[:2] == (1, "stopped")


def test_it_does_without_torch(asked: Helper) -> None:
    asked.ask(1, "preview", job=job(), start=0)
    assert asked.result()[1] == "done"
    if hasattr(psutil.Process, "memory_maps"):
        maps = psutil.Process(asked.process.pid).memory_maps()
        assert not any("libtorch" in place.path for place in maps)


def test_a_model_known_by_its_config_alone_is_traced_and_then_estimated(
    lorasmith_home: Path, tmp_path: Path
) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 300,
        "hidden_size": 48, "intermediate_size": 80, "num_attention_heads": 3,
        "num_key_value_heads": 3, "num_hidden_layers": 2,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    wanted = {"model": {"id": str(tmp_path)}, "dataset": {"path": "none.jsonl"}}
    parsed: Any = parse_job(wanted)
    with pytest.raises(TraceNeeded):
        estimate_job(parsed, this_device())

    asked = Helper(needs_torch=True)
    asked.ask(1, "trace", job=wanted)
    shares = []
    while (answer := asked.answer())[1] == "progress":
        shares.append(answer[2]["share"])
    assert answer[1] == "done", answer
    assert shares == sorted(shares) and shares[0] >= 0 and shares[-1] < 1
    assert estimate_job(parsed, this_device()).total_bytes > 0
    assert answer[2]["parameters"] < 100_000

    # One that cannot be built is a sentence; the helper lives on.
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_size": "wide"}))
    asked.ask(2, "trace", job=wanted)
    id, kind, document = asked.result()
    assert (id, kind, document["code"]) == (2, "failed", "model_not_traceable")
    asked.commands.close()
    asked.process.join(120)
    assert asked.process.exitcode == 0
    asked.answers.close()
