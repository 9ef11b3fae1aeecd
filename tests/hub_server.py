"""A Hugging Face Hub on this computer's own loopback address, with its faults, for tests.

It answers as the real one does: `/api/models` (search), `/api/models/<id>[/revision/<rev>]`
(files with sizes and checksums), `/api/whoami-v2`, and `/<id>/resolve/<rev>/<file>`, which sends
small files itself and redirects large ones to another host (here: another port). What is uploaded
goes through `hub_uploads`.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_uploads import Store, Uploads

LARGE = (".safetensors", ".bin", ".gguf")


@dataclass
class Fault:
    """What goes wrong with the next `times` requests for a file (or "api" for the API).

    `status` with `code` (X-Error-Code) is answered instead; `cut_at`: the line breaks after so
    many bytes of the answer; `wrong`: other bytes, of the API a web page; `pause`: seconds
    between pieces; `held_at`: after so many bytes it only drips, until `HubServer.let_go`;
    `no_range`: everything is sent again.
    """

    times: int = 1
    status: int = 0
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    cut_at: int | None = None
    wrong: bool = False
    pause: float = 0.0
    held_at: int | None = None
    no_range: bool = False


@dataclass(frozen=True)
class Asked:
    """A request that came: `host` is "hub" or "cdn"."""

    host: str
    method: str
    path: str
    authorization: str | None
    range: str | None


@dataclass
class _Model:
    files: dict[str, bytes]
    fields: dict[str, Any]
    commit: str
    private: bool = False
    gated: bool = False


class HubServer:
    """The two hosts, what they hold, what they were asked, and what goes wrong with them."""

    def __init__(self) -> None:
        self.models: dict[str, _Model] = {}
        self.faults: dict[str, Fault] = {}
        self.asked: list[Asked] = []
        self.token = "hf_goodToken"
        self.store = Store()
        self._closing = threading.Event()
        self._let_go = threading.Event()
        self._servers = [self._serve("hub"), self._serve("cdn")]
        self.url, self.cdn = (f"http://127.0.0.1:{s.server_port}" for s in self._servers)

    def add(
        self, id: str, files: Path | dict[str, bytes], *, gated: bool = False,
        private: bool = False, **fields: Any,
    ) -> str:  # fmt: skip
        """Publish a folder, or files by name; returns the commit. `fields` go into the API's
        answer, such as `tags` or `library_name`."""
        if isinstance(files, Path):
            files = {path.name: path.read_bytes() for path in sorted(files.iterdir())}
        commit = hashlib.sha1(b"".join(n.encode() + files[n] for n in sorted(files))).hexdigest()
        self.models[id] = _Model(files, fields, commit, private, gated)
        return commit

    def fault(self, where: str, **what: Any) -> None:
        """Let something go wrong with a file by name, or with "api"."""
        self.faults[where] = Fault(**what)

    def downloads(self, name: str) -> list[Asked]:
        """The requests for a file's bytes that were not redirected."""
        host = "cdn" if name.endswith(LARGE) else "hub"
        return [a for a in self.asked if a.host == host and a.path.endswith(f"/{name}")]

    def wait(self, seconds: float) -> None:
        """As `time.sleep`, cut short when the test is over."""
        self._closing.wait(seconds)

    def let_go(self) -> None:
        """Send the rest of what a fault holds back."""
        self._let_go.set()

    def drip(self) -> bool:
        """Whether to hold back, asked before each byte that is sent meanwhile."""
        return not self._let_go.wait(0.05)

    def close(self) -> None:
        self._closing.set()
        self._let_go.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _serve(self, host: str) -> ThreadingHTTPServer:
        handler = type("Handler", (_Handler,), {"hub": self, "host": host})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def next_fault(self, where: str) -> Fault | None:
        fault = self.faults.get(where)
        if fault is None or fault.times < 1:
            return None
        fault.times -= 1
        return fault


