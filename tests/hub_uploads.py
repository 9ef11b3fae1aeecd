"""The uploading half of the Hub of the tests: what a push asks, as the real one answers it.

`/api/repos/create`, `/api/validate-yaml`, `/api/models/<id>/preupload/main`, the batch of Git LFS
with the Hub's own `multipart`, the parts (`PUT`, at the other host), and
`/api/models/<id>/commit/main`.
Faults are named after these steps: "whoami", "create", "card", "preupload", "batch", "part",
"finish", "commit".
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.hub_server import HubServer

LARGE_BYTES = 10_000  # from here on a file is kept in the store whatever its name


@dataclass
class Store:
    """The large files that arrived, whole (by SHA-256) and in parts, and the rules of the account.

    `part_bytes`: a larger file is sent in parts of this size. `full`: no more room.
    """

    objects: dict[str, bytes] = field(default_factory=dict)
    parts: dict[tuple[str, int], bytes] = field(default_factory=dict)
    part_bytes: int = 256 * 1024
    role: str = "write"
    orgs: tuple[str, ...] = ("acme",)
    full: bool = False
    signature: str = "secret"  # of the parts' addresses; a change lets them expire
    commits: list[list[dict[str, Any]]] = field(default_factory=list)


class Uploads(BaseHTTPRequestHandler):
    """What the handler of `hub_server` answers to POST and PUT."""

    hub: HubServer
    host: str

    def upload(self, path: str, query: str) -> None:
        """Answers the request, the body of which has not been read yet."""
        parts = path.strip("/").split("/")
        if self.host == "cdn":
            self._part(parts, query)
            return
        step = self._step(parts)
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        fault = self.hub.next_fault(step)
        if fault is not None and fault.cut_at is not None:
            self.close_connection = True
            if step == "commit" and fault.cut_at:  # it is made, and the answer lost
                self._commit("/".join(parts[2:4]), body)
            return
        if fault is not None and fault.wrong:
            self.say_body(b"<html>Welcome to the hotel</html>", "text/html")
            return
        if fault is not None:
            self.say_no(fault.status, fault.code, fault.headers)
            return
        is_signed = f"signature={self.hub.store.signature}" in query
        if not is_signed and self.headers["Authorization"] != f"Bearer {self.hub.token}":
            self.say_no(401, "", {"X-Error-Message": "Invalid credentials"})
            return
        document = json.loads(body) if step != "commit" else None
        match step:
            case "create":
                self._create(document)
            case "card":
                self._card(document)
            case "preupload":
                self._preupload("/".join(parts[2:4]), document)
            case "batch":
                self._batch("/".join(parts[:2]).removesuffix(".git"), document)
            case "finish":
                self._finish(document)
            case "commit":
                made = self._commit("/".join(parts[2:4]), body)
                if made is not None:
                    self.say(made)
            case _:
                self.say_no(404)

    def _step(self, parts: list[str]) -> str:
        if parts[-3:] == ["lfs", "objects", "batch"]:
            return "batch"
        known = {"validate-yaml": "card", "create": "create", "finish": "finish"}
        return known.get(parts[-1]) or (parts[4] if len(parts) == 6 else "")

    # --- each step --------------------------------------------------------------------------

    def _create(self, asked: dict[str, Any]) -> None:
        id = f"{asked.get('organization') or 'tester'}/{asked['name']}"
        if id.partition("/")[0] not in ("tester", *self.hub.store.orgs):
            said = f"You don't have the rights to create a model under {id.partition('/')[0]}"
            self.say_no(403, "", {"X-Error-Message": said})
        elif id in self.hub.models:
            self.say_no(409, "", {"X-Error-Message": "You already created this model repo"})
        else:
            private = asked.get("visibility") == "private" or asked.get("private") is True
            self.hub.add(id, {".gitattributes": b"*.safetensors lfs\n"}, private=private)
            self.say({"url": f"{self.hub.url}/{id}", "name": id, "id": id})

    def _card(self, asked: dict[str, Any]) -> None:
        if "license: nonsense" in asked["content"]:
            said = '"license" must be one of apache-2.0, mit'
            body = json.dumps({"errors": [{"message": said}], "warnings": []}).encode()
            self.say_body(body, "application/json", 400)
        else:
            self.say({"errors": [], "warnings": []})

    def _preupload(self, id: str, asked: dict[str, Any]) -> None:
        model = self.hub.models.get(id)
        if model is None:
            self.say_no(404, "RepoNotFound")
            return
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs"
                if file["path"].endswith((".safetensors", ".gguf")) or file["size"] >= LARGE_BYTES
                else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in asked["files"]
        ]
        self.say({"files": files})

    def _batch(self, id: str, asked: dict[str, Any]) -> None:
        store = self.hub.store
        objects: list[dict[str, Any]] = []
        for wanted in asked["objects"]:
            oid, size = wanted["oid"], wanted["size"]
            told: dict[str, Any] = {"oid": oid, "size": size}
            if store.full:
                said = "Private repository storage limit reached, please upgrade your plan"
                told["error"] = {"code": 403, "message": said}
            elif oid not in store.objects:
                verify = {"href": f"{self.hub.url}/{id}.git/info/lfs/finish"}
                address = f"{self.hub.cdn}/{id}/{oid}"
                upload: dict[str, Any] = {"href": f"{address}/0?signature={store.signature}"}
                if size > store.part_bytes:
                    count = -(-size // store.part_bytes)
                    header = {
                        f"{n + 1:05}": f"{address}/{n + 1}?signature={store.signature}"
                        for n in range(count)
                    }
                    upload = {
                        "href": f"{verify['href']}?signature={store.signature}",
                        "header": {"chunk_size": str(store.part_bytes), **header},
                    }
                told["actions"] = {"upload": upload, "verify": verify}
            objects.append(told)
        self.say({"transfer": "multipart", "objects": objects})

    def _part(self, parts: list[str], query: str) -> None:
        store = self.hub.store
        oid, number = parts[-2], int(parts[-1])
        fault = self.hub.next_fault("part")
        size = int(self.headers["Content-Length"] or -1)
        if fault is not None and fault.cut_at is not None:
            self.rfile.read(min(fault.cut_at, size))
            self.close_connection = True
            self.connection.close()
            return
        content = b""
        while len(content) < size:
            piece = self.rfile.read(min(16_384, size - len(content)))
            if not piece:  # the other side has gone
                self.close_connection = True
                return
            content += piece
            if fault is not None and fault.pause:
                self.hub.wait(fault.pause)
        if query != f"signature={store.signature}":
            self.say_no(403)
        elif fault is not None and fault.status:
            self.say_no(fault.status, fault.code, fault.headers)
        elif number == 0:
            store.objects[hashlib.sha256(content).hexdigest()] = content
            self.say_body(b"", "text/plain")
        else:
            store.parts[oid, number] = content
            tag = hashlib.md5(content, usedforsecurity=False).hexdigest()
            self.say_body(b"", "text/plain", headers={"ETag": f'"{tag}"'})

    def _finish(self, asked: dict[str, Any]) -> None:
        store, oid = self.hub.store, asked["oid"]
        if "parts" in asked:
            pieces = [store.parts[oid, part["partNumber"]] for part in asked["parts"]]
            content = b"".join(pieces)
            if hashlib.sha256(content).hexdigest() != oid or not all(
                part["etag"] for part in asked["parts"]
            ):
                self.say_no(422)
                return
            store.objects[oid] = content
        if oid in store.objects:
            self.say({})
        else:
            self.say_no(404)

    def _commit(self, id: str, body: bytes) -> dict[str, Any] | None:
        model = self.hub.models[id]
        lines = [json.loads(line) for line in body.splitlines()]
        if lines[0]["value"].get("parentCommit", model.commit) != model.commit:
            self.say_no(412, "", {"X-Error-Message": "A commit has happened since"})
            return None
        files = dict(model.files)
        for line in lines[1:]:
            value = line["value"]
            match line["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    if value["oid"] not in self.hub.store.objects:
                        self.say_no(400, "", {"X-Error-Message": "lfs file is missing"})
                        return None
                    files[value["path"]] = self.hub.store.objects[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        self.hub.store.commits.append(lines)
        commit = self.hub.add(id, files, private=model.private, gated=model.gated)
        url = f"{self.hub.url}/{id}/commit/{commit}"
        return {"commitOid": commit, "commitUrl": url, "pullRequestUrl": None, "success": True}

    # --- answers, in the handler ---------------------------------------------------------------

    def say(self, document: Any) -> None:
        self.say_body(json.dumps(document).encode(), "application/json")

    def say_body(
        self, body: bytes, kind: str, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        raise NotImplementedError

    def say_no(self, status: int, code: str = "", headers: dict[str, str] | None = None) -> None:
        raise NotImplementedError
