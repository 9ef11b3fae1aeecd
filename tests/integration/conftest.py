"""Training and export for real, on a model so small that a step takes milliseconds.

What needs torch runs in one other process, which imports it once (ten seconds) for all tests
here; so the process that tests the window stays free of it, and a warning of some library is
not an error where the program would carry on.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from training_backend import runs
from training_backend.job import parse_job
from training_backend.protocol import Event
from training_backend.runs import Run

REPOSITORY = Path(__file__).parents[2]
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")

SERVER = """
import json, os, sys, traceback
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
from training_backend.lifecycle import child_process
child_process.set_environment()
import training_backend.train, training_backend.export.folder
for line in sys.stdin:
    request = json.loads(line)
    try:
        scope = {}
        exec(request["source"], scope)
        answer = {"result": scope[request["name"]](*request["arguments"])}
    except BaseException:
        answer = {"error": traceback.format_exc()}
    print(json.dumps(answer), file=answers, flush=True)
"""


class Backend:
    """A process with torch in it that runs functions, sent to it as source.

    Such a function imports what it uses; arguments and result are JSON.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        source = "from __future__ import annotations\n"
        source += textwrap.dedent(inspect.getsource(function))
        request = {"source": source, "name": function.__name__, "arguments": arguments}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request, default=str) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"error": "the process died"}')
        if "error" in answer:
            pytest.fail(answer["error"])
        return answer["result"]


@dataclass
class Finished:
    """A run after its worker's work is done."""

    run: Run
    events: list[Event]
    exit_code: int

    def of(self, kind: str) -> list[Any]:
        return [event for event in self.events if event.type == kind]

    @property
    def terminal(self) -> Any:
        return self.events[-1]

    @property
    def sentence(self) -> str:
        return f"{self.terminal.message} {self.terminal.remedy}".strip()


def work(folder: str) -> int:
    """What the spawned worker does with its run, less the spawning."""
    import queue
    from pathlib import Path

    from training_backend import worker
    from training_backend.runs import Run

    return worker._work(Run(Path(folder)), queue.Queue())


@pytest.fixture(scope="session")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    home = tmp_path_factory.mktemp("backend-home")
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        cwd=REPOSITORY,
        env={**os.environ, "LORASMITH_HOME": str(home), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    with process:
        yield Backend(process)
        assert process.stdin is not None
        process.stdin.close()


def make_tiny_model(folder: str, options: dict[str, Any], dtype: str, shard: str) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = {
        "vocab_size": 49152, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
    }  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{**settings, **options})).to(getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size=shard)


MakeModel = Callable[..., Path]


@pytest.fixture(scope="session")
def make_model(
    backend: Backend, demo_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> MakeModel:
    """Makes a random Llama with the demo model's tokenizer; options are those of its config."""

    def make(dtype: str = "bfloat16", shard: str = "5GB", **options: Any) -> Path:
        folder = tmp_path_factory.mktemp("model")
        backend(make_tiny_model, folder, options, dtype, shard)
        for name in TOKENIZER_FILES:
            shutil.copyfile(demo_model_dir / name, folder / name)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_model(make_model: MakeModel) -> Path:
    """Two layers, 3.2 million parameters, all but 74 thousand of them the vocabulary's."""
    return make_model()


ROWS = [
    {"messages": [
        {"role": "user", "content": f"What is {n} and {n}?"},
        {"role": "assistant", "content": f"It is {2 * n}."},
    ]}
    for n in range(24)
]  # fmt: skip


WriteRows = Callable[[list[Any]], Path]


@pytest.fixture
def write_rows(tmp_path: Path) -> WriteRows:
    """Writes a JSONL file; the latest call's rows are the ones that it holds."""

    def write(rows: list[Any]) -> Path:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def data_file(write_rows: WriteRows) -> Path:
    """24 short conversations."""
    return write_rows(ROWS)


JobDocument = Callable[..., dict[str, Any]]


@pytest.fixture
def job_document(tiny_model: Path, data_file: Path) -> JobDocument:
    """A small job; keyword arguments are sections that are changed in it."""

    def document(**sections: dict[str, Any]) -> dict[str, Any]:
        job: dict[str, Any] = {
            "name": "test",
            "model": {"id": str(tiny_model)},
            "dataset": {"path": str(data_file)},
            "lora": {"r": 4, "lora_alpha": 8},
            "training": {
                "max_steps": 3,
                "learning_rate": 1e-3,
                "gradient_accumulation_steps": 1,
                "max_length": 128,
            },
        }
        for name, section in sections.items():
            job[name] = {**job.get(name, {}), **section}
        return job

    return document


@pytest.fixture
def command_line(lorasmith_home: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`python -m training_backend` in a process of its own, and a worker below it."""

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "training_backend", *map(str, arguments)],
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            encoding="utf-8",
        )

    return call


Work = Callable[..., Finished]


@pytest.fixture
def do(backend: Backend, lorasmith_home: Path) -> Work:
    """Does a job as the worker does: a run's folder, journal and terminal event."""

    def done(job: dict[str, Any] | Run) -> Finished:
        if isinstance(job, dict) and job.get("kind") == "export":
            job = {"verify": False, **job}  # it takes a while; `test_proof.py` is about it
        run = job if isinstance(job, Run) else runs.create(parse_job(job))
        code = backend(work, run.folder)
        return Finished(run, run.events(), code)

    return done
