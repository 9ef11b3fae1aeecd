"""Downloads over a real socket: whole, broken off, resumed, wrong and refused."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.error import HTTPError

import pytest

from training_backend.errors import UserError
from training_backend.hub.fetch import fetch

CONTENT = bytes(range(256)) * 8_000  # 2 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """Serves CONTENT; `break_after` cuts each answer short, `ranges` is what was asked for."""

    url: str = ""
    break_after: list[int] = field(default_factory=list)
    understands_range: bool = True
    status: int | None = None
    ranges: list[str | None] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    server_state: ClassVar[Server]

    def do_GET(self) -> None:
        state, asked = self.server_state, self.headers["Range"]
        state.ranges.append(asked)
        if state.status:
            self.send_error(state.status)
            return
        ranged = asked is not None and state.understands_range
        body = CONTENT[int(asked[6:-1]) :] if ranged else CONTENT
        self.send_response(206 if ranged else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: state.break_after.pop(0)] if state.break_after else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()
    handler = type("Handler", (_Handler,), {"server_state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        state.url = f"http://127.0.0.1:{http.server_port}/model.whl"
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        yield state
        http.shutdown()
        thread.join()


def get(url: str, target: Path, seen: list[int] | None = None, tries: int = 4) -> None:
    on_bytes = None if seen is None else seen.append
    fetch(url, target, size=len(CONTENT), sha256=SHA256, on_bytes=on_bytes, tries=tries)


def test_progress_is_in_real_bytes(server: Server, tmp_path: Path) -> None:
    seen: list[int] = []
    get(server.url, tmp_path / "m", seen)
    assert (tmp_path / "m").read_bytes() == CONTENT
    assert seen[0] == 0
    assert seen[-1] == len(CONTENT)
    assert seen == sorted(seen)
    assert len(seen) > 5


def test_a_broken_line_is_resumed_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.break_after = [700_000, 500_000]
    get(server.url, tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=700000-", "bytes=1200000-"]


def test_a_later_call_resumes_what_an_earlier_one_left(server: Server, tmp_path: Path) -> None:
    server.break_after = [700_000]
    with pytest.raises(UserError, match="connection ended after 700000") as caught:
        get(server.url, tmp_path / "m", tries=1)
    assert caught.value.code == "no_connection"
    seen: list[int] = []
    get(server.url, tmp_path / "m", seen)
    assert seen[0] == 700_000
    assert (tmp_path / "m").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.understands_range = False
    (tmp_path / "m").write_bytes(CONTENT[:1000])
    get(server.url, tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == CONTENT


def test_a_whole_file_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(CONTENT)
    get(server.url, tmp_path / "m")
    assert server.ranges == []


def test_a_wrong_file_is_removed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"x" * 1000)  # then resumed with the right rest
    with pytest.raises(UserError) as caught:
        get(server.url, tmp_path / "m")
    assert caught.value.code == "checksum_mismatch"
    assert not (tmp_path / "m").exists()


def test_a_refusal_is_passed_on_at_once(server: Server, tmp_path: Path) -> None:
    server.status = 403
    with pytest.raises(HTTPError) as caught:
        get(server.url, tmp_path / "m")
    caught.value.close()
    assert len(server.ranges) == 1


def test_no_server_is_said_with_a_remedy(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/m"  # nobody else gets it meanwhile
        with pytest.raises(UserError, match=r"cannot be reached: .*refused") as caught:
            get(url, tmp_path / "m", tries=1)
    assert "network" in caught.value.remedy


def test_a_file_address_works_too(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(CONTENT)
    get((tmp_path / "source").as_uri(), tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == CONTENT
