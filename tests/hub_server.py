"""A hub of our own: a real HTTP server on the loopback address that serves local folders as huggingface_hub asks for them.

    with serve({"org/name": folder}) as hub:
        ...  # HF_ENDPOINT=hub.endpoint; hub.requests is what was asked

What it keeps of the real one: `/<repository>/resolve/<revision>/<file>` with `X-Repo-Commit`, `ETag` and `Content-Length`; weights
lie at another host, where a redirect with `X-Linked-Size` and `X-Linked-Etag` leads; `Range`; the error codes; tokens; branches,
tags and commits; the two listings below `/api/models` that sentence-transformers and transformers ask for.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGE_FILES = (".safetensors", ".bin", ".npy")
"""What the real hub keeps in its large-file storage, behind a redirect."""


@dataclass
class Repository:
    """A model on the hub.

    Attributes:
        revisions: the folder that each branch or tag stands at; "main" must be one of them.
        token: what a reader must send; None for a public repository.
        gated: whether even a reader with a token must first accept terms, which nobody here has.
    """

    revisions: dict[str, Path]
    token: str | None = None
    gated: bool = False

    def folder(self, revision: str) -> Path | None:
        """The folder of a branch, a tag or a commit."""
        return self.revisions.get(revision) or next(
            (folder for folder in self.revisions.values() if commit_of(folder) == revision), None
        )


@dataclass(frozen=True)
class Request:
    """One request as it came in; `file` is the path inside the repository, "" for the listings and the storage."""

    method: str
    path: str
    file: str
    revision: str
    token: str | None
    range: str | None


@dataclass
class Hub:
    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    broken: dict[str, list[int]] = field(default_factory=dict)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    pauses: dict[str, float] = field(default_factory=dict)
    stored: dict[str, Path] = field(default_factory=dict)
    expired: set[str] = field(default_factory=set)

    def files(self, method: str = "HEAD") -> list[str]:
        """The files that were asked for, each once, in the order of their first request."""
        return list(dict.fromkeys(request.file for request in self.requests if request.file and request.method == method))

    def fail(self, file: str, status: int = 500, times: int = 1) -> None:
        """The next answers for a file are an error."""
        self.broken[file] = [status] * times

    def cut(self, file: str, after: int, times: int = 1) -> None:
        """The next times that the content of a file is sent, the connection breaks after this many bytes."""
        self.cuts[file] = [after] * times

    def pause(self, file: str, seconds: float) -> None:
        """The content of a file stops half way for so long."""
        self.pauses[file] = seconds


def commit_of(folder: Path) -> str:
    """A folder's commit: 40 hexadecimal digits that follow from what is in it."""
    digest = hashlib.sha1(usedforsecurity=False)
    for path in files_of(folder):
        digest.update(f"{path.relative_to(folder)} {path.stat().st_size} {path.stat().st_mtime_ns}\n".encode())
    return digest.hexdigest()


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = urlsplit(self.path).path
        asked = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        listed = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(?:/(.+))?)?", path)
        file = unquote(asked[3]) if asked else ""
        revision = unquote((asked[2] if asked else listed[3] if listed else "") or "main")
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ") or None
        self.hub.requests.append(Request(self.command, path, file, revision, token, self.headers["Range"]))

        if token in self.hub.expired:
            self.refuse(401, "", "Invalid credentials in Authorization header")
        elif path.startswith("/storage/"):
            self.content(self.hub.stored[path.removeprefix("/storage/")])
        elif asked or listed:
            repository = self.hub.repositories.get(asked[1] if asked else listed[1])
            if repository is None or repository.token not in (None, token):
                self.refuse(401, "RepoNotFound", "Invalid username or password.")
            elif repository.gated:
                self.refuse(403, "GatedRepo", "Access to this model is restricted.")
            elif (folder := repository.folder(revision)) is None:
                self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            elif asked:
                self.resolve(folder, file)
            else:
                self.listing(listed[1], folder, listed[2], unquote(listed[4] or ""))
        else:
            self.refuse(404, "", "Not Found")

    def resolve(self, folder: Path, file: str) -> None:
        if self.hub.broken.get(file):
            self.refuse(self.hub.broken[file].pop(), "", "Out of order")
            return
        commit = {"X-Repo-Commit": commit_of(folder)}
        path = folder / file
        if not path.is_file():
            self.refuse(404, "EntryNotFound", "Entry not found", commit)
            return
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        if path.suffix in LARGE_FILES:
            self.hub.stored[content] = path
            place = self.hub.endpoint.replace("127.0.0.1", "localhost") + f"/storage/{content}"
            linked = {"X-Linked-Size": str(path.stat().st_size), "X-Linked-Etag": f'"{content}"', "Location": place}
            self.head(302, 0, commit | linked)
        else:
            self.content(path, commit | {"ETag": f'"{content[:40]}"'})

    def content(self, path: Path, headers: Mapping[str, str] | None = None) -> None:
        data = path.read_bytes()
        start = 0
        if self.headers["Range"]:
            start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1])
            headers = dict(headers or {}) | {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        self.head(206 if start else 200, len(data) - start, headers or {})
        if self.command == "HEAD":
            return
        stop = len(data)
        if self.hub.cuts.get(path.name):
            stop = self.hub.cuts[path.name].pop()
        if seconds := self.hub.pauses.get(path.name):
            half = (start + stop) // 2
            self.wfile.write(data[start:half])
            self.wfile.flush()
            start = half
            time.sleep(seconds)
        self.wfile.write(data[start:stop])
        self.close_connection = stop < len(data)

    def listing(self, name: str, folder: Path, kind: str | None, under: str) -> None:
        files = [str(path.relative_to(folder)) for path in files_of(folder)]
        if kind == "tree":
            entries = [
                {"type": "file", "path": file, "size": (folder / file).stat().st_size, "oid": "0" * 40}
                for file in files
                if file.startswith(f"{under}/" if under else "")
            ]
            if not entries:
                self.refuse(404, "EntryNotFound", f"{under} does not exist", {"X-Repo-Commit": commit_of(folder)})
                return
            body: object = entries
        else:
            body = {"id": name, "sha": commit_of(folder), "tags": [], "siblings": [{"rfilename": file} for file in files]}
        data = json.dumps(body).encode()
        self.head(200, len(data), {"Content-Type": "application/json"})
        if self.command == "GET":
            self.wfile.write(data)

    def refuse(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        self.head(status, 0, {"X-Error-Code": code, "X-Error-Message": message} | dict(headers or {}))

    def head(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client may keep its connection open for longer than the test lasts

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
        self.connections: list[socket.socket] = []

    def process_request(self, request: socket.socket, client_address: object) -> None:
        self.connections.append(request)
        super().process_request(request, client_address)

    def end_connections(self) -> None:
        """Ends what clients keep open for their next request, which would still be answered."""
        for connection in self.connections:
            with suppress(OSError):  # most have ended
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: object) -> None:
        """A client that was killed half way is part of some tests, and no reason to print a traceback."""


@contextmanager
def serve(repositories: Mapping[str, Path | Repository]) -> Iterator[Hub]:
    """A hub with these repositories, until the end of the block; after it, connections are refused.

    Args:
        repositories: organisation/name → the folder of its main branch, or a `Repository`.
    """
    hub = Hub()
    for name, value in repositories.items():
        hub.repositories[name] = value if isinstance(value, Repository) else Repository({"main": value})
    server = Server(hub)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        server.end_connections()
        thread.join()
