"""The base model of a run in its worker: downloaded with progress, and stopped on request."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hub_server import HubServer
from tests.model_files import model_files
from training_backend import runs
from training_backend.errors import StopRequested, UserError
from training_backend.hub import hub_cache
from training_backend.job import parse_job
from training_backend.models import base_files
from training_backend.models.base_files import base_folder
from training_backend.protocol import PhaseChanged
from training_backend.worker import Reporter

ID = "acme/tiny"
WEIGHTS = "model.safetensors"


@pytest.fixture
def reporter(lorasmith_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reporter]:
    monkeypatch.setattr(base_files, "DOWNLOAD_SECONDS", 0.05)
    run = runs.create(parse_job({"model": {"id": ID}, "dataset": {"path": "demo"}}))
    made = Reporter(run, queue.Queue())
    yield made
    made.close()


def phases(reporter: Reporter) -> list[PhaseChanged]:
    return [event for event in reporter.run.events() if isinstance(event, PhaseChanged)]


def test_a_download_is_a_part_of_loading_with_its_share_and_time(
    hub: HubServer, reporter: Reporter
) -> None:
    hub.add(ID, model_files())
    hub.fault(WEIGHTS, pause=0.08)
    folder = base_folder(ID, None, reporter)
    assert (folder / WEIGHTS).is_file()
    told = [event for event in phases(reporter) if "downloading" in event.detail]
    assert {event.phase for event in told} == {"loading"}
    shares = [event.fraction for event in told if event.fraction is not None]
    assert len(shares) > 2 and shares == sorted(shares) and 0 < shares[0] < shares[-1] <= 1
    assert any("of 0.7 MB" in event.detail and "left" in event.detail for event in told)

    before = len(reporter.run.events())
    assert base_folder(ID, None, reporter) == folder
    assert len(reporter.run.events()) == before


def test_a_request_to_stop_pauses_the_download(hub: HubServer, reporter: Reporter) -> None:
    hub.add(ID, model_files())
    hub.fault(WEIGHTS, held_at=100_000)
    stopped: list[bool] = []

    def work() -> None:
        try:
            base_folder(ID, None, reporter)
        except StopRequested:
            stopped.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    while not any("downloading" in event.detail for event in phases(reporter)):
        thread.join(0.02)
        assert thread.is_alive()
    reporter.run.request("stop")
    thread.join(60)
    assert stopped == [True]
    repo = hub_cache.repo_folder(hub_cache.folder(), ID)
    assert list(repo.glob("blobs/*.incomplete"))  # the next run goes on with it


@pytest.mark.parametrize(
    ("prepare", "code"),
    [
        (lambda hub: None, "hub_not_found"),
        (lambda hub: hub.add(ID, model_files(), gated=True), "hub_gated"),
        (lambda hub: hub.add(ID, {"model.gguf": b"GGUF"}), "model_is_gguf"),
    ],
)
def test_what_cannot_be_had_is_about_the_model(
    hub: HubServer, reporter: Reporter, prepare: Callable[[HubServer], None], code: str
) -> None:
    prepare(hub)
    with pytest.raises(UserError) as caught:
        base_folder(ID, None, reporter)
    assert (caught.value.code, caught.value.field) == (code, "model.id")
