"""A hub on this machine that speaks what Hugging Face and ModelScope speak, and fails on demand."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".bin")


@dataclass
class Repository:
    """Files of one model; every revision leads to the one commit."""

    files: dict[str, bytes]
    commit: str = "a" * 40
    revisions: tuple[str, ...] = ("main", "master", "v1.0")
    token: str | None = None
    gated: bool = False

    def has(self, revision: str) -> bool:
        return revision in (*self.revisions, self.commit)


@dataclass
class Hang:
    """A server that stops in the middle of a large file: ``reached`` is set there, and it goes on when ``over`` is."""

    after: int
    reached: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)


@dataclass
class Faults:
    """What goes wrong.

    status: a code for every request whose path has the key in it. cut: bytes of a large file after which the connection
    is closed, once for each entry. hang: where the next large file stops. corrupt: paths whose bytes are other than
    their hash. ignore_range: every answer begins at the first byte. silent: no answer before this is set.
    """

    status: dict[str, int] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    hang: "Hang | None" = None
    corrupt: set[str] = field(default_factory=set)
    ignore_range: bool = False
    silent: threading.Event | None = None


class HubServer(ThreadingHTTPServer):
    """Both protocols under one address; large files come from ``storage``, another address, by a redirect."""

    daemon_threads = True

    def __init__(self, storage: "HubServer | None" = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = storage.repositories if storage else {}
        self.faults = storage.faults if storage else Faults()
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.storage = storage

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the tests."""

    @property
    def url(self) -> str:
        """Storage has another host's name, as a CDN has: clients send no token there, and look for no commit."""
        return f"http://{'127.0.0.1' if self.storage else 'localhost'}:{self.server_port}"

    def asked(self, part: str, method: str = "GET") -> list[dict[str, str]]:
        """Headers of the requests whose path has ``part`` in it."""
        return [headers for verb, path, headers in self.seen if verb == method and part in path]


