"""A hub on loopback: the endpoints that a download uses, over real checkpoint folders."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

REVISION = "0123456789abcdef0123456789abcdef01234567"
LARGE = {".safetensors", ".bin", ".model"}


@dataclass(frozen=True)
class Served:
    """One answered request for a file's content."""

    path: str
    start: int
    authorised: bool
    through_storage: bool


@dataclass
class LoopbackHub:
    """repositories: model id to folder. The faults hold for paths inside a repository."""

    url: str = ""
    repositories: dict[str, Path] = field(default_factory=dict)
    extra_paths: list[str] = field(default_factory=list)
    cut_once: dict[str, int] = field(default_factory=dict)
    """Close the connection after so many bytes, one time."""
    stall: dict[str, int] = field(default_factory=dict)
    """Send so many bytes and then nothing, until the fault is lifted."""
    corrupt: set[str] = field(default_factory=set)
    ignore_ranges: bool = False
    served: list[Served] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    lifted: threading.Event = field(default_factory=threading.Event)

    def describe(self, model: str) -> dict[str, Any]:
        root = self.repositories[model]
        siblings = [self._sibling(root, path) for path in sorted(root.rglob("*")) if path.is_file()]
        siblings += [
            {"rfilename": path, "size": 1, "blobId": "0" * 40} for path in self.extra_paths
        ]
        return {"id": model, "modelId": model, "sha": REVISION, "siblings": siblings, "tags": []}

    def _sibling(self, root: Path, path: Path) -> dict[str, Any]:
        content = path.read_bytes()
        git = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        entry = {
            "rfilename": path.relative_to(root).as_posix(),
            "size": len(content),
            "blobId": git,
        }
        if path.suffix in LARGE:
            sha256 = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
        return entry

    def starts(self, name: str) -> list[int]:
        """Where each transfer of a file began."""
        return [one.start for one in self.served if one.path == name]


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?", path):
            self._answer_listing(match[1])
        elif match := re.fullmatch(rf"/([^/]+/[^/]+)/resolve/{REVISION}/(.+)", path):
            # As the real one does: large files come from another server.
            if Path(match[2]).suffix in LARGE:
                self.send_response(302)
                self.send_header("Location", f"/storage/{match[1]}/{match[2]}")
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self._answer_content(match[1], match[2], through_storage=False)
        elif match := re.fullmatch(r"/storage/([^/]+/[^/]+)/(.+)", path):
            self._answer_content(match[1], match[2], through_storage=True)
        else:
            self.send_error(404)

    def _answer_listing(self, model: str) -> None:
        known = model in self.hub.repositories
        body = json.dumps(self.hub.describe(model) if known else {"error": "not found"}).encode()
        self.send_response(200 if known else 404)
        if not known:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer_content(self, model: str, name: str, *, through_storage: bool) -> None:
        hub = self.hub
        content = (hub.repositories[model] / name).read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and not hub.ignore_ranges else 0
        authorised = "Authorization" in self.headers
        hub.served.append(Served(name, start, authorised, through_storage))
        if name in hub.corrupt:
            content = bytes(255 - byte for byte in content[:64]) + content[64:]
        end = len(content)
        if name in hub.cut_once:
            end = start + hub.cut_once.pop(name)
        if name in hub.stall:
            end = start + hub.stall.pop(name)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # a killed client
            self.wfile.write(content[start:end])
            self.wfile.flush()
        if end < len(content):
            hub.stalled.set()
            hub.lifted.wait(60)
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LoopbackHub]:
    """A running hub that HF_ENDPOINT names, with a cache folder of its own for stepvideo."""
    served = LoopbackHub()
    handler = type("Handler", (_Handler,), {"hub": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("STEPVIDEO_CACHE", str(tmp_path / "cache"))
    yield served
    served.lifted.set()
    server.shutdown()
    server.server_close()
    thread.join()
