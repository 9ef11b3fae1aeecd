"""Datasets on the Hub and folders that the datasets library saved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from training_backend.data import hub
from training_backend.data.reader import open_source
from training_backend.errors import UserError
from training_backend.job import SourceSection

REPOSITORY = Path(__file__).parents[2]
NAME = "someone/data"

CARD = """---
configs:
- config_name: alpha
  data_files:
  - split: train
    path: alpha/train*
  - split: test
    path: alpha/test*
- config_name: beta
  data_files:
  - split: validation
    path: beta/*
---
"""


@pytest.fixture
def repository(tmp_path: Path) -> str:
    """A folder laid out as a dataset on the Hub is, with two subsets."""
    for name, n_rows in (("alpha/train", 300), ("alpha/test", 20), ("beta/validation", 5)):
        path = tmp_path / f"{name}-00000.parquet"
        path.parent.mkdir(exist_ok=True)
        rows = [{"text": f"{name} {n}", "picture": b"\x89PNG"} for n in range(n_rows)]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    (tmp_path / "README.md").write_text(CARD)
    return str(tmp_path)


def test_a_dataset_is_streamed_with_its_subsets_and_splits_told(repository: str) -> None:
    table = hub.stream(repository, NAME, None, "train")
    assert (table.details.subset, table.details.subsets) == ("alpha", ("alpha", "beta"))
    assert (table.details.split, table.details.splits) == ("train", ("train", "test"))
    assert "only alpha is read" in str(table.notices[0])
    assert list(table.rows(limit=1)) == [{"text": "alpha/train 0", "picture": None}]
    assert list(table.rows(299)) == [{"text": "alpha/train 299", "picture": None}]
    assert table.count() == 300 and table.columns == ("text", "picture")


def test_a_subset_and_a_split_can_be_chosen(repository: str) -> None:
    assert hub.stream(repository, NAME, "alpha", "test").count() == 20
    without_train = hub.stream(repository, NAME, "beta", "train")
    assert without_train.details.split == "validation"
    assert "no split train" in str(without_train.notices[0])


@pytest.mark.parametrize(
    ("subset", "split", "field", "choices"),
    [
        ("gamma", "train", "dataset.subset", "alpha, beta"),
        ("alpha", "dev", "dataset.split", "train, test"),
    ],
)
def test_a_choice_that_is_not_there_is_refused_with_those_that_are(
    repository: str, subset: str, split: str, field: str, choices: str
) -> None:
    with pytest.raises(UserError) as caught:
        hub.stream(repository, NAME, subset, split)
    assert caught.value.field == field and choices in caught.value.remedy


@pytest.mark.parametrize(
    ("path", "id"),
    [
        ("someone/data", "someone/data"),
        ("https://huggingface.co/datasets/someone/data", "someone/data"),
        ("hf://datasets/someone/data", "someone/data"),
        ("someone", None),
        ("a/b/c", None),
        ("../data", None),
        ("https://example.org/someone/data", None),
    ],
)
def test_an_id_is_told_from_a_path(path: str, id: str | None) -> None:
    assert hub.hub_id(path) == id


def refused(**environment: str) -> tuple[str, str]:
    """Code and text of the refusal in a process with these variables, which are read at import."""
    program = (
        "import json; from training_backend.data.reader import *\n"
        f"try: open_source(SourceSection(path={NAME!r}))\n"
        "except UserError as error: print(json.dumps([error.code, str(error)]))"
    )
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    answer = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    code, message = json.loads(answer.stdout)
    assert NAME in message and "\n" not in message
    return code, message


def test_working_offline_is_said_to_be_the_reason() -> None:
    code, message = refused(HF_HUB_OFFLINE="1")
    assert code == "hub_offline" and "file or folder on this computer" in message


def test_a_hub_that_cannot_be_reached_is_said_so_at_once() -> None:
    assert refused(HF_ENDPOINT="http://127.0.0.1:9")[0] == "hub_unreachable"


@pytest.fixture
def hub_answer(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that gives one answer to every request, as the Hub does: status and error code."""
    status, code = request.param

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("hub_answer", "code", "remedy"),
    [
        ((403, "GatedRepo"), "hub_gated", f"Agree to them on huggingface.co/datasets/{NAME}"),
        ((404, "RepoNotFound"), "hub_not_found", "Check the name"),
        ((401, "RepoNotFound"), "hub_not_found", "enter a token"),
    ],
    indirect=["hub_answer"],
)
def test_what_the_hub_refuses_is_explained(hub_answer: str, code: str, remedy: str) -> None:
    found, message = refused(HF_ENDPOINT=hub_answer)
    assert found == code and remedy in message


# --------------------------------------------------------------------- saved by the library


def test_a_saved_dataset_is_read_with_its_splits(tmp_path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    whole = datasets.Dataset.from_dict({"text": [str(n) for n in range(1000)]})
    whole.save_to_disk(tmp_path / "whole")
    datasets.DatasetDict(train=whole, test=whole.select(range(3))).save_to_disk(tmp_path / "split")

    table = open_source(SourceSection(path=str(tmp_path / "whole")))
    assert table.details.kind == "saved_dataset" and table.count() == 1000
    assert [row["text"] for row in table.rows()] == [str(n) for n in range(1000)]
    assert list(table.rows(998)) == [{"text": "998"}, {"text": "999"}]

    test = open_source(SourceSection(path=str(tmp_path / "split"), split="test"))
    assert test.count() == 3 and test.details.splits == ("train", "test")
    with pytest.raises(UserError, match="Choose one of: train, test"):
        open_source(SourceSection(path=str(tmp_path / "split"), split="dev"))


def test_a_damaged_saved_dataset_is_refused(tmp_path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "saved")
    (part,) = (tmp_path / "saved").glob("*.arrow")
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(UserError, match="saved is a saved dataset that is damaged"):
        open_source(SourceSection(path=str(tmp_path / "saved")))