class _Handler(Uploads):
    hub: HubServer
    host: str
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every answer waits 40 ms for an acknowledgement

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._upload()

    do_PUT = do_POST

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _upload(self) -> None:
        try:
            self.upload(self._note(), urlsplit(self.path).query)
        except OSError:  # the other side has had enough
            self.close_connection = True

    def _note(self) -> str:
        path = unquote(urlsplit(self.path).path)
        headers = self.headers
        self.hub.asked.append(
            Asked(self.host, self.command, path, headers["Authorization"], headers["Range"])
        )
        return path

    def _answer(self) -> None:
        path = self._note()
        parts = path.strip("/").split("/")
        if self.host == "cdn":
            name = parts[-1]
            self._send_file(self.hub.models["/".join(parts[:2])].files[name], name)
        elif parts[0] == "api":
            fault = self.hub.next_fault("api")
            if fault is not None and fault.wrong:
                self._body(b"<html>Welcome to the hotel</html>", "text/html")
            elif fault is not None:
                self._refuse(fault.status, fault.code, fault.headers)
            elif parts[1] == "whoami-v2":
                self._whoami()
            elif len(parts) == 2:
                self._json(self._found(parse_qs(urlsplit(self.path).query)))
            else:
                self._info("/".join(parts[2:4]), "/".join(parts[5:]) or "main")
        elif len(parts) >= 5 and parts[2] == "resolve":
            self._resolve("/".join(parts[:2]), parts[3], parts[4])
        else:
            self._refuse(404)

    # --- the API ----------------------------------------------------------------------------

    def _whoami(self) -> None:
        fault = self.hub.next_fault("whoami")
        if fault is not None:
            self._refuse(fault.status, fault.code, fault.headers)
        elif self.headers["Authorization"] != f"Bearer {self.hub.token}":
            self._bad_token()
        else:
            self._json({
                "name": "tester",
                "orgs": [{"name": name} for name in self.hub.store.orgs],
                "auth": {"accessToken": {"role": self.hub.store.role}},
            })  # fmt: skip

    def _found(self, asked: dict[str, list[str]]) -> list[dict[str, Any]]:
        words = asked.get("search", [""])[0].lower()
        wanted = set(asked.get("filter", []))
        task = asked.get("pipeline_tag", [""])[0]
        gated = asked.get("gated", [""])[0].lower()
        most = asked.get("num_parameters", ["max:"])[0].removeprefix("max:")
        found = []
        for id, model in self.hub.models.items():
            document = self._document(id, model)
            size = (document.get("safetensors") or {}).get("total", 0)
            if (
                words in id.lower()
                and wanted <= set(document["tags"])
                and (not task or task == document["pipeline_tag"])
                and (not gated or gated == str(model.gated).lower())
                and (not most or size <= int(most))
            ):
                del document["siblings"]
                found.append(document)
        return found[: int(asked.get("limit", ["1000"])[0])]

    def _info(self, id: str, revision: str) -> None:
        model = self._allowed(id)
        if model is None:
            return
        if revision not in ("main", model.commit):
            self._refuse(404, "RevisionNotFound")
            return
        self._json(self._document(id, model))

    def _document(self, id: str, model: _Model) -> dict[str, Any]:
        config = json.loads(model.files.get("config.json", b"{}"))
        shown = ("architectures", "model_type", "quantization_config", "auto_map", "vision_config")
        siblings = []
        for name, content in model.files.items():
            entry: dict[str, Any] = {
                "rfilename": name,
                "size": len(content),
                "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
            }
            if (
                name.endswith(LARGE)
                or hashlib.sha256(content).hexdigest() in self.hub.store.objects
            ):
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
            siblings.append(entry)
        return {
            "id": id,
            "sha": model.commit,
            "gated": "manual" if model.gated else False,
            "private": model.private,
            "tags": ["license:apache-2.0"]
            + ["safetensors"] * any(name.endswith(".safetensors") for name in model.files),
            "pipeline_tag": "text-generation",
            "library_name": "transformers",
            "config": {key: config[key] for key in shown if key in config} or None,
            "siblings": siblings,
            **model.fields,
        }

    def _allowed(self, id: str, *, file: bool = False) -> _Model | None:
        """The model, or None once the request is refused. A gated one is described to all."""
        told = self.headers["Authorization"]
        if told is not None and told != f"Bearer {self.hub.token}":
            self._bad_token()
            return None
        model = self.hub.models.get(id)
        if model is None or (model.private and told is None):
            self._refuse(404 if told else 401, "RepoNotFound")
            return None
        if file and model.gated and told is None:
            self._refuse(401, "GatedRepo")
            return None
        return model

    # --- files ------------------------------------------------------------------------------

    def _resolve(self, id: str, revision: str, name: str) -> None:
        model = self._allowed(id, file=True)
        if model is None:
            return
        if revision not in ("main", model.commit):
            self._refuse(404, "RevisionNotFound")
        elif name not in model.files:
            self._refuse(404, "EntryNotFound", {"X-Repo-Commit": model.commit})
        elif name.endswith(LARGE):
            content = model.files[name]
            self.send_response(302)
            self.send_header("Location", f"{self.hub.cdn}/{id}/{name}?signature=secret")
            self.send_header("X-Repo-Commit", model.commit)
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._send_file(model.files[name], name, {"X-Repo-Commit": model.commit})

    def _send_file(self, content: bytes, name: str, headers: dict[str, str] | None = None) -> None:
        fault = self.hub.next_fault(name) or Fault()
        if fault.status:
            self._refuse(fault.status, fault.code, fault.headers)
            return
        asked = self.headers["Range"]
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and not fault.no_range else 0
        if start and start >= len(content):
            self._refuse(416)
            return
        body = content[start:]
        if fault.wrong:
            body = bytes(255 - byte for byte in body)
        self.send_response(206 if start else 200)
        if start:
            place = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", place)
        self.send_header("Content-Length", str(len(body)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault.cut_at is not None:
            self.close_connection = True
            body = body[: fault.cut_at]
        sent = 0
        try:
            while body:
                held = fault.held_at is not None and sent >= fault.held_at and self.hub.drip()
                piece = body[: 1 if held else 32_768]
                self.wfile.write(piece)
                sent, body = sent + len(piece), body[len(piece) :]
                time.sleep(fault.pause)
        except OSError:  # the other side has had enough
            self.close_connection = True

    # --- answers ----------------------------------------------------------------------------

    def _json(self, document: Any) -> None:
        self._body(json.dumps(document).encode(), "application/json")

    def _body(
        self, body: bytes, kind: str, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _bad_token(self) -> None:
        text = "Invalid credentials in Authorization header"
        self._refuse(401, "", {"X-Error-Message": text})

    def _refuse(self, status: int, code: str = "", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    say_body, say_no = _body, _refuse


@contextmanager
def hub_server() -> Iterator[HubServer]:
    server = HubServer()
    try:
        yield server
    finally:
        server.close()