@contextmanager
def serving(server: HubServer) -> Iterator[HubServer]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.server.seen.append((self.command, self.path, dict(self.headers.items())))
        faults = self.server.faults
        if faults.silent is not None:
            faults.silent.wait(30)
        for part, status in faults.status.items():
            if part in self.path:
                return self._json(status, {"error": "made to fail"})
        url = urlsplit(self.path)
        path, query = unquote(url.path), {key: values[0] for key, values in parse_qs(url.query).items()}
        for pattern, route in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match is not None:
                return route(self, *match.groups(), query)
        return self._json(404, {"error": "no such route"})

    def _repository(self, name: str) -> Repository | None:
        repository = self.server.repositories.get(name)
        if repository is None or (
            repository.token and self.headers.get("Authorization") != f"Bearer {repository.token}"
        ):
            return None
        return repository

    def _json(self, status: int, body: Any, **headers: str) -> None:
        self._send(status, json.dumps(body).encode(), {"Content-Type": "application/json", **headers})

    def _send(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut is None or cut >= len(body):
            self.wfile.write(body)
        else:
            self.wfile.write(body[:cut])
            self.wfile.flush()
            self.close_connection = True

    def _bytes(self, name: str, path: str, headers: dict[str, str]) -> None:
        """A file, from the range that is asked for on, with the faults that are due."""
        faults, body = self.server.faults, self.server.repositories[name].files[path]
        if path in faults.corrupt:
            body = bytes(byte ^ 1 for byte in body)
        status, asked = 200, re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and not faults.ignore_range:
            start = int(asked[1])
            if start >= len(body):
                self._send(416, b"", {"Content-Range": f"bytes */{len(body)}"})
                return
            headers = {**headers, "Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
            status, body = 206, body[start:]
        if faults.hang is not None and path.endswith(LARGE) and self.command == "GET":
            self._hang(status, body, headers)
            return
        cut = faults.cut.pop(0) if faults.cut and path.endswith(LARGE) and self.command == "GET" else None
        self._send(status, body, headers, cut)

    def _hang(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        hang, self.server.faults.hang = self.server.faults.hang, None
        assert hang is not None
        self._send(status, body, headers, cut=hang.after)
        hang.reached.set()
        hang.over.wait(30)
        for start in range(hang.after, len(body), 1 << 16):
            self.wfile.write(body[start : start + (1 << 16)])

    def hf_error(self, name: str, repository: Repository | None) -> None:
        if repository is None:
            return self._json(404 if self.headers.get("Authorization") else 401, {}, **{"X-Error-Code": "RepoNotFound"})
        if repository.gated:
            return self._json(403, {}, **{"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
        return self._json(404, {}, **{"X-Error-Code": "RevisionNotFound"})

    def hf_model(self, name: str, revision: str | None, query: dict[str, str]) -> None:
        repository = self._repository(name)
        if repository is None or repository.gated or not repository.has(revision or "main"):
            return self.hf_error(name, repository)
        siblings = [{"rfilename": path} for path in repository.files]
        return self._json(200, {"id": name, "sha": repository.commit, "siblings": siblings, "private": False})

    def hf_tree(self, name: str, revision: str, query: dict[str, str]) -> None:
        repository = self._repository(name)
        if repository is None or not repository.has(revision):
            return self.hf_error(name, repository)
        return self._json(200, [_tree_entry(path, body) for path, body in repository.files.items()])

    def hf_file(self, name: str, revision: str, path: str, query: dict[str, str]) -> None:
        repository = self._repository(name)
        if repository is None or not repository.has(revision):
            return self.hf_error(name, repository)
        if path not in repository.files:
            return self._json(404, {}, **{"X-Error-Code": "EntryNotFound"})
        body = repository.files[path]
        headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{_git_sha1(body)}"'}
        if path.endswith(LARGE) and self.server.storage is not None:
            linked = {"X-Linked-ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Linked-Size": str(len(body))}
            location = {"Location": f"{self.server.storage.url}/storage/{name}/{path}"}
            return self._send(302, b"", {**headers, **linked, **location})
        return self._bytes(name, path, headers)

    def stored_file(self, name: str, path: str, query: dict[str, str]) -> None:
        return self._bytes(
            name, path, {"ETag": f'"{hashlib.sha256(self.server.repositories[name].files[path]).hexdigest()}"'}
        )

    def ms_files(self, name: str, query: dict[str, str]) -> None:
        repository = self._repository(name)
        if repository is None or not repository.has(query.get("Revision", "master")):
            return self._json(404, {"Code": 10010205001, "Message": "not found", "Success": False})
        folders = [{"Path": "folder", "Name": "folder", "Type": "tree", "Size": 0, "Sha256": ""}]
        files = [_ms_entry(path, body) for path, body in repository.files.items()]
        return self._json(200, {"Code": 200, "Data": {"Files": folders + files}, "Success": True})

    def ms_revisions(self, name: str, query: dict[str, str]) -> None:
        repository = self._repository(name)
        if repository is None:
            return self._json(404, {"Code": 10010205001, "Success": False})
        names = [{"Revision": revision} for revision in repository.revisions]
        return self._json(200, {"Code": 200, "Data": {"RevisionMap": {"Branches": names[:2], "Tags": names[2:]}}})

    def ms_file(self, name: str, query: dict[str, str]) -> None:
        repository, path = self._repository(name), query["FilePath"]
        if repository is None or path not in repository.files:
            return self._json(404, {"Code": 10990101004, "Success": False})
        if path.endswith(LARGE) and self.server.storage is not None:
            return self._send(302, b"", {"Location": f"{self.server.storage.url}/storage/{name}/{path}"})
        return self._bytes(name, path, {})


def _tree_entry(path: str, body: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(body), "oid": _git_sha1(body)}
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 120}
    return entry


def _ms_entry(path: str, body: bytes) -> dict[str, Any]:
    sha256 = hashlib.sha256(body).hexdigest()
    return {
        "Path": path,
        "Name": path.split("/")[-1],
        "Type": "blob",
        "Size": len(body),
        "Sha256": sha256,
        "Revision": "r",
    }


def _git_sha1(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest()


_NAME = r"([\w.-]+/[\w.-]+)"
_ROUTES: list[tuple[str, Any]] = [
    (rf"/api/models/{_NAME}(?:/revision/(.+))?", _Handler.hf_model),
    (rf"/api/models/{_NAME}/tree/([^/]+)", _Handler.hf_tree),
    (rf"/{_NAME}/resolve/([^/]+)/(.+)", _Handler.hf_file),
    (rf"/storage/{_NAME}/(.+)", _Handler.stored_file),
    (rf"/api/v1/models/{_NAME}/repo/files", _Handler.ms_files),
    (rf"/api/v1/models/{_NAME}/revisions", _Handler.ms_revisions),
    (rf"/api/v1/models/{_NAME}/repo", _Handler.ms_file),
]
