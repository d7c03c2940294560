"""A real HTTP server for the tests of downloading, with the misfortunes of real ones."""

import socket
import struct
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """A file, and how it is served."""

    content: bytes
    etag: str | None = '"one"'
    modified: str | None = "Wed, 01 Jan 2020 00:00:00 GMT"
    parts: bool = True  # answers Range
    compares: bool = True  # looks at If-Range
    head: bool = True
    length: bool = True  # says how long it is
    location: str | None = None  # leads elsewhere
    cuts: deque = field(default_factory=deque)  # each GET: cut after so many bytes of the answer
    answers: deque = field(default_factory=deque)  # (status, headers) before the file is served
    hold: threading.Event | None = None  # the rest of a cut comes when it is set
    held: threading.Event = field(default_factory=threading.Event)


class FileServer:
    """Serves `files` (path -> Served) on 127.0.0.1; `asked` is (method, path, Range or None)."""

    def __init__(self, tls=None):
        self.files: dict[str, Served] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                outer.answer(self, "HEAD")

            def do_GET(self):
                outer.answer(self, "GET")

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # clients that go away are the point
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def gets(self) -> list[str | None]:
        """The Range headers of all GETs."""
        return [given for method, _, given in self.asked if method == "GET"]

    def answer(self, handler, method):
        wanted = handler.headers.get("Range")
        self.asked.append((method, handler.path, wanted))
        file = self.files.get(handler.path)
        if file is None:
            return self.empty(handler, 404)
        if method == "HEAD" and not file.head:
            return self.empty(handler, 405)
        if method == "GET" and file.answers:
            return self.empty(handler, *file.answers.popleft())
        if file.location:
            return self.empty(handler, 302, {"Location": file.location})
        content, status, headers = file.content, 200, {}
        matches = not file.compares or handler.headers.get("If-Range") in (file.etag, file.modified)
        if wanted and file.parts and matches:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self.empty(handler, 416, {"Content-Range": f"bytes */{len(content)}"})
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content, status = content[start:], 206
        headers |= {"ETag": file.etag, "Last-Modified": file.modified}
        if file.length:
            headers["Content-Length"] = str(len(content))
        else:
            handler.close_connection = True
        handler.send_response(status)
        for name, value in headers.items():
            if value is not None:
                handler.send_header(name, value)
        handler.end_headers()
        if method == "HEAD":
            return None
        if not file.cuts:
            handler.wfile.write(content)
            return None
        cut = file.cuts.popleft()
        handler.wfile.write(content[:cut])
        handler.wfile.flush()
        if file.hold is not None:
            file.held.set()
            file.hold.wait(30)
            handler.wfile.write(content[cut:])
            return None
        # odd cuts end like a dead proxy (a reset), even ones like a closed line
        if cut % 2:
            linger = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        else:
            handler.connection.shutdown(socket.SHUT_RDWR)
        handler.connection.close()
        handler.close_connection = True
        return None

    @staticmethod
    def empty(handler, status, headers=None):
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
