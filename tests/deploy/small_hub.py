"""A Hugging Face Hub of this machine: the few calls that a client makes to upload a model and to
fetch it, kept in memory."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlparse


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


class _Calls(BaseHTTPRequestHandler):
    repositories: dict[str, dict[str, bytes]]
    calls: list[str]

    def do_POST(self) -> None:
        path, body = unquote(urlparse(self.path).path), self._body()
        self.calls.append(f"POST {path}")
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = "/".join(filter(None, (wanted.get("organization"), wanted["name"])))
            self.repositories.setdefault(name, {})
            self._answer({"url": f"http://{self.headers['Host']}/{name}"})
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            self._answer(
                {
                    "files": [
                        {**one, "uploadMode": "regular", "shouldIgnore": False} for one in files
                    ]
                }
            )
        elif "/commit/" in path:
            repository = path.removeprefix("/api/models/").split("/commit/")[0]
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    self.repositories[repository][entry["value"]["path"]] = content
            commit = self._commit(repository)
            address = f"http://{self.headers['Host']}/{repository}/commit/{commit}"
            self._answer({"commitUrl": address, "commitOid": commit, "success": True})
        else:
            self._refuse(path)

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        self.calls.append(f"{self.command} {path}")
        if "/resolve/" in path:
            repository, _, rest = path[1:].partition("/resolve/")
            name = rest.split("/", 1)[1]
            if name in self.repositories.get(repository, {}):
                content = self.repositories[repository][name]
                self.send_response(200)
                self.send_header("ETag", f'"{_digest(content)}"')
                self.send_header("X-Repo-Commit", self._commit(repository))
                self._send(content)
                return
        elif path.startswith("/api/models/"):
            asked = re.match(r"/api/models/(.+?)(?:/(revision|tree)/.*)?$", path)
            repository, what = asked.groups() if asked else ("", None)
            files = self.repositories.get(repository)
            if files is not None and what == "tree":
                self._answer(
                    [
                        {
                            "type": "file",
                            "path": name,
                            "size": len(content),
                            "oid": _digest(content),
                        }
                        for name, content in sorted(files.items())
                    ]
                )
                return
            if files is not None:
                siblings = [{"rfilename": name} for name in sorted(files)]
                commit = self._commit(repository)
                self._answer({"id": repository, "sha": commit, "siblings": siblings})
                return
        self._refuse(path)

    do_HEAD = do_GET  # noqa: N815 - as http.server calls it

    def _commit(self, repository: str) -> str:
        files = sorted(self.repositories[repository].items())
        return _digest(repr(files).encode())

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, content: Any) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self._send(json.dumps(content).encode())

    def _refuse(self, path: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("X-Error-Message", f"nothing at {path}")
        self._send(b"")

    def _send(self, content: bytes) -> None:
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: pytest's output is read by people."""


@contextmanager
def small_hub() -> Iterator[tuple[str, dict[str, dict[str, bytes]], list[str]]]:
    """Its address, what it holds (repository -> file -> content), and the calls it has had."""
    repositories: dict[str, dict[str, bytes]] = {}
    calls: list[str] = []
    handler = type("Calls", (_Calls,), {"repositories": repositories, "calls": calls})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", repositories, calls
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
