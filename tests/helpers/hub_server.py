"""A model repository behind the HTTP interface of the Hugging Face Hub: it stores what a client uploads.

It speaks what huggingface_hub needs to create a repository and to commit files, of which those for large files go
through Git LFS. Content is checked as the Hub does: sizes and SHA-256 of large files, and the token of every request.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from .local_server import answer_json, run_server

LARGE_FILES = (".safetensors", ".onnx", ".npz", ".bin")  # of those that the Hub's .gitattributes names
OID = "0" * 40


@dataclass
class HubRepository:
    """What was uploaded.

    Attributes:
        token: The token that every request must have.
        name: `owner/name`; empty before it is created.
        is_private: Whether it was created as private.
        files: Content by path.
        large_files: Paths of the files that went through Git LFS.
        rejected: Name of a route that answers 403.
    """

    token: str
    name: str = ""
    is_private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    large_files: set[str] = field(default_factory=set)
    rejected: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)


class HubHandler(BaseHTTPRequestHandler):
    """Answers the requests of a client that uploads."""

    repository: HubRepository

    def do_PUT(self) -> None:
        content = self._read()
        oid = self.path.removeprefix("/storage/")
        if hashlib.sha256(content).hexdigest() != oid:
            return answer_json(self, 400, {"error": "the content is not that of the SHA-256"})
        self.repository.objects[oid] = content
        return answer_json(self, 200, {})

    def do_POST(self) -> None:
        body = self._read()
        repository = self.repository
        if self.headers.get("Authorization") != f"Bearer {repository.token}":
            return answer_json(self, 401, {"error": "Invalid username or password."})
        routes = {
            "/api/repos/create": self._create,
            "/api/validate-yaml": lambda _: {"errors": [], "warnings": []},
            f"/api/models/{repository.name}/preupload/main": self._choose_modes,
            f"/{repository.name}.git/info/lfs/objects/batch": self._choose_addresses,
            f"/api/models/{repository.name}/commit/main": self._commit,
        }
        route = self.path.partition("?")[0]
        if route not in routes:
            return answer_json(self, 404, {"error": f"no route {route}"})
        if repository.rejected and repository.rejected in route:
            return answer_json(self, 403, {"error": "You don't have the required permissions."})
        return answer_json(self, 200, routes[route](body))

    def log_message(self, *_: Any) -> None:
        """Nothing is logged."""

    def _create(self, body: bytes) -> dict[str, Any]:
        content = json.loads(body)
        self.repository.name = f"{content['organization']}/{content['name']}"
        self.repository.is_private = content.get("visibility") == "private"
        return {"url": f"{self._address()}/{self.repository.name}"}

    def _choose_modes(self, body: bytes) -> dict[str, Any]:
        paths = [file["path"] for file in json.loads(body)["files"]]
        modes = {path: "lfs" if path.endswith(LARGE_FILES) else "regular" for path in paths}
        return {"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]}

    def _choose_addresses(self, body: bytes) -> dict[str, Any]:
        objects = json.loads(body)["objects"]
        upload = {entry["oid"]: {"upload": {"href": f"{self._address()}/storage/{entry['oid']}"}} for entry in objects}
        return {"transfer": "basic", "objects": [entry | {"actions": upload[entry["oid"]]} for entry in objects]}

    def _commit(self, body: bytes) -> dict[str, Any]:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.repository.files[value["path"]] = base64.b64decode(value["content"], validate=True)
            elif line["key"] == "lfsFile":
                content = self.repository.objects[value["oid"]]
                assert len(content) == value["size"]
                self.repository.files[value["path"]] = content
                self.repository.large_files.add(value["path"])
        address = f"{self._address()}/{self.repository.name}/commit/{OID}"
        return {"commitUrl": address, "commitOid": OID}

    def _address(self) -> str:
        return f"http://{self.headers['Host']}"

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))


@contextmanager
def run_hub(token: str) -> Iterator[tuple[str, HubRepository]]:
    """Starts the server; yields its address and the repository."""
    repository = HubRepository(token)
    handler = type("Handler", (HubHandler,), {"repository": repository, "protocol_version": "HTTP/1.1"})
    with run_server(handler) as address:
        yield address, repository
